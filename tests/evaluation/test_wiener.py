"""logsnr.evaluation.wiener: the posterior of Gaussian data in closed form, and what is done without a model."""

from __future__ import annotations

import pytest
import torch
from gaussian import Gaussian, gaussian
from torch import Tensor

from logsnr.evaluation.coverage import pixel_ranks, projection_ranks
from logsnr.evaluation.wiener import FittedGaussian, conjugate_gradients, fit_gaussian, plain
from logsnr.pipelines.restoration_operators import Blur, Clip, Downscale, Identity, Mask, Operator, gaussian_kernel

DOUBLE = torch.float64
SHAPE = (1, 4, 4)


def known(data: Gaussian) -> FittedGaussian:
    """The Gaussian itself, as if it had been fitted."""
    return FittedGaussian(SHAPE, data.mean, data.basis, data.variances, 1e-12, 0)


def operators(noise_std: float = 0.05) -> list[Operator]:
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3)) > 0.5
    return [Mask(mask, noise_std), Blur(SHAPE, gaussian_kernel(0.5), noise_std), Downscale(SHAPE, 2, noise_std)]


def dense(operator: Operator) -> Tensor:
    """The operator as a matrix, (measured values, values)."""
    return operator.apply(torch.eye(16, dtype=DOUBLE).view(16, *SHAPE)).flatten(1).T


def closed_form(data: Gaussian, operator: Operator, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x given y."""
    a, c = dense(operator), data.basis @ torch.diag(data.variances) @ data.basis.T
    gain = c @ a.T @ torch.linalg.inv(a @ c @ a.T + operator.noise_std**2 * torch.eye(len(a), dtype=DOUBLE))
    return data.mean + (y.flatten(1) - a @ data.mean) @ gain.T, c - gain @ a @ c


@pytest.mark.parametrize("which", [0, 1, 2])
def test_mean_and_covariance_are_those_of_the_posterior(which: int) -> None:
    data, operator = gaussian(16), operators()[which]
    y = operator.measure(data.sample(3, seed=1), 2)
    mean, covariance = closed_form(data, operator, y)
    assert torch.allclose(known(data).posterior_mean(operator, y).flatten(1), mean, atol=1e-6)
    draws = known(data).posterior_draws(operator, y[:1], range(4000)).flatten(1)
    error = covariance.diagonal().sqrt() / 4000**0.5
    assert ((draws.mean(0) - mean[0]).abs() < 4.5 * error).all()
    assert (draws.T.cov() - covariance).norm() < 0.1 * covariance.norm()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_exact_draws_cover_90_percent(which: int) -> None:
    """Originals of the Gaussian itself, 19 draws each: 90 % within the error, of pixels and of projections."""
    data, operator = gaussian(16), operators()[which]
    originals = data.sample(150, seed=4)
    y = operator.measure(originals, 1000)
    draws = torch.stack(
        [known(data).posterior_draws(operator, y[k : k + 1], range(100 * k, 100 * k + 19)) for k in range(150)]
    )
    observed = operator.observed()
    hidden = (torch.ones(SHAPE, dtype=torch.bool) if observed is None else ~observed).expand(150, *SHAPE)
    for ranks in (pixel_ranks(originals, draws, hidden, bits=None), projection_ranks(originals, draws, hidden)):
        for nominal, found, error in zip(ranks.nominal, ranks.coverage, ranks.errors, strict=True):
            assert abs(found - nominal) < 4 * error
        assert ranks.errors[0] < 0.02


def test_a_fit_finds_the_covariance() -> None:
    data = gaussian(16)
    images = data.sample(20_000, seed=5)
    fitted = fit_gaussian(images)
    truth = data.basis @ torch.diag(data.variances) @ data.basis.T
    identity = torch.eye(16, dtype=DOUBLE).view(16, *SHAPE)
    assert (fitted.multiplied(identity).flatten(1) - truth).norm() < 0.05 * truth.norm()
    assert torch.allclose(fitted.mean, images.mean(0).flatten())
    root = fitted.multiplied(fitted.multiplied(identity, torch.sqrt), torch.sqrt)
    assert torch.allclose(root, fitted.multiplied(identity), atol=1e-9)


def test_a_fit_to_few_images_is_nearer_than_their_covariance() -> None:
    """Ledoit and Wolf's promise, with fewer images than values; and no direction is without variance."""
    data = gaussian(192)
    truth = data.basis @ torch.diag(data.variances) @ data.basis.T
    images = data.sample(100, seed=6)
    fitted = fit_gaussian(images)
    assert fitted.basis.shape[1] < 100
    found = fitted.multiplied(torch.eye(192, dtype=DOUBLE).view(192, 3, 8, 8)).flatten(1)
    assert (found - truth).norm() < 0.5 * (images.flatten(1).T.cov() - truth).norm()
    assert float(torch.linalg.eigvalsh(found)[0]) > 0.01
    assert float(found.trace()) == pytest.approx(float(images.flatten(1).var(0, unbiased=False).sum()), rel=1e-6)
    constant = fit_gaussian(torch.full((5, 1, 4, 4), 0.5))
    assert torch.allclose(constant.mean, torch.full((16,), 0.5, dtype=DOUBLE))
    assert constant.rest > 0


def test_conjugate_gradients_solve_each_row() -> None:
    matrix = torch.diag(torch.tensor([1.0, 2.0, 30.0], dtype=DOUBLE))
    b = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [3.0, 0.0, 60.0]], dtype=DOUBLE)
    expected = torch.tensor([[1, 0.5, 1 / 30], [0, 0, 0], [3, 0, 2]], dtype=DOUBLE)
    assert torch.allclose(conjugate_gradients(lambda u: u @ matrix, b), expected, atol=1e-6)


def test_what_is_done_without_a_model() -> None:
    mean = torch.full(SHAPE, 0.25)
    images = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    mask, blur, down = operators(0.0)
    words, filled = plain(mask, mask.apply(images), mean)
    seen = mask.observed()
    assert seen is not None
    assert words == "holes filled with the mean"
    assert torch.equal(filled, torch.where(seen, images, 0.25))
    words, enlarged = plain(down, down.apply(torch.full((2, *SHAPE), 0.5)), mean)
    assert words == "bicubic interpolation"
    assert torch.allclose(enlarged, torch.full((2, *SHAPE), 0.5))
    for operator in (blur, Clip(SHAPE, 0.2, 0.8), Identity(SHAPE, 0.05)):
        words, left = plain(operator, operator.apply(images), mean)
        assert words == "left as it is"
        assert torch.equal(left, operator.apply(images))
