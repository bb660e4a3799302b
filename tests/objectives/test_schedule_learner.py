"""A monotone curve that finds the least variance of the loss, known here in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from logsnr.objectives.schedule_learner import SEGMENTS, LearnedCurve, ScheduleLearner, learned_scheduler
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.objectives.weightings import integral_weights
from logsnr.schedulers.scheduling_beta import LearnedBetaScheduler
from logsnr.settings.objective import ElboWeighting

T, PIXELS, VARIANCE = 200, 16, 0.25**2


def scheduler(total: int = T) -> LearnedBetaScheduler:
    return LearnedBetaScheduler(total, log_snr_start=9.0, log_snr_end=-9.0, prediction_type="v_prediction")


def alone(values: torch.Tensor) -> torch.Tensor:
    """What a single process gathers."""
    return values


def step(learner: ScheduleLearner, k: int, steps: int, batch: int = 128) -> torch.Tensor:
    """The elbo-weighted loss of Gaussian pixels with the exact denoiser; the curve learns from it."""
    n = np.arange(k * batch, (k + 1) * batch)
    timesteps = torch.from_numpy(draw_timesteps(0, n, T))
    log_snr, slope = learner.log_snr(timesteps)
    generator = torch.Generator().manual_seed(k)
    x_0 = VARIANCE**0.5 * torch.randn(batch, PIXELS, generator=generator)
    a, s = (c.sqrt()[:, None] for c in (torch.sigmoid(log_snr), torch.sigmoid(-log_snr)))
    x_t = a * x_0 + s * torch.randn(batch, PIXELS, generator=generator)
    predicted = a * VARIANCE / (a**2 * VARIANCE + s**2) * x_t
    weights = integral_weights(log_snr, slope * log_snr.exp(), ElboWeighting())
    losses = weights * (x_0 - predicted).square().mean(1)
    learner.keep(timesteps, log_snr, slope, losses)
    losses.mean().backward()
    learner.learn(alone, k / steps)
    return losses.detach()


def second_moment(curve: LearnedCurve) -> float:
    """E[l^2] over the least one there is; h = snr v / 2 chi^2 / PIXELS with v = 1 / (1 / VARIANCE + snr)."""
    with torch.no_grad():
        log_snr, slope = curve(torch.linspace(0, T - 1, 5001))
    line = torch.linspace(-9, 9, 5001)
    root, least = (0.5 * x.exp() / (1 / VARIANCE + x.exp()) for x in (log_snr, line))
    return float((slope * root).square().mean() / torch.trapezoid(least, line).square())


@pytest.mark.parametrize("teacher", ["variance", "losses"])
def test_the_curve_finds_the_least_variance(teacher: str) -> None:
    learner = ScheduleLearner(scheduler(), teacher, torch.device("cpu"))
    assert second_moment(learner.curve) > 2.4
    losses = [step(learner, k, 800) for k in range(500)]
    assert second_moment(learner.curve) < 1.25  # as near as 20 segments get, a tenth of each being fixed
    straight = ScheduleLearner(scheduler(), teacher, torch.device("cpu"))
    first = torch.cat([step(straight, k, 1) for k in range(1, 100)])
    last = torch.cat(losses[-100:])
    assert last.std() < 0.6 * first.std()
    spread = (first.var() / len(first) + last.var() / len(last)).sqrt()
    assert abs(first.mean() - last.mean()) < 4 * spread  # the expectation is the same
    shares = learner.curve.shares().detach()
    assert shares[0] < 0.5 / SEGMENTS < 3 / SEGMENTS < shares[-1]  # in noise there is nothing to learn


def test_the_curve_is_monotone_with_fixed_ends_whatever_is_learned() -> None:
    curve = LearnedCurve(T, 9.0, -9.0)
    with torch.no_grad():
        curve.weights.copy_(30 * torch.randn(SEGMENTS, generator=torch.Generator().manual_seed(0)))
    log_snr, slope = curve(torch.arange(T))
    assert log_snr[[0, -1]].tolist() == pytest.approx([9, -9], abs=1e-4)
    assert bool((log_snr.diff() < -0.09 * 18 / T).all())
    between = -log_snr.diff() * (T - 1)
    inside = (torch.arange(T - 1) * SEGMENTS // (T - 1)) == (torch.arange(1, T) * SEGMENTS // (T - 1))
    torch.testing.assert_close(between[inside], slope[:-1][inside], rtol=1e-3, atol=1e-3)
    even = torch.full((SEGMENTS,), 1 / SEGMENTS)
    curve.place(even)
    torch.testing.assert_close(curve.shares(), even)


def test_the_gradient_is_that_of_the_second_moment() -> None:
    """Finite differences of E[l^2] / E[l]^2 on one batch, by the curve's parameters."""
    torch.manual_seed(0)
    timesteps = torch.arange(0, T, 3)
    learner = ScheduleLearner(scheduler(), "variance", torch.device("cpu"))

    def losses(log_snr: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        return slope * torch.sigmoid(log_snr - 2) * (1 + 0.3 * torch.sin(log_snr + timesteps))

    log_snr, slope = learner.log_snr(timesteps)
    value = losses(log_snr, slope)
    learner.keep(timesteps, log_snr, slope, value)
    value.mean().backward()
    learner.learn(alone, 0.0)
    found = learner.curve.weights.grad
    assert found is not None
    mean = value.detach().double().mean()

    curve, start = LearnedCurve(T, 9.0, -9.0).double(), torch.zeros(SEGMENTS, dtype=torch.float64)
    for k in (0, 7, 19):
        moments = []
        for sign in (-1, 1):
            with torch.no_grad():
                curve.weights.copy_(start)
                curve.weights[k] += sign * 1e-5
                moments.append(losses(*curve(timesteps)).square().mean() / mean**2)
        assert float(found[k]) == pytest.approx(float(moments[1] - moments[0]) / 2e-5, rel=2e-3)


def test_what_is_exported_is_the_curve() -> None:
    learner = ScheduleLearner(scheduler(), "losses", torch.device("cpu"))
    for k in range(20):
        step(learner, k, 100)
    made = learned_scheduler(scheduler(), learner.state())
    assert isinstance(made, LearnedBetaScheduler)
    with torch.no_grad():
        wanted, _ = learner.curve(torch.arange(T))
    torch.testing.assert_close(made.log_snr(torch.arange(T)), wanted, rtol=1e-3, atol=2e-3)
    assert (made.betas - scheduler().betas).abs().max() > 1e-3
    again = learned_scheduler(made, learner.state())  # the ends stay, to round-off
    torch.testing.assert_close(again.betas, made.betas, rtol=1e-3, atol=1e-9)
    stock = made.from_config(made.config)  # no warning: other betas than the formula's are no surprise
    assert torch.equal(stock.betas, made.betas)


@pytest.mark.parametrize("teacher", ["variance", "losses"])
def test_the_state_is_all_of_it_and_the_second_half_stands_still(teacher: str) -> None:
    learner, other = (ScheduleLearner(scheduler(), teacher, torch.device("cpu")) for _ in range(2))
    for k in range(10):
        step(learner, k, 40)
    other.restore({name: value.clone() for name, value in learner.state().items()})
    for k in range(10, 25):
        if k == 20:
            half = learner.curve.weights.detach().clone()
        for one in (learner, other):
            step(one, k, 40)
    for a, b in zip(learner.state().values(), other.state().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(learner.curve.weights, half)
