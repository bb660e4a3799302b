"""logsnr.repair.exact_gaussian: what it says is what matrices say."""

from __future__ import annotations

import pytest
import torch

from logsnr.repair.exact_gaussian import STD, draw_prior, exact_network, exact_posterior, spectrum
from logsnr.repair.operators import make_operator
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.settings.damage import read_damage

SHAPE = (1, 4, 6)
SIZE = 24


def covariance() -> torch.Tensor:
    """Of the pixels of a picture, (24, 24)."""
    rows = torch.eye(SIZE, dtype=torch.float64).view(SIZE, *SHAPE)
    return torch.fft.ifft2(spectrum(4, 6) * torch.fft.fft2(rows)).real.view(SIZE, SIZE)


def test_pixels_have_the_stated_standard_deviation() -> None:
    torch.testing.assert_close(covariance().diagonal(), torch.full((SIZE,), STD**2, dtype=torch.float64))
    drawn = torch.cat([draw_prior(SHAPE, torch.Generator().manual_seed(k)) for k in range(400)])
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(drawn.var(0).mean()) == pytest.approx(STD**2, rel=0.1)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction", "x0_minus_noise"])
def test_the_network_is_the_posterior_mean(target: str) -> None:
    scheduler = CosineBetaScheduler(prediction_type=target)
    scheduler.alphas_cumprod = torch.tensor([0.9, 0.3], dtype=torch.float64)
    network = exact_network(SHAPE, scheduler)
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    a, s = 0.3**0.5, 0.7**0.5
    prior = 4 * covariance()
    gain = a * prior @ torch.linalg.inv(a**2 * prior + s**2 * torch.eye(SIZE, dtype=torch.float64))
    x_0 = (x.view(3, SIZE) @ gain.T).view_as(x)
    eps = (x - a * x_0) / s
    expected = {"epsilon": eps, "sample": x_0, "v_prediction": a * eps - s * x_0, "x0_minus_noise": x_0 - eps}
    torch.testing.assert_close(network(x, torch.tensor([1, 1, 1])).sample, expected[target])


@pytest.mark.parametrize("text", ["missing 0.5", "blur 1", "down 2"])
def test_mean_and_draws_are_those_of_matrices(text: str) -> None:
    operator = make_operator(read_damage(f"{text} + noise 0.1"), SHAPE)
    generator = torch.Generator().manual_seed(0)
    y = operator.measure(draw_prior(SHAPE, generator), generator)
    mean, draws = exact_posterior(operator, y, 0.1, 1000, generator)

    a = operator.apply(torch.eye(SIZE, dtype=torch.float64).view(SIZE, *SHAPE)).flatten(1).T
    c, half = covariance(), torch.full((SIZE,), 0.5, dtype=torch.float64)
    gain = c @ a.T @ torch.linalg.inv(a @ c @ a.T + 0.01 * torch.eye(len(a), dtype=torch.float64))
    torch.testing.assert_close(mean.flatten(), half + gain @ (y.flatten() - a @ half))
    spread = (draws - mean).flatten(1).double()
    torch.testing.assert_close(spread.T @ spread / 1000, c - gain @ a @ c, atol=0.004, rtol=0.15)
