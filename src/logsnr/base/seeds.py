"""Numbers that look random and never change: a seed for each use of each sample, and orders to go through a set in.

They come from SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) rather
than from NumPy's or PyTorch's generators, whose streams may change with versions. Seeds belong to samples, not to
batches: what sample n is given depends on the run's seed and on n alone.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def sample_seed(seed: int, n: int, stream: str) -> int:
    """A 63-bit number for one use (`stream`, such as "noise") of sample `n` in a run with this `seed`.

    Stable across machines and versions; different streams are independent. Fit for `torch.Generator.manual_seed`.
    """
    return int(sample_seeds(seed, np.array([n]), stream)[0])


def sample_seeds(seed: int, positions: NDArray[np.int64], stream: str) -> NDArray[np.int64]:
    """`sample_seed` of many samples at once; int64 in [0, 2^63), in the shape of `positions`."""
    name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
    start = int(mix(np.array([(seed + _GOLDEN) & _MASK], np.uint64))[0]) ^ name
    states = np.uint64(start) + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    return (mix(mix(states)) >> np.uint64(1)).astype(np.int64)


@functools.lru_cache(maxsize=4)  # each batch of an epoch asks for its order, one on the border of two for both
def permutation(seed: int, count: int, stream: str) -> NDArray[np.int64]:
    """The numbers 0 to `count` - 1 in an order of its own for each seed and stream; int64, (count,), read-only."""
    order = np.argsort(sample_seeds(seed, np.arange(count), stream), kind="stable")
    order.flags.writeable = False
    return order


def mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function: 64 bits to 64 bits, one to one."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
