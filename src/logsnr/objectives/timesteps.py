"""Which timesteps are trained on: an even cover of the chain.

Timesteps are not drawn independently: sample n takes t_n = floor(T frac(u + n / golden ratio)), u from the seed. Any
stretch of consecutive samples, however they fall into batches and processes, covers all noise levels evenly, which
lowers the variance of the gradient as stratified sampling does (Kingma et al., 2107.00630, appendix I.1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from logsnr.base.seeds import sample_seed

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
    """frac(u + n / golden ratio) of each sample n, in [0, 1)."""
    return (_fractions(seed, positions) >> np.uint64(11)).astype(np.float64) / 2**53
