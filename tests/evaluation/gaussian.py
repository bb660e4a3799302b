"""Gaussian data of any covariance, for which the network, the bound and the likelihood are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoiser
from logsnr.schedulers.scheduling_beta import BetaScheduler

DOUBLE = torch.float64
SHAPES = {1: (1, 1, 1), 16: (1, 4, 4), 192: (3, 8, 8)}


@dataclass(frozen=True, eq=False)
class Gaussian:
    """x_0 ~ N(mean, U diag(variances) U^T), images of `shape`."""

    shape: tuple[int, ...]
    mean: Tensor
    variances: Tensor
    basis: Tensor

    def sample(self, count: int, seed: int) -> Tensor:
        noise = torch.randn(count, len(self.mean), generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
        return (self.mean + noise * self.variances.sqrt() @ self.basis.T).view(-1, *self.shape)

    def batches(self, count: int, seed: int, size: int = 64) -> Iterator[Batch]:
        images = self.sample(count, seed)
        for k in range(0, count, size):
            part = images[k : k + size]
            yield Batch(part, {}, torch.arange(k, k + len(part)))

    def log_prob(self, images: Tensor) -> Tensor:
        """In nats, (batch,)."""
        square = ((images.flatten(1) - self.mean) @ self.basis).square() / self.variances
        return -0.5 * (square + self.variances.log() + math.log(2 * math.pi)).sum(1)

    def entropy(self) -> float:
        """In bits per dimension: the negative log-likelihood to be expected."""
        return float((0.5 * (self.variances.log() + math.log(2 * math.pi * math.e))).mean()) / math.log(2)


def gaussian(dimensions: int, seed: int = 0, smallest: float = 0.1, largest: float = 0.6) -> Gaussian:
    """Standard deviations from `smallest` to `largest` along the axes of a random basis."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator, dtype=DOUBLE))
    std = (
        torch.linspace(smallest, largest, dimensions, dtype=DOUBLE)
        if dimensions > 1
        else torch.full((1,), 0.25, dtype=DOUBLE)
    )
    mean = 0.2 * torch.randn(dimensions, generator=generator, dtype=DOUBLE)
    return Gaussian(SHAPES[dimensions], mean, std.square(), basis)


class ExactModel(torch.nn.Module):
    """E[target | x_t] with a U-Net's call; between timesteps the noise level is interpolated in arctan(s / a).

    With `variance_output` it has twice the channels, the second half that number.
    """

    def __init__(self, data: Gaussian, scheduler: BetaScheduler, variance_output: float | None = None) -> None:
        super().__init__()
        self.data, self.prediction_type, self.variance_output = data, scheduler.prediction_type, variance_output
        bar = scheduler.alphas_cumprod.double()
        self.angle = torch.atan2((1 - bar).sqrt(), bar.sqrt()).numpy()

    def forward(self, sample: Tensor, timesteps: Tensor, return_dict: bool) -> tuple[Tensor]:
        assert not return_dict
        data = self.data
        angle = np.interp(timesteps.double().numpy(), np.arange(len(self.angle)), self.angle)
        a, s = (torch.from_numpy(f(angle)).view(-1, 1) for f in (np.cos, np.sin))
        x = sample.flatten(1)
        shrunk = (x - a * data.mean) @ data.basis * (a * data.variances / (a**2 * data.variances + s**2))
        x_0 = data.mean + shrunk @ data.basis.T
        eps = (x - a * x_0) / s
        output = {"epsilon": eps, "sample": x_0, "v_prediction": a * eps - s * x_0, "x0_minus_noise": x_0 - eps}
        result = output[self.prediction_type].view_as(sample)
        if self.variance_output is None:
            return (result,)
        return (torch.cat([result, torch.full_like(result, self.variance_output)], 1),)


def exact(data: Gaussian, scheduler: BetaScheduler, variance_output: float | None = None) -> Denoiser:
    """The exact model under its schedule."""
    return Denoiser(ExactModel(data, scheduler, variance_output), scheduler)
