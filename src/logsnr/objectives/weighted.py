"""The squared error of what the network predicts, weighted by noise level: w_t |target - output|^2.

(Ho et al., 2006.11239, eq. 14, is the weighting `simple` of the target `epsilon`.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoises
from logsnr.objectives.objective import Context, Fixed, noised, require_schedule, shown_condition
from logsnr.objectives.targets import squared_errors, target_errors
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.objectives.weightings import loss_weights
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.settings.objective import WeightedConfig, require_fixed_variance, require_settings


class WeightedObjective(Fixed):
    """The squared error of what the network predicts, weighted by noise level. Needs a schedule alone.

    Args:
        schedule: the noise, and what is predicted (`prediction_type`).
        settings: the weighting, as in `WeightedConfig(SigmoidWeighting())`; `WeightedConfig()`, which is min-SNR's,
            when not given.
        context: seed, device and how many conditions are dropped.

    Raises ConfigError for a schedule with a learned variance, of which the squared error says nothing, and TypeError
    for a stock scheduler.
    """

    def __init__(
        self, schedule: BetaScheduler, settings: WeightedConfig | None = None, context: Context | None = None
    ) -> None:
        require_schedule(schedule)
        require_fixed_variance(schedule.variance_type)
        settings = WeightedConfig() if settings is None else settings
        require_settings(settings, WeightedConfig)
        self.schedule = self.sampler = schedule
        self.context = context or Context()
        self.weights = loss_weights(schedule, settings.weighting).to(self.context.device)

    def loss(self, denoiser: Denoises, batch: Batch) -> Tensor:
        """The mean loss of a training batch: a tensor without axes, for `backward()`.

        Timesteps and noise come from `context.seed` and `batch.positions`. Raises ValueError where the denoiser doesn't
        know the batch's condition or misses it, and ModelError where the network's output doesn't fit.
        """
        seed, device = self.context.seed, self.context.device
        t = torch.from_numpy(draw_timesteps(seed, batch.positions.numpy(), len(self.schedule))).to(device)
        clean, noise = noised(batch, seed, "noise", device)
        x_t = self.schedule.add_noise(clean, noise, t)
        output, _ = denoiser(x_t, t, shown_condition(denoiser, batch, self.context))
        return (squared_errors(self.schedule, output, clean, noise, t) * self.weights[t]).mean()

    def errors(self, denoiser: Denoises, batch: Batch, timesteps: Tensor, stream: str) -> Tensor:
        """Squared errors of what the network predicts, unweighted, (batch,), at given timesteps, int64, (batch,).

        What a held-out loss is made of, whatever trains: `weights[timesteps]` are its weights. The noise of position n
        comes from (0, n) and `stream`, any word, so that the same call has the same noise for every model.
        """
        return target_errors(denoiser, self.schedule, batch, timesteps, stream)
