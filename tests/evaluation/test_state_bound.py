"""logsnr.evaluation.state_bound: on a chain whose entropy is known, with the perfect denoiser."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from markov_chain import MarkovChain
from torch import Tensor

from logsnr.conditions.conditioner import Conditioner, Unconditioned
from logsnr.data.seeded import Batch
from logsnr.evaluation.state_bound import (
    StateBound,
    leave_one_out,
    mask_weights,
    state_bound,
    uniform_rate,
)
from logsnr.models.denoiser import Prediction
from logsnr.objectives.held_out import LOG_SNR_EDGES, bins
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.schedulers.scheduling_transition import TransitionScheduler

CHAIN = MarkovChain.of_the_facts()
KERNELS: dict[str, dict[str, Any]] = {
    "absorbing": {"num_states": 4},
    "uniform": {"num_states": 3},
    "mask_and_replace": {"num_states": 4, "replace_share": 0.3},
}


def made(kernel: str, steps: int, **options: Any) -> TransitionScheduler:
    return TransitionScheduler(kernel, num_train_timesteps=steps, **KERNELS[kernel], **options)  # type: ignore[arg-type]


class Perfect:
    """p(x_0 | x_t), exactly; of masks it is the same at every timestep."""

    device = torch.device("cpu")

    def __init__(self, schedule: TransitionScheduler, chain: MarkovChain = CHAIN) -> None:
        self.schedule: Any = schedule
        self.conditioner: Conditioner = Unconditioned()
        self.chain = chain

    def __call__(self, x_t: Tensor, t: Tensor | int, condition: Any) -> Prediction:
        at = torch.as_tensor(t).expand(len(x_t)) * (self.schedule.kernel != "absorbing")
        return Prediction(self.chain.denoise(x_t, self.schedule.cumulative_matrix(at)), None)


def in_batches(sequences: Tensor, size: int) -> Iterator[Batch]:
    for rows in torch.arange(len(sequences)).split(size):
        yield Batch(sequences[rows], {}, rows)


def drawn(count: int) -> Tensor:
    return CHAIN.sample(count, torch.Generator().manual_seed(3))


def found(schedule: TransitionScheduler, count: int, draws: int, size: int = 512) -> StateBound:
    return state_bound(Perfect(schedule), in_batches(drawn(count), size), num_sequences=count, draws=draws)


def by_bin(schedule: TransitionScheduler) -> Tensor:
    """The bound in bits, by enumeration of all x_0 and x_t, in each bin of log-SNR."""
    spent = torch.zeros(len(LOG_SNR_EDGES) - 1, dtype=torch.float64)
    for t in range(len(schedule)):
        cumulative, at = schedule.cumulative_matrix(t), torch.tensor([t])
        clean, noisy, joint = CHAIN.noised(cumulative)
        terms = schedule.bound(CHAIN.denoise(noisy, cumulative), clean, noisy, at)
        spent[bins(schedule.log_snr(at))] += joint @ terms.sum(1) / math.log(2)
    return spent


def mean_cross_entropies() -> Tensor:
    """E c_n, bits, for n = 1, 2, 3 masks: over all sequences and all ways to mask."""
    perfect, x_0, means = Perfect(made("absorbing", 2)), CHAIN.sequences, []
    for n in range(1, CHAIN.length + 1):
        each = []
        for places in itertools.combinations(range(CHAIN.length), n):
            x_t = x_0.clone()
            x_t[:, places] = 3
            log_p = perfect(x_t, 0, {}).output
            each.append(log_p.gather(2, x_0.unsqueeze(2))[:, places, 0].mean(1))
        means.append(-CHAIN.log_probability(x_0).exp() @ torch.stack(each).mean(0) / math.log(2))
    return torch.stack(means)


@pytest.mark.parametrize(("steps", "excess"), [(2, 0.244), (8, 0.059), (32, 0.0147), (128, 0.0037), (512, 0.0009)])
def test_the_absorbing_bound_by_numbers_of_masks(steps: int, excess: float) -> None:
    schedule = made("absorbing", steps)
    spent = mean_cross_entropies() @ mask_weights(schedule, CHAIN.length)
    assert torch.allclose(spent, by_bin(schedule), atol=1e-10)
    assert float(spent.sum()) - CHAIN.entropy() == pytest.approx(excess, abs=5e-4 if steps < 32 else 5e-5)


def test_in_continuous_time_it_is_the_entropy_whatever_the_schedule() -> None:
    assert float(mean_cross_entropies().sum()) == pytest.approx(CHAIN.entropy(), abs=1e-12)
    for betas in (None, CosineBetaScheduler(4000).betas.tolist()):
        weights = mask_weights(made("absorbing", 4000, trained_betas=betas), 16)
        assert torch.allclose(weights.sum(1), torch.ones(16, dtype=torch.float64), atol=0.02)


@pytest.mark.parametrize(
    ("kernel", "steps", "draws"), [("absorbing", 8, 6), ("uniform", 32, 16), ("mask_and_replace", 8, 16)]
)
def test_its_draws_are_right_in_expectation(kernel: str, steps: int, draws: int) -> None:
    """Within three standard errors, by bin too."""
    schedule, count = made(kernel, steps), 3000
    result, spent = found(schedule, count, draws), by_bin(made(kernel, steps))
    wanted = {"bound": (result.bound, spent.sum())}
    wanted |= {f"bin {k}": (result.by_log_snr[:, k], value) for k, value in enumerate(spent) if value > 0}
    for name, (nats, value) in wanted.items():
        bits = nats / math.log(2)
        error = float(bits.std()) / math.sqrt(count)
        assert float(bits.mean()) == pytest.approx(float(value), abs=3 * error), name
    assert float(result.bound.std()) / math.sqrt(count) < 0.05
    assert torch.allclose(result.by_log_snr.sum(1), result.bound)


def test_of_uniform_noise_too_by_quadrature() -> None:
    """Every x_0 and x_t, at 64 levels of noise, m = v^2 since the integrand grows as log(1 / m)."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    total = 0.0
    for v, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        left = 1 - v * v
        cumulative = left * torch.eye(3, dtype=torch.float64) + (1 - left) / 3
        x_0, x_t, joint = CHAIN.noised(cumulative)
        of_all = torch.full((len(x_0), 1), left, dtype=torch.float64)
        others = leave_one_out(CHAIN.denoise(x_t, cumulative).exp(), x_t, of_all)
        total += weight * 2 * v * float(joint @ uniform_rate(others, x_0, x_t, of_all).sum(1))
    assert total / math.log(2) == pytest.approx(CHAIN.entropy(), abs=1e-6)


@pytest.mark.parametrize(("kernel", "betas"), [("absorbing", "line"), ("uniform", "line"), ("uniform", "cosine")])
def test_the_limit_is_exact(kernel: str, betas: str) -> None:
    """Of each sequence it is -log p(x_0), whatever the schedule, but for the noise."""
    count, curve = 4000, None if betas == "line" else CosineBetaScheduler(1000).betas.tolist()
    result = found(made(kernel, 1000, trained_betas=curve), count, 8)
    assert result.limit is not None
    more = (result.limit + CHAIN.log_probability(drawn(count))) / math.log(2)
    error = float(more.std()) / math.sqrt(count)
    assert error < 0.05
    assert float(more.mean()) == pytest.approx(0, abs=3 * error)


def test_of_masks_the_limit_is_the_same_whatever_the_schedule() -> None:
    """Of the same network and draws, exactly; the bounds of the chains aren't."""
    cosine = CosineBetaScheduler(32).betas.tolist()
    one, other = found(made("absorbing", 32), 50, 3), found(made("absorbing", 32, trained_betas=cosine), 50, 3)
    assert one.limit is not None
    torch.testing.assert_close(one.limit, other.limit)
    assert not torch.allclose(one.bound, other.bound)


def test_masks_give_both_bounds_at_once() -> None:
    """Of the same draws: their difference is known much better than either."""
    result = found(made("absorbing", 32), 2000, 6)
    assert result.limit is not None
    more = (result.bound - result.limit) / math.log(2)
    error = float(more.std()) / math.sqrt(len(more))
    assert error < 0.001
    assert float(more.mean()) == pytest.approx(0.0147, abs=3 * error + 5e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_sequence_has_its_figures_in_any_batch(kernel: str) -> None:
    schedule = made(kernel, 8)
    one, other = found(schedule, 7, 3, size=7), found(schedule, 7, 3, size=2)
    assert torch.allclose(one.by_log_snr, other.by_log_snr)
    assert (one.limit is None) == (other.limit is None) == (kernel == "mask_and_replace")
    if one.limit is not None and other.limit is not None:
        assert torch.allclose(one.limit, other.limit)
