"""The plain cross-entropy of states that noise took, all noise levels alike.

    sum over places of noise of -log p(x_0 | x_t)  /  (length  mean over t of the share of noise)

Places of noise are the masks of the absorbing kernel, 1 - alpha_bar_t of all; of the other kernels, where nobody sees
which they are, all places. It is the cross-entropy of such places, but for a factor that doesn't depend on the batch:
so it is linear in the samples. (MaskGIT, 2202.04200, eq. 2, is trained so.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoises
from logsnr.objectives.objective import Context, Fixed, shown_condition
from logsnr.objectives.states import bound_weights, cross_entropies, held_out_errors, noised_states, require_states
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.schedulers.scheduling_transition import TransitionScheduler
from logsnr.settings.objective import CrossEntropyConfig, require_settings


class CrossEntropyObjective(Fixed):
    """The cross-entropy of states that noise took, in nats.

    Args:
        schedule: the noise of the states.
        settings: `CrossEntropyConfig()`, which has nothing to set.
        context: seed, device and how many conditions are dropped.

    Raises TypeError for a schedule of numbers.
    """

    def __init__(
        self, schedule: TransitionScheduler, settings: CrossEntropyConfig | None = None, context: Context | None = None
    ) -> None:
        require_states(schedule)
        require_settings(CrossEntropyConfig() if settings is None else settings, CrossEntropyConfig)
        self.schedule = self.sampler = schedule
        self.context = context or Context()
        self.weights = bound_weights(schedule, self.context.device)
        of_masks = schedule.kernel == "absorbing"
        self.share = float(1 - schedule.alphas_cumprod.mean()) if of_masks else 1.0

    def loss(self, denoiser: Denoises, batch: Batch) -> Tensor:
        """The mean loss of a training batch: a tensor without axes, for `backward()`.

        Timesteps and noise come from `context.seed` and `batch.positions`. Raises ValueError where the denoiser doesn't
        know the batch's condition or misses it, and ModelError where the network's output doesn't fit.
        """
        seed, device = self.context.seed, self.context.device
        t = torch.from_numpy(draw_timesteps(seed, batch.positions.numpy(), len(self.schedule))).to(device)
        clean, x_t = noised_states(self.schedule, batch, seed, "noise", t)
        logits, _ = denoiser(x_t, t, shown_condition(denoiser, batch, self.context))
        return cross_entropies(self.schedule, logits, clean, x_t).mean() / self.share

    def errors(self, denoiser: Denoises, batch: Batch, timesteps: Tensor, stream: str) -> Tensor:
        """Bits for each unit of survival that the step takes away, (batch,), at given timesteps, int64, (batch,).

        What a held-out loss is made of, whatever trains: weighted by `weights[timesteps]` their mean is the bound in
        bits a token. The noise of position n comes from (0, n) and `stream`, any word, so that the same call has the
        same noise for every model.
        """
        return held_out_errors(denoiser, self.schedule, batch, timesteps, stream)
