"""How far apart two sets of features are, in float64.

x, (n, d), are features of generated images and y, (m, d), of real ones, one row an image.

    kid               E k(x, x') + E k(y, y') - 2 E k(x, y) with k(u, v) = (u·v / d + 1)^3, the pairs of an image with
                      itself left out: unbiased, whatever n and m (Bińkowski et al., 1801.01401, section 3.2).
    fid               |mean x - mean y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), C the covariances: the squared
                      Fréchet distance of two normal distributions (Heusel et al., 1706.08500, eq. 6). In a finite
                      sample it is biased upward, by about 1/n + 1/m times a constant of the data and the network.
    inception_score   exp E KL(p(c | x) || p(c)), c the class, the mean over ten splits (Salimans et al., 1606.03498).
    precision         the share of generated images that lie in a ball about a real one, whose radius is the distance
                      to its third nearest real neighbour (Kynkäänniemi et al., 1904.06991, eq. 2);
    recall            the same with real and generated exchanged. Both grow with n and m, which are made equal.

fid and inception_score are torchmetrics', on features instead of images. Its kid is the mean over random subsets of
equal size, with their spread beside it; here all pairs are taken, which is the same in expectation, scatters less, and
serves all resamples of the bootstrap at once.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from tqdm import tqdm

from logsnr.evaluation.extractors import Features

RESAMPLES = 50
NEIGHBOURS = 3
SPLITS = 10
_ROWS = 1024
"""Rows of a matrix of pairs that are held at once."""


@dataclass(frozen=True)
class Figures:
    """One number for each metric: their values, or the standard deviations of these."""

    kid: float
    fid: float
    inception_score: float | None
    """None where the network knows no classes."""
    precision: float
    recall: float


def measure(generated: Features, real: Features) -> Figures:
    """FID, KID, Inception Score, precision and recall; all but FID with as many real images as generated ones."""
    x, y, logits = _double(generated, real)
    few = min(len(x), len(y))
    return Figures(
        kernel_distance(x, y[: len(x)]),
        frechet_distance(x, y),
        None if logits is None else inception_score(logits),
        *(float(inside.double().mean()) for inside in precision_recall(x[:few], y[:few])),
    )


def deviations(generated: Features, real: Features) -> Figures:
    """The standard deviation of each figure by the bootstrap: both sets drawn again, with replacement.

    It shows the chance of the draw, never the bias: a resample holds copies, which are a second helping of it, so the
    percentiles of the resamples themselves are no interval for fid. Radii of nearest neighbours can't be resampled (a
    copy is at distance 0): there the balls are kept, and what is left is the bootstrap of a share p of n images,
    sqrt(p (1 - p) / n).
    """
    x, y, logits = _double(generated, real)
    few = min(len(x), len(y))
    generator = torch.Generator().manual_seed(0)
    v, w = _draws(len(x), generator), _draws(len(y), generator)
    resamples = tqdm(zip(v, w, strict=True), "Interval of FID", RESAMPLES, leave=False, delay=2)
    distances = [frechet_distance(x[i], y[j]) for i, j in resamples]
    scores = None if logits is None else float(torch.tensor([inception_score(logits[i]) for i in v]).std())
    return Figures(
        float(kernel_distances(x, y[: len(x)], _counts(v), _counts(_draws(few, generator))).std()),
        float(torch.tensor(distances).std()),
        scores,
        *((inside.double().std(correction=0) / few**0.5).item() for inside in precision_recall(x[:few], y[:few])),
    )


class _Given(nn.Module):
    """Features as they are, where torchmetrics expects the network that makes them."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Fréchet distance between two sets of features (n, d) and (m, d)."""
    metric = FrechetInceptionDistance(feature=_Given(x.shape[1]))
    metric.update(y, real=True)
    metric.update(x, real=False)
    return float(metric.compute())


def inception_score(logits: Tensor) -> float:
    """Inception Score from a classifier's logits, (n, classes)."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # that it keeps all features in memory
        torch.manual_seed(0)  # for the splits
        metric = InceptionScore(feature=_Given(logits.shape[1]), splits=SPLITS)
        metric.update(logits)
        return float(metric.compute()[0])


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """KID: the unbiased squared MMD with the cubic kernel, of features (n, d) and (m, d)."""
    return kernel_distances(x, y, x.new_ones(len(x), 1), y.new_ones(len(y), 1)).item()


def kernel_distances(x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """kid of several resamples at once: row i of x is taken v[i, r] times in the r-th, row j of y w[j, r] times."""
    cross = _pair_sums(x, y, v, w) / (v.sum(0) * w.sum(0))
    return _within(x, v) + _within(y, w) - 2 * cross


def _within(x: Tensor, v: Tensor) -> Tensor:
    """The mean of the kernel over the pairs of different images of one set."""
    own = (x.square().sum(1) / x.shape[1] + 1) ** 3
    others = _pair_sums(x, x, v, v) - (v.square() * own[:, None]).sum(0)
    return others / (v.sum(0).square() - v.square().sum(0))


def _pair_sums(x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """The sum of v_i k(x_i, y_j) w_j over all pairs, for each column of v and w."""
    total = x.new_zeros(v.shape[1])
    for rows, weights in zip(x.split(_ROWS), v.split(_ROWS), strict=True):
        kernel = (rows @ y.T / x.shape[1] + 1) ** 3
        total += (weights * (kernel @ w)).sum(0)
    return total


def precision_recall(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows of x lie among those of y, (n,), and which of y among those of x, (m,): the figures are means."""
    return _inside(x, y, _radii(y)), _inside(y, x, _radii(x))


def _radii(features: Tensor) -> Tensor:
    """The distance of each row to its third nearest other row, (n,)."""
    radii = []
    for start in range(0, len(features), _ROWS):
        distances = torch.cdist(features[start : start + _ROWS], features)
        distances[torch.arange(len(distances)), start + torch.arange(len(distances))] = torch.inf
        radii.append(distances.kthvalue(NEIGHBOURS, dim=1).values)
    return torch.cat(radii)


def _inside(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Which points lie in a ball, (points,)."""
    return torch.cat([(torch.cdist(rows, centres) <= radii).any(dim=1) for rows in points.split(_ROWS)])


def nearest(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of each row of x to the nearest row of y, and which that is: (n,) each."""
    found = [torch.cdist(rows, y).min(dim=1) for rows in x.split(_ROWS)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])


def _double(generated: Features, real: Features) -> tuple[Tensor, Tensor, Tensor | None]:
    logits = None if generated.logits is None else generated.logits.double()
    return generated.features.double(), real.features.double(), logits


def _draws(n: int, generator: torch.Generator) -> Tensor:
    """Which images each resample consists of, (RESAMPLES, n)."""
    return torch.randint(n, (RESAMPLES, n), generator=generator)


def _counts(draws: Tensor) -> Tensor:
    """How often each image was drawn in each resample, (n, RESAMPLES)."""
    return torch.stack([torch.bincount(draw, minlength=len(draw)) for draw in draws], dim=1).double()
