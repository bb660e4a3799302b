"""What repairs a picture without a trained network: the Gaussian that fits the training images, and plain fill-ins.

With x ~ N(m, C) and y = A x + sigma n, the posterior of x given y is Gaussian, of mean

    m + C A^T (A C A^T + sigma^2 I)^-1 (y - A m),

the estimate of least squared error among all that are linear in y (Wiener's, 1949). It is the plainest prior there is:
what a network adds to it is what images have beyond their mean and covariance. A draw x' of the prior and one of the
noise make a draw of the posterior, exactly (Hoffman and Ribak 1991):

    x' + C A^T (A C A^T + sigma^2 I)^-1 (y - A x' - sigma n').

The linear system is solved by conjugate gradients, with the operator's `apply` and `adjoint` alone.

C is fitted to training images, (1 - a) S + a mu I with their covariance S, its mean variance mu, and a the share that
makes its expected squared error least (Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional
covariance matrices", eq. 14): few images for many pixels bring a near 1, and no image is held impossible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from logsnr.pipelines.restoration_operators import Downscale, Operator

_IMAGES = 10_000
"""Training images that the Gaussian is fitted to, at most."""
_IMAGES_OF_MANY = 2_000
"""As many where images have more values than that, of which no full covariance is made."""
_MANY = 3_072
_LEAST_NOISE = 1e-3
"""Standard deviation, on [0, 1], that is taken for none: below the depth of 8 bits."""
_ITERATIONS, _TOLERANCE = 1_000, 1e-6


@dataclass(frozen=True, eq=False)
class FittedGaussian:
    """N(mean, basis diag(variances - rest) basis^T + rest I) over images in [0, 1]; float64, on the CPU."""

    shape: tuple[int, ...]
    """Of an image: (channels, height, width)."""
    mean: Tensor
    """(values,)."""
    basis: Tensor
    """(values, directions), orthonormal columns."""
    variances: Tensor
    """Along the columns of `basis`, (directions,)."""
    rest: float
    """The variance in all directions beside these."""
    images: int
    """How many it was fitted to."""

    def multiplied(self, images: Tensor, f: Callable[[Tensor], Tensor] = lambda variances: variances) -> Tensor:
        """f(C) times images without their mean, (n, *shape)."""
        rest = f(self.variances.new_tensor(self.rest))
        x = images.flatten(1)
        return (rest * x + ((x @ self.basis) * (f(self.variances) - rest)) @ self.basis.T).view_as(images)

    def draw(self, generators: Sequence[torch.Generator]) -> Tensor:
        """An image of each generator, (n, *shape); values may be outside [0, 1]."""
        noise = self._noise(self.shape, generators)
        return self.mean.view(self.shape) + self.multiplied(noise, torch.sqrt)

    def posterior_mean(self, operator: Operator, measurement: Tensor) -> Tensor:
        """E[x | y] of measurements (n, *operator.measurement_shape); (n, *shape), not cut off at 0 and 1.

        The operator must be linear. Noise below 0.001 on [0, 1] counts as 0.001.
        """
        mean = self.mean.view(1, *self.shape).expand(len(measurement), *self.shape)
        return self._updated(operator, mean, measurement.to(mean.dtype) - operator.apply(mean))

    def posterior_draws(self, operator: Operator, measurement: Tensor, seeds: Sequence[int]) -> Tensor:
        """Exact draws of x | y for one measurement, (1, *operator.measurement_shape), one for each seed: (n, *shape).
        As of `posterior_mean`."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        prior = self.draw(generators)
        noise = self._noise(operator.measurement_shape, generators)
        made = operator.apply(prior) + max(operator.noise_std, _LEAST_NOISE) * noise
        return self._updated(operator, prior, measurement.to(prior.dtype) - made)

    def _noise(self, shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
        return torch.stack([torch.randn(tuple(shape), generator=g, dtype=self.mean.dtype) for g in generators])

    def _updated(self, operator: Operator, images: Tensor, residual: Tensor) -> Tensor:
        variance = max(operator.noise_std, _LEAST_NOISE) ** 2

        def system(u: Tensor) -> Tensor:
            return operator.apply(self.multiplied(operator.adjoint(u))) + variance * u

        return images + self.multiplied(operator.adjoint(conjugate_gradients(system, residual)))


def fit_gaussian(images: Tensor) -> FittedGaussian:
    """The Gaussian of images (n, channels, height, width) in [0, 1], by Ledoit and Wolf's shrinkage.

    Of n images with more than 3,072 values each, no more directions than n are told apart.
    """
    x = images.flatten(1).double()
    n, values = x.shape
    mean = x.mean(0)
    x = x - mean
    if n >= values:
        found, basis = torch.linalg.eigh(x.T @ x / n)
    else:
        found, vectors = torch.linalg.eigh(x @ x.T / n)
        kept = found > found[-1] * 1e-10
        found, basis = found[kept], x.T @ (vectors[:, kept] / (found[kept] * n).sqrt())
    found = found.clamp(min=0)
    average, square = float(found.sum()) / values, float(found.square().sum())
    spread = square / values - average**2
    error = (float(x.square().sum(1).square().sum()) / n - square) / (n * values)
    share = min(1.0, error / spread) if spread > 0 else 1.0
    rest = max(share * average, 1e-8)
    return FittedGaussian(tuple(images.shape[1:]), mean, basis, (1 - share) * found + rest, rest, n)


def number_to_fit(values: int) -> int:
    """How many training images of so many values are worth reading for it, at most."""
    return _IMAGES if values <= _MANY else _IMAGES_OF_MANY


def conjugate_gradients(system: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """x with system(x) = b, for each row of the batch `b`; `system` is linear, symmetric and positive.

    Stops at a relative residual of 1e-6 of every row, or after 1,000 iterations. (Hestenes and Stiefel 1952)
    """

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).flatten(1).sum(1).view(-1, *[1] * (b.ndim - 1))

    x, r = torch.zeros_like(b), b
    p, square = r, dot(r, r)
    goal = square * _TOLERANCE**2
    for _ in range(_ITERATIONS):
        if bool((square <= goal).all()):
            break
        q = system(p)
        step = torch.where(square > goal, square / dot(p, q), 0)
        x, r = x + step * p, r - step * q
        before, square = square, dot(r, r)
        p = r + torch.where(before > 0, square / before, 0) * p
    return x


def plain(operator: Operator, measurement: Tensor, mean: Tensor) -> tuple[str, Tensor]:
    """What one does without a model, in words and as images (n, *operator.shape) in [0, 1].

    Down-scaling is interpolated by bicubics, holes are filled with the mean of the training images (`mean`, (channels,
    height, width)), a measurement of the images' own shape is left as it is, and others are inverted by least squares
    of least norm.
    """
    observed = operator.observed()
    if isinstance(operator, Downscale):
        words, found = "bicubic interpolation", F.interpolate(measurement, operator.shape[1:], mode="bicubic")
    elif observed is not None and not bool(observed.all()):
        words, found = (
            "holes filled with the mean",
            torch.where(observed, operator.pinv(measurement), mean.to(measurement)),
        )
    elif operator.measurement_shape == operator.shape:
        words, found = "left as it is", measurement
    else:
        words, found = "least squares", operator.pinv(measurement)
    return words, found.clamp(0, 1)
