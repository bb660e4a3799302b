"""The weighted squared error under a noise schedule that is learned along: see `logsnr.objectives.schedule_learner`.

Each sample has a log-SNR of its own on the curve as it is now, which gathers the gradient that moves the curve; the
weighting is one of those whose mean doesn't depend on the schedule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoises
from logsnr.objectives.objective import Context, Gather, noised, require_schedule, shown_condition
from logsnr.objectives.schedule_learner import ScheduleLearner, learned_scheduler
from logsnr.objectives.targets import squared_error_in_sample, target_errors
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.objectives.weightings import integral_weights, loss_weights
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.settings.objective import WeightedConfig, require_integral, require_settings
from logsnr.settings.schedule import Teacher


class LearnedScheduleObjective:
    """The weighted squared error, and a noise schedule that is learned along so that the loss is least noisy.

    Args:
        schedule: where the curve begins, a `LearnedBetaScheduler`.
        settings: a weighting that is an integral over log-SNR: sigmoid, edm or elbo.
        context: seed, device and how many conditions are dropped.
        teacher: what moves the curve: the gradient of the loss's variance, or each noise level's losses directly.

    Raises ConfigError for another weighting, and TypeError for a stock scheduler.
    """

    def __init__(
        self,
        schedule: BetaScheduler,
        settings: WeightedConfig,
        context: Context | None = None,
        teacher: Teacher = "variance",
    ) -> None:
        require_schedule(schedule)
        require_settings(settings, WeightedConfig)
        require_integral(settings.weighting)
        self.weighting = settings.weighting
        self.context = context or Context()
        self.learner = ScheduleLearner(schedule, teacher, self.context.device)
        self._first = schedule
        self._follow(schedule)

    def _follow(self, schedule: BetaScheduler) -> None:
        self._schedule, self._moved = schedule, False
        self._weights = loss_weights(schedule, self.weighting).to(self.context.device)

    @property
    def schedule(self) -> BetaScheduler:
        """The noise schedule as it is now."""
        if self._moved:
            self._follow(learned_scheduler(self._first, self.learner.state()))
        return self._schedule

    @property
    def sampler(self) -> BetaScheduler:
        """What the model is sampled with: the schedule as it is now."""
        return self.schedule

    @property
    def weights(self) -> Tensor:
        """The weight of a held-out error at each timestep, (T,)."""
        assert self.schedule is self._schedule
        return self._weights

    def loss(self, denoiser: Denoises, batch: Batch) -> Tensor:
        """The mean loss of a training batch: a tensor without axes, for `backward()`.

        Timesteps and noise come from `context.seed` and `batch.positions`. Raises ValueError where the denoiser doesn't
        know the batch's condition or misses it, and ModelError where the network's output doesn't fit.
        """
        seed, device = self.context.seed, self.context.device
        t = torch.from_numpy(draw_timesteps(seed, batch.positions.numpy(), len(self._schedule))).to(device)
        clean, noise = noised(batch, seed, "noise", device)
        log_snr, slope = self.learner.log_snr(t)
        shape = (-1, *[1] * (clean.ndim - 1))
        a, s = (c.sqrt().view(shape) for c in (torch.sigmoid(log_snr), torch.sigmoid(-log_snr)))
        output, _ = denoiser(a * clean + s * noise, t, shown_condition(denoiser, batch, self.context))
        prediction_type = self._schedule.prediction_type
        target = {
            "epsilon": noise,
            "sample": clean,
            "v_prediction": a * noise - s * clean,
            "x0_minus_noise": clean - noise,
        }[prediction_type]
        weights = integral_weights(log_snr, slope * log_snr.exp(), self.weighting)
        squared = (output - target).square().flatten(1).mean(1)
        losses = squared * squared_error_in_sample(prediction_type, log_snr) * weights
        self.learner.keep(t, log_snr, slope, losses)
        return losses.mean()

    def errors(self, denoiser: Denoises, batch: Batch, timesteps: Tensor, stream: str) -> Tensor:
        """Squared errors of what the network predicts, unweighted, (batch,), at given timesteps, int64, (batch,).

        What a held-out loss is made of, whatever trains: `weights[timesteps]` are its weights. The noise of position n
        comes from (0, n) and `stream`, any word, so that the same call has the same noise for every model.
        """
        return target_errors(denoiser, self.schedule, batch, timesteps, stream)

    def after_step(self, gather: Gather, progress: float) -> None:
        """Move the curve by the batches since the last call."""
        self._moved = self.learner.learn(gather, progress) or self._moved

    def finish(self, denoiser: Denoises) -> None:
        """Does nothing: the sampler of this loss needs no measuring."""

    def state(self) -> dict[str, Tensor]:
        """The curve as it is now, and what moves it."""
        return self.learner.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.learner.restore(state)
        self._moved = True
