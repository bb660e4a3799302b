"""Random values for samples, each sample's from a seed of its own: they are the same in a batch of any size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Seeds = NDArray[np.int64]


def normal_like(samples: Tensor, seeds: Seeds) -> Tensor:
    """Standard normal noise in the shape, dtype and place of `samples`, whose first axis is that of `seeds`."""
    return _filled(samples, seeds, lambda row, generator: row.normal_(generator=generator))


def uniform_like(samples: Tensor, seeds: Seeds) -> Tensor:
    """Uniform in [-1/2, 1/2)."""
    return _filled(samples, seeds, lambda row, generator: row.uniform_(-0.5, 0.5, generator=generator))


def chances_like(samples: Tensor, seeds: Seeds) -> Tensor:
    """Uniform in [0, 1), float64 whatever `samples` are, in their shape and place: what states move by."""
    return _filled(samples.double(), seeds, lambda row, generator: row.uniform_(generator=generator))


def signs_like(samples: Tensor, seeds: Seeds) -> Tensor:
    """Rademacher noise: -1 or 1, equally likely."""
    return 2 * _filled(samples, seeds, lambda row, generator: row.bernoulli_(0.5, generator=generator)) - 1


def _filled(samples: Tensor, seeds: Seeds, fill: Callable[[Tensor, torch.Generator], object]) -> Tensor:
    values, generator = torch.empty_like(samples), torch.Generator(samples.device)
    for row, seed in zip(values, seeds.tolist(), strict=True):
        fill(row, generator.manual_seed(seed))
    return values
