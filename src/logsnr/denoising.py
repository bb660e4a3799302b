"""The loss of a batch, and everything random about it: timesteps, noise and dropped labels.

All of it comes from (seed, n), the number of the sample in the run; see `logsnr.data`. Timesteps are not drawn
independently: sample n takes t_n = floor(T frac(u + n / golden ratio)), u from the seed. Any stretch of consecutive
samples, however they fall into batches and processes, covers all noise levels evenly, which lowers the variance of
the gradient as stratified sampling does (Kingma et al., 2107.00630, appendix I.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logsnr.config import RunConfig
from logsnr.data import Batch, sample_seed, sample_seeds
from logsnr.models import num_class_embeds
from logsnr.objectives import loss_weights, squared_errors
from logsnr.schedulers.scheduling_beta import BetaScheduler

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio


def draw_timesteps(seed: int, positions: NDArray[np.int64], num_train_timesteps: int) -> NDArray[np.int64]:
    """The timestep of each sample n, in [0, T): an additive recurrence with the golden ratio, in 64-bit integers."""
    start = np.uint64(sample_seed(seed, 0, "timestep") << 1)  # of 63 bits, over all 64
    fraction = start + positions.astype(np.uint64) * np.uint64(_GOLDEN)
    return ((fraction >> np.uint64(32)) * np.uint64(num_train_timesteps) >> np.uint64(32)).astype(np.int64)


class Objective:
    """The training loss of a batch, and everything random about it."""

    def __init__(
        self, config: RunConfig, scheduler: BetaScheduler, class_names: list[str] | None, device: torch.device
    ) -> None:
        self.scheduler = scheduler
        self.seed = config.train.seed
        self.label_dropout = config.objective.label_dropout
        embeds = num_class_embeds(class_names)
        self.null_label = None if embeds is None else embeds - 1
        self.device = device
        self.weights = loss_weights(scheduler, config.objective).to(device)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """The mean weighted loss of a training batch."""
        positions = batch.positions.numpy()
        timesteps = torch.from_numpy(draw_timesteps(self.seed, positions, len(self.scheduler))).to(self.device)
        labels = batch.labels
        if labels is not None and self.null_label is not None:
            coins = sample_seeds(self.seed, positions, "label dropout") < self.label_dropout * 2.0**63
            labels = torch.where(torch.from_numpy(coins), self.null_label, labels).to(self.device)
        errors = self.errors(model, batch.images, labels, timesteps, self.seed, positions, "noise")
        return (errors * self.weights[timesteps]).mean()

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
        images = images.to(self.device)
        noise = torch.empty_like(images)
        generator = torch.Generator(self.device)
        for row, value in zip(noise, sample_seeds(seed, positions, stream).tolist(), strict=True):
            row.normal_(generator=generator.manual_seed(value))
        noisy = self.scheduler.add_noise(images, noise, timesteps)
        extra = {} if labels is None else {"class_labels": labels}
        output = model(noisy, timesteps, return_dict=False, **extra)[0]
        return squared_errors(self.scheduler, output, images, noise, timesteps)
