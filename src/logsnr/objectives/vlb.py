"""The variational bound itself, its timesteps drawn where it is large and uncertain.

    L_t / p_t,   t drawn with probability p_t        (Nichol and Dhariwal, 2102.09672, eq. 18)

L_t is the bound's term at t in bits per dimension. It moves the mean and, where that is learned, the variance. What is
drawn depends on the losses before: see `logsnr.objectives.importance`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoises
from logsnr.objectives.importance import ImportanceSampler
from logsnr.objectives.objective import Context, Gather, noised, require_schedule, shown_condition
from logsnr.objectives.targets import target_errors
from logsnr.objectives.timesteps import uniform
from logsnr.objectives.variational_bound import VariationalBound
from logsnr.objectives.weightings import loss_weights
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.settings.objective import ElboWeighting, VlbConfig, require_settings


class VlbObjective:
    """The variational bound in bits per dimension: T times the mean of its terms, drawn by importance.

    Args:
        schedule: the noise, what is predicted, and the variance, learned or not.
        settings: `VlbConfig()`, which has nothing to set.
        context: seed, device, depth of the data, and how many conditions are dropped.

    Raises TypeError for a stock scheduler.
    """

    def __init__(
        self, schedule: BetaScheduler, settings: VlbConfig | None = None, context: Context | None = None
    ) -> None:
        require_schedule(schedule)
        require_settings(VlbConfig() if settings is None else settings, VlbConfig)
        self.schedule = self.sampler = schedule
        self.context = context or Context()
        device = self.context.device
        self.weights = loss_weights(schedule, ElboWeighting()).to(device)  # those of the bound with a fixed variance
        self.bound = VariationalBound(schedule, self.context.bits, device=device, dtype=torch.float32)
        self.importance = ImportanceSampler(len(schedule))

    def loss(self, denoiser: Denoises, batch: Batch) -> Tensor:
        """The mean loss of a training batch: a tensor without axes, for `backward()`.

        Timesteps and noise come from `context.seed` and `batch.positions`. Raises ValueError where the denoiser doesn't
        know the batch's condition or misses it, and ModelError where the network's output doesn't fit.
        """
        seed, device = self.context.seed, self.context.device
        drawn, share = self.importance.draw(uniform(seed, batch.positions.numpy()))
        at, t = torch.from_numpy(drawn), torch.from_numpy(drawn).to(device)
        clean, noise = noised(batch, seed, "noise", device)
        x_t = self.schedule.add_noise(clean, noise, t)
        output, variance = denoiser(x_t, t, shown_condition(denoiser, batch, self.context))
        x_0 = self.schedule.convert(output, x_t, t, self.schedule.prediction_type, "sample")
        terms = self.bound.terms(clean, x_0, variance, at)
        self.importance.keep(t, terms)
        return (len(self.schedule) * terms * torch.from_numpy(share).float().to(device)).mean()

    def errors(self, denoiser: Denoises, batch: Batch, timesteps: Tensor, stream: str) -> Tensor:
        """Squared errors of what the network predicts, unweighted, (batch,), at given timesteps, int64, (batch,).

        What a held-out loss is made of, whatever trains: `weights[timesteps]` are its weights. The noise of position n
        comes from (0, n) and `stream`, any word, so that the same call has the same noise for every model.
        """
        return target_errors(denoiser, self.schedule, batch, timesteps, stream)

    def after_step(self, gather: Gather, progress: float) -> None:
        """Let the losses since the last call say where timesteps are drawn next."""
        self.importance.learn(gather)

    def finish(self, denoiser: Denoises) -> None:
        """Does nothing: the sampler of this loss needs no measuring."""

    def state(self) -> dict[str, Tensor]:
        """The last losses of each timestep, which decide what is drawn next."""
        return self.importance.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.importance.restore(state)
