"""Timesteps drawn where the loss is large and uncertain: p_t in proportion to sqrt(E[L_t^2]).

That choice makes the estimate of sum_t L_t by L_t / p_t least noisy (Nichol and Dhariwal, 2102.09672, eq. 18). The
second moments are those of each timestep's last ten losses. Until every timestep has ten the draw is uniform, and a
thousandth of it stays so, so that none is forgotten. The history is part of a run's state: it decides what is drawn
next.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logsnr.objectives.objective import Gather

_HISTORY, _UNIFORM = 10, 1e-3


class ImportanceSampler:
    """The last losses of each of `total` timesteps, and the distribution made of them."""

    def __init__(self, total: int) -> None:
        self.losses = torch.zeros(total, _HISTORY)
        self.seen = torch.zeros(total, dtype=torch.int64)
        self._kept: list[Tensor] = []  # timesteps and losses of each batch since the last `learn`

    def probabilities(self) -> NDArray[np.float64]:
        """p_t, (T,)."""
        total = len(self.seen)
        if bool((self.seen < _HISTORY).any()):
            return np.full(total, 1 / total)
        root = self.losses.double().square().mean(1).sqrt()
        return ((1 - _UNIFORM) * root / root.sum() + _UNIFORM / total).numpy()

    def draw(self, fractions: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The timesteps at which the distribution's cumulative sum passes `fractions` in [0, 1), and their 1 / (T p_t).

        Evenly spread fractions give timesteps that are spread as evenly as p allows.
        """
        p = self.probabilities()
        timesteps = np.minimum(np.searchsorted(np.cumsum(p), fractions, side="right"), len(p) - 1)
        return timesteps, 1 / (len(p) * p[timesteps])

    def keep(self, timesteps: Tensor, losses: Tensor) -> None:
        """Remember a batch, its losses without their 1 / (T p_t), until `learn`."""
        self._kept.append(torch.stack([timesteps.float(), losses.detach()]))

    def learn(self, gather: Gather) -> None:
        """Record the batches since the last call, of all processes, in the order of the samples."""
        gathered = gather(torch.stack(self._kept)[None])  # (process, batch, 2, sample)
        timesteps, losses = gathered.permute(2, 1, 0, 3).flatten(1).tolist()
        self.record([int(t) for t in timesteps], losses)
        self._kept = []

    def record(self, timesteps: list[int], losses: list[float]) -> None:
        """Put losses into the history, in the order given."""
        for t, loss in zip(timesteps, losses, strict=True):
            self.losses[t, self.seen[t] % _HISTORY] = loss
            self.seen[t] += 1

    def state(self) -> dict[str, Tensor]:
        return {"importance.losses": self.losses, "importance.seen": self.seen}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.losses.copy_(state["importance.losses"])
        self.seen.copy_(state["importance.seen"])
