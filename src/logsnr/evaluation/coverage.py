"""Do draws of a posterior say how sure one may be? The rank of the truth among them, and what follows from it.

If an original x and the m draws x_1, ..., x_m that a method makes of its measurement are m + 1 draws of one posterior,
they can be exchanged: of any number that is made of an image, the rank of the original's among those of the draws is
uniform on 0, ..., m. (Talts et al. 2018, "Validating Bayesian inference algorithms with simulation-based calibration",
arXiv 1804.06788, theorem 1; here the originals are held-out images instead of draws of a prior.) So the interval from
the j-th least to the j-th greatest of the draws holds the original's number with probability

    (m + 1 - 2 j) / (m + 1),        j = 1: from least to greatest, 18 / 20 = 90 % of m = 19 draws.

Less is a method that is surer than it may be, or a model that doesn't know the images; more is one that isn't sure
enough. The numbers looked at are

- values of pixels, those alone that the measurement doesn't show and that have spread: the m + 1 values, the
  original's among them, differ. (To ask it of the draws alone would leave out where all of them are wrong alike.)
- projections on random directions, of the pixels that the measurement doesn't show: whether what pixels do together
  is right, too.

Images have a depth, and draws are rounded to it. The original's rank among equal values is drawn at random, which
keeps it uniform: an interval with its ends counted in would hold a black pixel among black ones for sure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logsnr.base.seeds import sample_seed

PROJECTIONS = 100
_SPREAD = 2.5 / 255
"""How far the values of a pixel must be apart, at least."""


@dataclass(frozen=True)
class Ranks:
    """How often the original had each rank, by image."""

    counts: NDArray[np.int64]
    """(images, draws + 1)."""

    @property
    def num_draws(self) -> int:
        """m."""
        return int(self.counts.shape[1]) - 1

    @property
    def numbers(self) -> int:
        """How many were ranked, of all images."""
        return int(self.counts.sum())

    @property
    def shares(self) -> list[float]:
        """Share of each rank 0, ..., m; 1 / (m + 1) of each is right."""
        total = self.counts.sum(0)
        return [float(share) for share in total / max(total.sum(), 1)]

    @property
    def nominal(self) -> list[float]:
        """The coverage that each interval should have, the widest first: (m + 1 - 2 j) / (m + 1)."""
        m = self.num_draws
        return [(m + 1 - 2 * j) / (m + 1) for j in range(1, m // 2 + 1)]

    @property
    def coverage(self) -> list[float]:
        """The share of originals in each of those intervals; nan where nothing was ranked."""
        return [self._inside(j)[0] for j in range(1, len(self.nominal) + 1)]

    @property
    def errors(self) -> list[float]:
        """Standard errors of `coverage`, from its differences between images, whose numbers hang together."""
        return [self._inside(j)[1] for j in range(1, len(self.nominal) + 1)]

    def _inside(self, j: int) -> tuple[float, float]:
        """A ratio of sums over images, and its standard error by the delta method."""
        inside, all_ = self.counts[:, j : self.num_draws + 1 - j].sum(1), self.counts.sum(1)
        if all_.sum() == 0:
            return math.nan, math.nan
        share, n = inside.sum() / all_.sum(), len(all_)
        if n < 2:
            return float(share), math.nan
        residuals = (inside - share * all_) / all_.mean()
        return float(share), float(np.sqrt((residuals**2).sum() / (n * (n - 1))))


def pixel_ranks(originals: Tensor, draws: Tensor, hidden: Tensor, *, bits: int | None = 8, seed: int = 0) -> Ranks:
    """Ranks of the originals' pixels among those of their draws.

    Args:
        originals: (n, channels, height, width) in [0, 1].
        draws: (n, draws, channels, height, width) in [0, 1].
        hidden: bool (n, channels, height, width), the pixels that are looked at where they have spread.
        bits: the depth of the images, to which both are rounded; None leaves them as they are.
        seed: of the ranks among equal values.
    """
    _require_draws(originals, draws)
    if bits is not None:
        originals, draws = (images.mul((1 << bits) - 1).round() for images in (originals, draws))
    least = _SPREAD * (1 if bits is None else (1 << bits) - 1)
    all_ = torch.cat([draws, originals.unsqueeze(1)], 1)
    chosen = hidden & (all_.amax(1) - all_.amin(1) >= least)
    return _ranks(originals.flatten(1), draws.flatten(2), chosen.flatten(1), seed)


def projection_ranks(
    originals: Tensor, draws: Tensor, hidden: Tensor, *, num: int = PROJECTIONS, seed: int = 0
) -> Ranks:
    """Ranks of the originals' projections on `num` random directions of unit norm among those of their draws.

    The directions are the same for all images but for the pixels that aren't `hidden`, where they are 0. Arguments as
    of `pixel_ranks`.
    """
    _require_draws(originals, draws)
    generator = torch.Generator().manual_seed(sample_seed(seed, 0, "projections"))
    directions = torch.randn(num, originals[0].numel(), generator=generator, dtype=originals.dtype)
    seen = directions * hidden.flatten(1).unsqueeze(1)  # (n, num, values)
    seen = seen / seen.norm(dim=2, keepdim=True).clamp(min=1e-12)
    truth = torch.einsum("nd,npd->np", originals.flatten(1), seen)
    drawn = torch.einsum("nmd,npd->nmp", draws.flatten(2), seen)
    some = hidden.flatten(1).any(1, keepdim=True).expand_as(truth)
    return _ranks(truth, drawn, some, seed)


def _ranks(truth: Tensor, draws: Tensor, chosen: Tensor, seed: int) -> Ranks:
    """Counts of ranks: truth (n, k) among draws (n, m, k), where `chosen` (n, k)."""
    n, m = draws.shape[:2]
    below, equal = (draws < truth.unsqueeze(1)).sum(1), (draws == truth.unsqueeze(1)).sum(1)
    generator = torch.Generator().manual_seed(sample_seed(seed, 0, "ties"))
    coins = torch.rand(truth.shape, generator=generator, dtype=torch.float64)
    ranks = below + (coins * (equal + 1)).long()
    rows = [np.bincount(ranks[k][chosen[k]].numpy(), minlength=m + 1) for k in range(n)]
    return Ranks(np.stack(rows))


def _require_draws(originals: Tensor, draws: Tensor) -> None:
    if draws.ndim != originals.ndim + 1 or draws[:, 0].shape != originals.shape or draws.shape[1] < 2:
        raise ValueError(
            "draws must be two or more of each original, (n, draws, channels, height, width), and are "
            f"{tuple(draws.shape)} beside originals of {tuple(originals.shape)}."
        )
