"""Operators against their own matrices: what `apply` does to each unit picture says all of a linear map."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from logsnr.pipelines.restoration_operators import (
    Blur,
    Clip,
    Composition,
    Downscale,
    Fourier,
    Gray,
    Identity,
    Jpeg,
    Mask,
    MixChannels,
    Operator,
    PhysicsOperator,
    Radon,
    RandomProjections,
    Stack,
    gaussian_kernel,
    motion_kernel,
)

SHAPE = (3, 8, 8)
DOUBLE = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


class Flip(Operator):
    """One of a user's own: three members."""

    def __init__(self, shape: tuple[int, ...], noise_std: float = 0.0) -> None:
        super().__init__(shape, shape, noise_std)

    def apply(self, sample: Tensor) -> Tensor:
        return sample.flip(-1)


class Physics:
    """What is asked of a `Physics` of deepinv."""

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        return x[..., ::2]

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        return torch.stack((y, torch.zeros_like(y)), -1).flatten(-2)

    A_dagger = A_adjoint

    def prox_l2(self, z: Tensor, y: Tensor, gamma: float) -> Tensor:
        seen = torch.stack((torch.ones_like(y), torch.zeros_like(y)), -1).flatten(-2)
        return (gamma * self.A_adjoint(y) + z) / (1 + gamma * seen)


MASK = random(*SHAPE) > 0.5
FREQUENCIES = random(8, 8, seed=1) > 0.6
LINEAR: dict[str, Callable[[], Operator]] = {
    "identity": lambda: Identity(SHAPE, 0.05),
    "mask": lambda: Mask(MASK, 0.05),
    "means": lambda: Downscale(SHAPE, 4, 0.05),
    "bicubic": lambda: Downscale(SHAPE, 2, 0.05, "bicubic"),
    "gaussian": lambda: Blur(SHAPE, gaussian_kernel(1.5), 0.05),
    "gaussian on a torus": lambda: Blur(SHAPE, gaussian_kernel(1.5), 0.05, "circular"),
    "motion": lambda: Blur(SHAPE, motion_kernel(5, 30), 0.05),
    "motion on a torus": lambda: Blur(SHAPE, motion_kernel(5, 30), 0.05, "circular"),
    "gray": lambda: Gray(SHAPE, 0.05),
    "channels": lambda: MixChannels(SHAPE, torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]), 0.05),
    "projections": lambda: RandomProjections(SHAPE, 50, 0.05),
    "fourier": lambda: Fourier(SHAPE, FREQUENCIES, 0.05),
    "coils": lambda: Fourier(SHAPE, FREQUENCIES, 0.05, random(2, 8, 8, seed=2) + 1j * random(2, 8, 8, seed=3)),
    "radon": lambda: Radon(SHAPE, torch.arange(0, 180, 40), 0.05),
    "flip": lambda: Flip(SHAPE, 0.05),
    "masked blur": lambda: Composition(Mask(MASK, 0.05), Blur(SHAPE, gaussian_kernel(1.0))),
    "two": lambda: Stack(Downscale(SHAPE, 4, 0.05), Gray(SHAPE, 0.05)),
    "deepinv": lambda: PhysicsOperator(Physics(), SHAPE, 0.05),
}
linear = pytest.mark.parametrize("name", LINEAR)


@linear
def test_linear_operators_agree_with_their_matrix(name: str) -> None:
    operator = LINEAR[name]()
    unit = torch.eye(192, dtype=DOUBLE).view(192, *SHAPE)
    matrix = operator.apply(unit).flatten(1).T
    assert operator.adjoint_error() < 1e-12
    sample, z = random(2, *SHAPE, seed=4), random(2, *SHAPE, seed=5)
    y = operator.measure(sample, 7)
    assert tuple(y.shape) == (2, *operator.measurement_shape)

    square = matrix.T @ matrix
    right = y.flatten(1) @ matrix + 0.1 * z.flatten(1)
    expected = torch.linalg.solve(square + 0.1 * torch.eye(192, dtype=DOUBLE), right.T).T
    torch.testing.assert_close(operator.solve(z, y, 0.1).flatten(1), expected, rtol=0, atol=1e-6)

    assert operator.norm() == pytest.approx(float(torch.linalg.eigvalsh(square)[-1]), rel=0.01)
    clean = operator.apply(sample)
    again = operator.apply(operator.pinv(clean))
    assert float((again - clean).norm() / clean.norm()) < 0.12  # but for small singular values
    if (known := operator.spectrum()) is not None:
        through = known.inverse(known.values * known.forward(sample))
        torch.testing.assert_close(through, operator.adjoint(clean), rtol=0, atol=1e-10)


@linear
def test_noise_has_the_stated_standard_deviation_and_the_seed_is_the_pictures(name: str) -> None:
    operator = LINEAR[name]()
    samples = random(40, *SHAPE)
    noise = operator.measure(samples, 3) - operator.apply(samples)
    assert float(noise[noise != 0].std()) == pytest.approx(0.05, rel=0.1)
    torch.testing.assert_close(operator.measure(samples[5:6], 8), operator.measure(samples, 3)[5:6])


def test_what_is_drawn_and_solved_is_of_each_picture_alone() -> None:
    operator = LINEAR["motion"]()
    z, y = random(3, *SHAPE), random(3, *SHAPE, seed=1)
    torch.testing.assert_close(operator.solve(z, y, 0.01)[1:2], operator.solve(z[1:2], y[1:2], 0.01), rtol=0, atol=0)


def test_log_likelihood_is_that_of_normal_noise() -> None:
    operator = LINEAR["gray"]()
    x, y = random(2, *SHAPE), random(2, 1, 8, 8)
    normal = torch.distributions.Normal(operator.apply(x), 0.05)
    found, exact = operator.log_likelihood(x, y), normal.log_prob(y).sum((1, 2, 3))
    assert float(found[0] - found[1]) == pytest.approx(float(exact[0] - exact[1]))


def test_pixels_that_are_shown() -> None:
    assert LINEAR["gray"]().observed() is None
    both = Composition(Mask(MASK, 0.05), Mask(MASK.flip(-1)))
    shown = both.observed()
    assert shown is not None
    assert torch.equal(shown, MASK & MASK.flip(-1))


def picture(height: int, width: int, channels: int) -> Image.Image:
    rough = (random(channels, 6, 7, seed=9).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    small = Image.fromarray(rough if channels == 3 else rough[..., 0])
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 75])
def test_jpeg_is_what_pillow_writes(channels: int, quality: int) -> None:
    """Sides that aren't multiples of the blocks."""
    image = picture(61, 75, channels)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    x, y = (torch.from_numpy(np.array(i, dtype=np.float64)) / 255 for i in (image, Image.open(file)))
    x, y = (t.view(61, 75, channels).permute(2, 0, 1)[None] for t in (x, y))
    operator = Jpeg((channels, 61, 75), quality)
    ours, theirs = float((operator.apply(x) - y).abs().mean()), float((x - y).abs().mean())
    assert ours < 0.3 * theirs + 0.002
    # from the truth to what was decoded, and back: chroma was told from how it was interpolated
    assert float((operator.apply(operator.solve(x, y, 0.0)) - y).abs().mean()) < 0.3 * theirs + 0.002


def test_jpeg_is_solved_as_noise_on_coefficients() -> None:
    """The cosine basis is orthonormal: each coefficient of gray is weighed by itself."""
    operator, rho = Jpeg((1, 8, 8), 20), 0.3
    z, y = random(1, 1, 8, 8), random(1, 1, 8, 8, seed=1)
    found = operator.solve(z, y, rho)
    basis = Jpeg((1, 8, 8), 20)._planes
    plane, before, seen = basis(found)[0], basis(z)[0], basis(y)[0]
    steps = operator._steps[0]
    pull = (seen - plane) / (steps**2 / 12 + 0.002**2)
    torch.testing.assert_close(pull, rho / 0.002**2 * (plane - before), rtol=1e-6, atol=1e-6)


def test_clipping_is_solved_exactly() -> None:
    operator = Clip((1, 1, 1), 0.2, 0.8, 0.05)
    grid = torch.linspace(-2, 3, 50001, dtype=DOUBLE)
    for z, y in ((0.5, 0.6), (1.2, 0.8), (0.75, 0.8), (-0.5, 0.2), (0.5, 0.1), (1.5, 0.5)):
        cost = (grid.clamp(0.2, 0.8) - y).square() + 0.3 * (grid - z).square()
        (found,) = operator.solve(*(torch.full((1, 1, 1, 1), v, dtype=DOUBLE) for v in (z, y)), 0.3).flatten().tolist()
        assert found == pytest.approx(float(grid[cost.argmin()]), abs=2e-4)


def test_what_is_nonlinear_is_solved_through_compositions() -> None:
    operator = Composition(Clip(SHAPE, 0.2, 0.8, 0.05), Blur(SHAPE, gaussian_kernel(1.0)))
    truth = random(1, *SHAPE)
    y = operator.apply(truth)
    found = operator.solve(torch.full_like(truth, 0.5), y, 0.01)
    assert float((operator.apply(found) - y).norm()) < 0.3 * float(
        (operator.apply(torch.full_like(truth, 0.5)) - y).norm()
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Identity(SHAPE, -1.0), "noise_std must be 0 or more, of pictures in [0, 1]"),
        (lambda: Mask(torch.full(SHAPE, 0.5)), "mask must hold True and False"),
        (lambda: Downscale(SHAPE, 3), "factor must be 2 or more and divide height and width, 8×8"),
        (lambda: Downscale(SHAPE, 2, kernel="best"), "kernel must be"),
        (lambda: Blur(SHAPE, torch.ones(2, 2)), "odd height"),
        (lambda: gaussian_kernel(0.0), "std must be above 0"),
        (lambda: motion_kernel(0.5), "length must be 1 or more"),
        (lambda: Gray((1, 8, 8)), "three channels"),
        (lambda: RandomProjections(SHAPE, 500), "rows must be in 1..192"),
        (lambda: Fourier(SHAPE, torch.ones(3, 3)), "mask must be (8, 8)"),
        (lambda: Radon((1, 4, 8), torch.zeros(1)), "square"),
        (lambda: Jpeg(SHAPE, 0), "quality must be in 1..100"),
        (lambda: Clip(SHAPE, 1.0, 0.0), "low must be under high"),
        (lambda: Composition(Gray(SHAPE), Gray(SHAPE)), "makes measurements of"),
        (lambda: Composition(Identity(SHAPE), Identity(SHAPE, 0.1)), "noise must come last"),
        (lambda: Stack(Identity(SHAPE), Identity(SHAPE, 0.1)), "one noise_std"),
        (lambda: Clip(SHAPE, 0.0, 1.0).adjoint(torch.zeros(1, *SHAPE)), "isn't linear"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        make()
    assert words in str(error.value)
