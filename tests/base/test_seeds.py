"""logsnr.base.seeds: numbers that must never change."""

from __future__ import annotations

import numpy as np

from logsnr.base.seeds import mix, sample_seed, sample_seeds


def test_sample_seeds() -> None:
    seeds = sample_seeds(0, np.arange(20000), "noise")
    assert seeds.dtype == np.int64
    assert seeds.min() >= 0
    assert len(np.unique(seeds)) == 20000
    assert sample_seed(0, 7, "noise") == seeds[7]
    assert len({sample_seed(s, n, name) for s in (0, 1, -1, 2**64 + 5) for n in (0, 10**12) for name in "ab"}) == 16
    for bit in range(63):
        assert 0.48 < (seeds >> bit & 1).mean() < 0.52
    # Pinned: a run must be resumable after an upgrade.
    assert [sample_seed(0, 0, "noise"), sample_seed(1, 5, "flip")] == [1179008328538037485, 8130784013342907539]


def test_the_mixer_is_that_of_splitmix64() -> None:
    """First outputs of the reference implementation (Vigna, splitmix64.c) for the state 1234567."""
    states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert mix(states).tolist() == wanted
