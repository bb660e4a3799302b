"""The error of a model on one part of its data, by log-SNR: where it could be better, and where it knows data by heart.

The same positions have the same noise and timesteps in every measurement, so that what changes is the model.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from logsnr.data.seeded import Examples, SeededData, Split
from logsnr.models.denoiser import Denoises
from logsnr.objectives.objective import Objective
from logsnr.objectives.timesteps import draw_timesteps

LOG_SNR_EDGES = tuple(float(edge) for edge in range(-10, 11, 2))
"""Bins of log-SNR; the outer two take everything beyond."""

_BATCH = 64


@torch.no_grad()
def errors_by_timestep(
    objective: Objective, denoiser: Denoises, data: SeededData[Examples], split: Split, count: int
) -> tuple[Tensor, Tensor]:
    """Unweighted errors of `count` noisy samples at most, and their timesteps; few samples are taken again, with other
    noise. With a progress bar."""
    available = len(data) if split == "train" else data.num_held_out
    repeats = max(1, count // available)
    total = min(repeats * available, count)
    errors, timesteps, seen = [], [], 0
    with tqdm(total=total, desc=f"Errors, {split.replace('_', '-')}", delay=2, leave=False) as bar:
        for batch in data.in_order(split, _BATCH, min(available, count)):
            if seen >= count:
                break
            size = len(batch.clean)
            for start in range(0, repeats * size, _BATCH):
                places = np.arange(start, min(start + _BATCH, repeats * size))
                positions = seen + places
                t = torch.from_numpy(draw_timesteps(0, positions, len(objective.schedule))).to(denoiser.device)
                some = batch.take(torch.from_numpy(places % size), torch.from_numpy(positions))
                errors.append(objective.errors(denoiser, some, t, "held out"))
                timesteps.append(t)
                bar.update(len(places))
            seen += repeats * size
    return torch.cat(errors), torch.cat(timesteps)


def binned_means(log_snr: Tensor, values: Tensor) -> list[float]:
    """The mean of the values in each bin of LOG_SNR_EDGES; NaN in an empty one."""
    places = bins(log_snr)
    return [float(values[places == k].mean()) for k in range(len(LOG_SNR_EDGES) - 1)]


def bins(log_snr: Tensor) -> Tensor:
    """The bin of LOG_SNR_EDGES that each is in, from 0."""
    inside = log_snr.clamp(LOG_SNR_EDGES[0] + 1e-3, LOG_SNR_EDGES[-1] - 1e-3)
    return torch.bucketize(inside, torch.tensor(LOG_SNR_EDGES, dtype=inside.dtype, device=inside.device)) - 1
