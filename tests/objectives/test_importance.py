"""Timesteps in proportion to the root of their loss's second moment, evenly spread, and unbiased."""

from __future__ import annotations

import numpy as np
import torch

from logsnr.objectives.importance import ImportanceSampler


def filled(scale: np.ndarray, draws: int = 10) -> ImportanceSampler:
    """A history of `draws` losses of each timestep, of root second moment `scale`."""
    sampler = ImportanceSampler(len(scale))
    signs = np.random.default_rng(0).uniform(0.5, 1.5, (draws, len(scale)))
    signs /= np.sqrt((signs[-10:] ** 2).mean(0))
    for row in signs:
        sampler.record(list(range(len(scale))), (row * scale).tolist())
    return sampler


def test_probabilities_are_the_papers() -> None:
    scale = np.array([8.0, 4, 2, 1, 1, 0])
    p = filled(scale).probabilities()
    np.testing.assert_allclose(p, 0.999 * scale / scale.sum() + 0.001 / 6, rtol=1e-6)
    assert abs(p.sum() - 1) < 1e-12


def test_only_the_last_ten_losses_count() -> None:
    scale = np.array([3.0, 1, 2])
    sampler = filled(scale * 100)
    after = filled(scale)
    for row in range(10):
        sampler.record([0, 1, 2], after.losses[:, row].tolist())
    np.testing.assert_allclose(sampler.probabilities(), after.probabilities(), rtol=1e-12)


def test_it_is_uniform_until_all_have_been_seen_ten_times() -> None:
    sampler = filled(np.array([5.0, 1.0]), draws=9)
    np.testing.assert_array_equal(sampler.probabilities(), [0.5, 0.5])
    sampler.record([0], [5.0])
    np.testing.assert_array_equal(sampler.probabilities(), [0.5, 0.5])
    sampler.record([1], [1.0])
    assert sampler.probabilities()[0] > 0.8


def test_draws_are_unbiased_and_less_noisy() -> None:
    """The mean of L_t / (T p_t) is that of L_t, with a spread a fraction of the uniform draw's."""
    generator = np.random.default_rng(1)
    scale = 1 / (1 + np.arange(50.0)) ** 1.5
    sampler, plain = filled(scale), ImportanceSampler(50)
    spread = []
    for which in (sampler, plain):
        t, weights = which.draw(generator.random(200_000))
        values = weights * scale[t]
        assert abs(values.mean() - scale.mean()) < 4 * values.std() / 200_000**0.5
        spread.append(values.std())
        frequency = np.bincount(t, minlength=50) / 200_000
        np.testing.assert_allclose(frequency, which.probabilities(), atol=0.005)
    assert spread[0] < 0.3 * spread[1]


def test_even_fractions_give_even_draws() -> None:
    sampler = filled(np.array([4.0, 2, 1, 1]))
    t, _ = sampler.draw((np.arange(800) + 0.5) / 800)
    assert (np.diff(t) >= 0).all()
    assert abs(np.bincount(t) - 800 * sampler.probabilities()).max() <= 1
    assert sampler.draw(np.array([0.0, 1 - 2**-53]))[0].tolist() == [0, 3]


def test_the_state_is_all_of_it() -> None:
    sampler, other = filled(np.array([3.0, 1, 2]), draws=13), ImportanceSampler(3)
    other.restore({name: value.clone() for name, value in sampler.state().items()})
    for s in (sampler, other):
        s.record([2, 0, 2], [0.5, 7.0, 1.0])
    assert torch.equal(sampler.losses, other.losses)
    np.testing.assert_array_equal(sampler.probabilities(), other.probabilities())
