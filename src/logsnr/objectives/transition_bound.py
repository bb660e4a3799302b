"""The variational bound of states, in bits a token: T times the mean of its terms, exact for every kernel.

    T L_t = w_t e_t,   t from an even cover of the chain        (Austin et al., 2107.03006, eq. 1)

Of the absorbing kernel it is the cross-entropy of masks, weighted by T (alpha_bar_{t-1} - alpha_bar_t) /
(1 - alpha_bar_t) (2406.07524, eq. 10): masks count more where there are few. The sum is then the upper Riemann sum of
the integral of e over alpha_bar, the same whatever the schedule, and comes down to it as 1 / T.
"""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoises
from logsnr.objectives.objective import Context, Fixed, shown_condition
from logsnr.objectives.states import bound_errors, bound_weights, held_out_errors, noised_states, require_states
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.schedulers.scheduling_transition import TransitionScheduler
from logsnr.settings.objective import TransitionBoundConfig, require_settings


class TransitionBoundObjective(Fixed):
    """The bound on -log2 p(x_0), in bits a token.

    Args:
        schedule: the noise of the states.
        settings: `TransitionBoundConfig()`, which has nothing to set.
        context: seed, device and how many conditions are dropped.

    Raises TypeError for a schedule of numbers.
    """

    def __init__(
        self,
        schedule: TransitionScheduler,
        settings: TransitionBoundConfig | None = None,
        context: Context | None = None,
    ) -> None:
        require_states(schedule)
        require_settings(TransitionBoundConfig() if settings is None else settings, TransitionBoundConfig)
        self.schedule = self.sampler = schedule
        self.context = context or Context()
        self.weights = bound_weights(schedule, self.context.device)

    def loss(self, denoiser: Denoises, batch: Batch) -> Tensor:
        """The mean loss of a training batch: a tensor without axes, for `backward()`.

        Timesteps and noise come from `context.seed` and `batch.positions`. Raises ValueError where the denoiser doesn't
        know the batch's condition or misses it, and ModelError where the network's output doesn't fit.
        """
        seed, device = self.context.seed, self.context.device
        t = torch.from_numpy(draw_timesteps(seed, batch.positions.numpy(), len(self.schedule))).to(device)
        clean, x_t = noised_states(self.schedule, batch, seed, "noise", t)
        logits, _ = denoiser(x_t, t, shown_condition(denoiser, batch, self.context))
        return (bound_errors(self.schedule, logits, clean, x_t, t) * self.weights[t]).mean()

    def errors(self, denoiser: Denoises, batch: Batch, timesteps: Tensor, stream: str) -> Tensor:
        """Bits for each unit of survival that the step takes away, (batch,), at given timesteps, int64, (batch,).

        What a held-out loss is made of, whatever trains: weighted by `weights[timesteps]` their mean is the bound in
        bits a token. The noise of position n comes from (0, n) and `stream`, any word, so that the same call has the
        same noise for every model.
        """
        return held_out_errors(denoiser, self.schedule, batch, timesteps, stream)
