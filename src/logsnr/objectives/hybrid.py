"""The squared error and, beside it, the variational bound: what trains a learned variance.

    w_t |target - output|^2 + vlb_weight T L_t        (Nichol and Dhariwal, 2102.09672, eq. 16)

L_t is the bound's term at t in bits per dimension, so that T times its mean is the bound; the predicted mean in it is
held fixed, and it moves the learned variance alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoises
from logsnr.objectives.objective import Context, Fixed, noised, require_schedule, shown_condition
from logsnr.objectives.targets import squared_errors, target_errors
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.objectives.variational_bound import VariationalBound
from logsnr.objectives.weightings import loss_weights
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.settings.objective import HybridConfig, require_learned_variance, require_settings


class HybridObjective(Fixed):
    """The weighted squared error, and the variational bound for the reverse step's variance, which is learned.

    Args:
        schedule: the noise and what is predicted, of variance_type `learned_range`.
        settings: the weighting and the weight of the bound; `HybridConfig()` when not given.
        context: seed, device, depth of the data, and how many conditions are dropped.

    Raises ConfigError for a schedule whose variance isn't learned, and TypeError for a stock scheduler.
    """

    def __init__(
        self, schedule: BetaScheduler, settings: HybridConfig | None = None, context: Context | None = None
    ) -> None:
        require_schedule(schedule)
        require_learned_variance(schedule.variance_type)
        settings = HybridConfig() if settings is None else settings
        require_settings(settings, HybridConfig)
        self.schedule = self.sampler = schedule
        self.context = context or Context()
        device = self.context.device
        self.weights = loss_weights(schedule, settings.weighting).to(device)
        self.vlb_weight = settings.vlb_weight
        self.bound = VariationalBound(schedule, self.context.bits, device=device, dtype=torch.float32)

    def loss(self, denoiser: Denoises, batch: Batch) -> Tensor:
        """The mean loss of a training batch: a tensor without axes, for `backward()`.

        Timesteps and noise come from `context.seed` and `batch.positions`. Raises ValueError where the denoiser doesn't
        know the batch's condition or misses it, and ModelError where the network's output doesn't fit.
        """
        seed, device = self.context.seed, self.context.device
        drawn = torch.from_numpy(draw_timesteps(seed, batch.positions.numpy(), len(self.schedule)))
        t = drawn.to(device)
        clean, noise = noised(batch, seed, "noise", device)
        x_t = self.schedule.add_noise(clean, noise, t)
        output, variance = denoiser(x_t, t, shown_condition(denoiser, batch, self.context))
        x_0 = self.schedule.convert(output.detach(), x_t, t, self.schedule.prediction_type, "sample")
        terms = len(self.schedule) * self.bound.terms(clean, x_0, variance, drawn)
        squared = squared_errors(self.schedule, output, clean, noise, t) * self.weights[t]
        return (squared + self.vlb_weight * terms).mean()

    def errors(self, denoiser: Denoises, batch: Batch, timesteps: Tensor, stream: str) -> Tensor:
        """Squared errors of what the network predicts, unweighted, (batch,), at given timesteps, int64, (batch,).

        What a held-out loss is made of, whatever trains: `weights[timesteps]` are its weights. The noise of position n
        comes from (0, n) and `stream`, any word, so that the same call has the same noise for every model.
        """
        return target_errors(denoiser, self.schedule, batch, timesteps, stream)
