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
the losses before: see `logsnr.importance`.
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
from logsnr.models import num_class_embeds
from logsnr.objectives import loss_weights, squared_errors
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
        self.scheduler = scheduler
        self.seed = config.train.seed
        self.label_dropout = config.objective.label_dropout
        embeds = num_class_embeds(class_names)
        self.null_label = None if embeds is None else embeds - 1
        self.device = device
        self.weights = loss_weights(scheduler, config.objective).to(device)
        self.kind, self.vlb_weight = config.objective.loss, config.objective.vlb_weight
        self.bound: VariationalBound | None = None
        if self.kind != "weighted":
            self.bound = VariationalBound(scheduler, bits, device=device, dtype=torch.float32)
        self.sampler = ImportanceSampler(len(scheduler)) if self.kind == "vlb" else None
        self._unlearned: list[tuple[Tensor, Tensor]] = []  # timesteps and losses of each batch since the last `learn`

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """The mean loss of a training batch."""
        positions = batch.positions.numpy()
        drawn, importance = self._draw(positions)
        timesteps = drawn.to(self.device)
        labels = batch.labels
        if labels is not None and self.null_label is not None:
            coins = sample_seeds(self.seed, positions, "label dropout") < self.label_dropout * 2.0**63
            labels = torch.where(torch.from_numpy(coins), self.null_label, labels).to(self.device)
        images, noise, noisy = self._noised(batch.images, timesteps, self.seed, positions, "noise")
        output, variance_output = self._predicted(model, noisy, timesteps, labels)
        losses = torch.zeros(len(images), device=self.device)
        if self.kind != "vlb":
            errors = squared_errors(self.scheduler, output, images, noise, timesteps)
            losses = errors * self.weights[timesteps]
        if self.bound is not None:
            x_0 = self.scheduler.convert(output, noisy, timesteps, self.scheduler.prediction_type, "sample")
            fixed = x_0.detach() if self.kind == "hybrid" else x_0
            terms = self.bound.terms(images, fixed, variance_output, drawn)
            if self.kind == "hybrid":
                losses = losses + self.vlb_weight * len(self.scheduler) * terms
            else:
                losses = len(self.scheduler) * terms * importance.to(self.device)
                self._unlearned.append((timesteps, terms.detach()))
        return losses.mean()

    def _draw(self, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Timesteps and their 1 / (T p_t), on the CPU."""
        if self.sampler is None:
            timesteps = draw_timesteps(self.seed, positions, len(self.scheduler))
            return torch.from_numpy(timesteps), torch.ones(len(positions))
        fractions = (_fractions(self.seed, positions) >> np.uint64(11)).astype(np.float64) / 2**53
        timesteps, importance = self.sampler.draw(fractions)
        return torch.from_numpy(timesteps), torch.from_numpy(importance).float()

    def learn(self, accelerator: Accelerator) -> None:
        """Keep what the batches since the last call, in all processes, say of where to draw the next timesteps."""
        if self.sampler is None:
            return
        pairs = torch.stack([torch.stack([t.float(), loss]) for t, loss in self._unlearned])
        gathered = accelerator.gather(pairs[None]).transpose(0, 1)  # (batch, process, 2, sample): the samples' order
        timesteps, losses = gathered.movedim(2, 0).flatten(1).tolist()
        self.sampler.record([int(t) for t in timesteps], losses)
        self._unlearned = []

    def state(self) -> dict[str, Tensor]:
        """What the loss has learned so far; a run that goes on needs it."""
        return {} if self.sampler is None else self.sampler.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        if self.sampler is not None:
            self.sampler.restore(state)

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
        images, noise, noisy = self._noised(images, timesteps, seed, positions, stream)
        output, _ = self._predicted(model, noisy, timesteps, labels)
        return squared_errors(self.scheduler, output, images, noise, timesteps)

    def _noised(
        self, images: Tensor, timesteps: Tensor, seed: int, positions: NDArray[np.int64], stream: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The images, their noise and x_t, on the device."""
        images = images.to(self.device)
        noise = torch.empty_like(images)
        generator = torch.Generator(self.device)
        for row, value in zip(noise, sample_seeds(seed, positions, stream).tolist(), strict=True):
            row.normal_(generator=generator.manual_seed(value))
        return images, noise, self.scheduler.add_noise(images, noise, timesteps)

    def _predicted(
        self, model: Any, noisy: Tensor, timesteps: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What the network says, and what it says of the variance where that is learned, in float32."""
        extra = {} if labels is None else {"class_labels": labels}
        output = model(noisy, timesteps, return_dict=False, **extra)[0].float()
        if self.scheduler.variance_type != "learned_range":
            return output, None
        mean, variance = output.chunk(2, dim=1)
        return mean, variance
