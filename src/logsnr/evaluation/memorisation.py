"""Does a model draw its training images again? Three comparisons by distance in feature space.

- Each generated image beside its nearest training image, the closest pairs first: look at them.
- Is a generated image nearer to the training images than a new real one is? `copying` is the chance that the distance
  d(generated, train) is below d(held-out, train), Mann and Whitney's statistic U / (n m): about 0.5 for a model that
  generalises, 1 for one that copies (Meehan et al., 2004.05675, section 3.1), with its z-score.
- Is it nearer to the images that were trained on than to those that weren't? `nearer_to_train` is the share of
  generated images whose nearest neighbour among as many training as held-out images is a training image: 0.5 again.

A set of some hundred images or fewer is where this matters, and where held-out images are few: mind the z-score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from logsnr.data.images import ImageData
from logsnr.evaluation.distances import nearest
from logsnr.media.plots import to_pil

FEWEST_HELD_OUT = 50
"""With fewer held-out samples nothing is said of copying."""
COPIES = 3.0
"""The least deviation of `chance_below` from chance, in standard deviations, that means copies."""
_PAIRS = 30
_PAIRS_A_ROW = 5


@dataclass(frozen=True)
class Memorisation:
    """Distances in feature space."""

    median_to_train: float
    """From generated images to their nearest training images."""
    median_of_held_out_to_train: float
    """From held-out images to their nearest training images: what a new image has."""
    copying: float
    """Share of pairs (generated, held-out) of which the generated one is nearer to a training image; 0.5 is fair."""
    copying_z: float
    """`copying` in standard deviations from 0.5."""
    nearer_to_train: float


def memorisation(generated: Tensor, train: Tensor, held_out: Tensor) -> Memorisation:
    """Whether generated images lie nearer to training images than held-out ones do.

    Features are (n, d), (m, d) and (k, d)."""
    x, y, z = generated.double(), train.double(), held_out.double()
    to_train, of_held_out = nearest(x, y)[0], nearest(z, y)[0]
    few = min(len(y), len(z))
    chosen = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:few]]
    closer = (nearest(x, chosen)[0] < nearest(x, z[:few])[0]).double().mean()
    copying, copying_z = chance_below(to_train, of_held_out)
    return Memorisation(float(to_train.median()), float(of_held_out.median()), copying, copying_z, float(closer))


def chance_below(some: Tensor, others: Tensor) -> tuple[float, float]:
    """How often one of `some` (n,) is below one of `others` (m,), half of the ties included: Mann and Whitney's
    U / (n m); and that in standard deviations from 0.5."""
    n, m = len(some), len(others)
    below = (others.unsqueeze(0) > some.unsqueeze(1)).double()
    below += 0.5 * (others.unsqueeze(0) == some.unsqueeze(1)).double()
    chance = below.mean()
    return float(chance), float((chance - 0.5) / math.sqrt((n + m + 1) / (12 * n * m)))


def closest_pairs(generated: Tensor, train: Tensor) -> list[tuple[float, int, int]]:
    """Distance, generated image and training image of the closest pairs, closest first; from features."""
    distances, places = nearest(generated.double(), train.double())
    order = distances.argsort()[:_PAIRS].tolist()
    return [(float(distances[k]), k, int(places[k])) for k in order]


def picture_of_pairs(pairs: list[tuple[float, int, int]], images: Tensor, data: ImageData) -> Figure:
    """Pairs side by side, generated left and training image right, five pairs a row, each above its distance."""
    wanted = {place for _, _, place in pairs}
    found: dict[int, Tensor] = {}
    for batch in data.in_order("train", 128):
        for place, image in zip(batch.positions.tolist(), batch.clean, strict=True):
            if place in wanted:
                found[place] = image.add(1).div(2)
    between = torch.full_like(images[0, :, :, :1], 0.5)
    cells = to_pil(torch.stack([torch.cat([images[k], between, found[place]], dim=2) for _, k, place in pairs]))
    rows = -(-len(pairs) // _PAIRS_A_ROW)
    figure = Figure(figsize=(2 * _PAIRS_A_ROW, 0.6 + 1.2 * rows), layout="constrained", facecolor="white")
    figure.suptitle("generated | nearest training image, and their distance in feature space", fontsize=11)
    places = figure.subplots(rows, _PAIRS_A_ROW, squeeze=False).flatten()
    for axes in places:
        axes.set_axis_off()
    for axes, cell, (distance, _, _) in zip(places, cells, pairs, strict=False):
        axes.imshow(np.asarray(cell.convert("RGBA")), interpolation="nearest")
        axes.text(0.5, -0.04, f"{distance:.3g}", transform=axes.transAxes, ha="center", va="top", fontsize=9)
    return figure
