"""The loss of a batch, and everything random about it: timesteps, noise and dropped labels.

All of it comes from (seed, n), the number of the sample in the run; see `logsnr.data`. Timesteps are not drawn
independently: sample n takes t_n = floor(T frac(u + n / golden ratio)), u from the seed. Any stretch of consecutive
samples, however they fall into batches and processes, covers all noise levels evenly, which lowers the variance of
the gradient as stratified sampling does (Kingma et al., 2107.00630, appendix I.1).

There are three losses (`objective.loss`). With L_t the term of the variational bound at t in bits per dimension, so
that L_vlb = sum_t L_t is T times its mean,

    weighted   w_t |target - output|^2
    hybrid     w_t |target - output|^2 + vlb_weight T L_t    the mean in L_t held fixed    (2102.09672, eq. 16)
    vlb        L_t / p_t                                     t drawn by importance         (2102.09672, eq. 18)

In the hybrid the bound moves the learned variance alone; in vlb it moves everything. With vlb what is drawn depends on
the losses before: see `logsnr.importance`. So does the noise level of a timestep with the schedule `learned`: see
`logsnr.learned_schedule`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from logsnr.config import RunConfig
from logsnr.data import Batch, sample_seed, sample_seeds
from logsnr.importance import ImportanceSampler
from logsnr.learned_schedule import ScheduleLearner, learned_scheduler
from logsnr.models import num_class_embeds
from logsnr.objectives import integral_weights, loss_weights, squared_error_in_sample, squared_errors
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.variational_bound import VariationalBound

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio


def draw_timesteps(seed: int, positions: NDArray[np.int64], num_train_timesteps: int) -> NDArray[np.int64]:
    """The timestep of each sample n, in [0, T): an additive recurrence with the golden ratio, in 64-bit integers."""
    fraction = _fractions(seed, positions)
    return ((fraction >> np.uint64(32)) * np.uint64(num_train_timesteps) >> np.uint64(32)).astype(np.int64)


def _fractions(seed: int, positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """frac(u + n / golden ratio) in units of 2^-64."""
    start = np.uint64(sample_seed(seed, 0, "timestep") << 1)  # of 63 bits, over all 64
    return start + positions.astype(np.uint64) * np.uint64(_GOLDEN)


def uniform(seed: int, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same in [0, 1)."""
    return (_fractions(seed, positions) >> np.uint64(11)).astype(np.float64) / 2**53


def drop_labels(
    labels: Tensor | None,
    null_label: int | None,
    share: float,
    seed: int,
    positions: NDArray[np.int64],
    device: torch.device,
) -> Tensor | None:
    """The labels on the device, `share` of them replaced by the null label."""
    if labels is None or null_label is None:
        return labels
    coins = sample_seeds(seed, positions, "label dropout") < share * 2.0**63
    return torch.where(torch.from_numpy(coins), null_label, labels).to(device)


def with_noise(
    images: Tensor, seed: int, positions: NDArray[np.int64], stream: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The images and their noise, on the device; the noise of each image is drawn from its own seed."""
    images = images.to(device)
    noise = torch.empty_like(images)
    generator = torch.Generator(device)
    for row, value in zip(noise, sample_seeds(seed, positions, stream).tolist(), strict=True):
        row.normal_(generator=generator.manual_seed(value))
    return images, noise


def predicted(
    model: Any, scheduler: BetaScheduler, noisy: Tensor, timesteps: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """What the network says, and what it says of the variance where that is learned, in float32."""
    extra = {} if labels is None else {"class_labels": labels}
    output = model(noisy, timesteps, return_dict=False, **extra)[0].float()
    if scheduler.variance_type != "learned_range":
        return output, None
    mean, variance = output.chunk(2, dim=1)
    return mean, variance


class Objective:
    """The training loss of a batch, and everything random about it."""

    def __init__(
        self,
        config: RunConfig,
        scheduler: BetaScheduler,
        class_names: list[str] | None,
        bits: int,
        device: torch.device,
    ) -> None:
        self.config = config.objective
        self.seed = config.train.seed
        embeds = num_class_embeds(class_names)
        self.null_label = None if embeds is None else embeds - 1
        self.device = device
        self.bound: VariationalBound | None = None
        if self.config.loss != "weighted":
            self.bound = VariationalBound(scheduler, bits, device=device, dtype=torch.float32)
        self.sampler = ImportanceSampler(len(scheduler)) if self.config.loss == "vlb" else None
        self.learner: ScheduleLearner | None = None
        if config.schedule.name == "learned":
            self.learner = ScheduleLearner(scheduler, config.schedule.teacher, device)
        self._first = scheduler
        self._use(scheduler)

    def _use(self, scheduler: BetaScheduler) -> None:
        self._scheduler, self._moved = scheduler, False
        self._weights = loss_weights(scheduler, self.config).to(self.device)

    def _follow(self) -> None:
        if self._moved and self.learner is not None:
            self._use(learned_scheduler(self._first, self.learner.state()))

    @property
    def scheduler(self) -> BetaScheduler:
        """The noise schedule as it is now."""
        self._follow()
        return self._scheduler

    @property
    def model_scheduler(self) -> BetaScheduler:
        """What the model is saved and sampled with."""
        return self.scheduler

    @property
    def weights(self) -> Tensor:
        """Weight of the squared error at each timestep, (T,), as it is now."""
        self._follow()
        return self._weights

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """The mean loss of a training batch."""
        positions = batch.positions.numpy()
        dropout = self.config.label_dropout
        labels = drop_labels(
            batch.condition.get("class_labels"), self.null_label, dropout, self.seed, positions, self.device
        )
        images, noise = with_noise(batch.clean, self.seed, positions, "noise", self.device)
        if self.learner is not None:
            return self._loss_on_the_curve(self.learner, model, images, noise, labels, positions)
        drawn, importance = self._draw(positions)
        timesteps = drawn.to(self.device)
        noisy = self.scheduler.add_noise(images, noise, timesteps)
        output, variance_output = predicted(model, self._scheduler, noisy, timesteps, labels)

        def terms(bound: VariationalBound, output: Tensor) -> Tensor:
            x_0 = self.scheduler.convert(output, noisy, timesteps, self.scheduler.prediction_type, "sample")
            return bound.terms(images, x_0, variance_output, drawn)

        total = len(self.scheduler)
        if self.bound is not None and self.sampler is not None:
            of_bound = terms(self.bound, output)
            self.sampler.keep(timesteps, of_bound)
            return (total * of_bound * importance.to(self.device)).mean()
        losses = squared_errors(self.scheduler, output, images, noise, timesteps) * self.weights[timesteps]
        if self.bound is not None:
            losses = losses + self.config.vlb_weight * total * terms(self.bound, output.detach())
        return losses.mean()

    def _draw(self, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Timesteps and their 1 / (T p_t), on the CPU."""
        if self.sampler is None:
            timesteps = draw_timesteps(self.seed, positions, len(self._scheduler))
            return torch.from_numpy(timesteps), torch.ones(len(positions))
        timesteps, importance = self.sampler.draw(uniform(self.seed, positions))
        return torch.from_numpy(timesteps), torch.from_numpy(importance).float()

    def _loss_on_the_curve(
        self,
        learner: ScheduleLearner,
        model: Any,
        images: Tensor,
        noise: Tensor,
        labels: Tensor | None,
        positions: NDArray[np.int64],
    ) -> Tensor:
        """The weighted loss with a schedule that is learned: each image's log-SNR gathers its gradient."""
        timesteps = self._draw(positions)[0].to(self.device)
        log_snr, slope = learner.log_snr(timesteps)
        a, s = (c.sqrt().view(-1, 1, 1, 1) for c in (torch.sigmoid(log_snr), torch.sigmoid(-log_snr)))
        output, _ = predicted(model, self._scheduler, a * images + s * noise, timesteps, labels)
        prediction_type = self._scheduler.prediction_type
        error = (
            output
            - {
                "epsilon": noise,
                "sample": images,
                "v_prediction": a * noise - s * images,
                "x0_minus_noise": images - noise,
            }[prediction_type]
        )
        weights = integral_weights(log_snr, slope * log_snr.exp(), self.config)
        losses = error.square().flatten(1).mean(1) * squared_error_in_sample(prediction_type, log_snr) * weights
        learner.keep(timesteps, log_snr, slope, losses)
        return losses.mean()

    def learn(self, accelerator: Accelerator, progress: float) -> None:
        """Let the batches since the last call, in all processes, say what comes next: where timesteps are drawn, and
        how noisy they are. `progress` is the share of the steps that are done."""
        if self.sampler is not None:
            self.sampler.learn(accelerator)
        if self.learner is not None:
            self._moved = self.learner.learn(accelerator, progress) or self._moved

    def settle(self, model: Any) -> None:
        """Nothing: the sampler of the finished `model` is known."""

    def state(self) -> dict[str, Tensor]:
        """What the loss has learned so far; a run that goes on needs it."""
        parts = (self.sampler, self.learner)
        return {name: value for part in parts if part is not None for name, value in part.state().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        if self.sampler is not None:
            self.sampler.restore(state)
        if self.learner is not None:
            self.learner.restore(state)
            self._moved = True

    def errors(
        self,
        model: Any,
        images: Tensor,
        labels: Tensor | None,
        timesteps: Tensor,
        seed: int,
        positions: NDArray[np.int64],
        stream: str,
    ) -> Tensor:
        """Unweighted squared errors (batch,), the noise of each image drawn from its own seed."""
        images, noise = with_noise(images, seed, positions, stream, self.device)
        noisy = self.scheduler.add_noise(images, noise, timesteps)
        output, _ = predicted(model, self._scheduler, noisy, timesteps, labels)
        return squared_errors(self.scheduler, output, images, noise, timesteps)
