"""What was done to a picture, as a map A with noise: y = A(x_0) + σ n, n ~ N(0, I).

Pictures x_0 and measurements y are floats in [0, 1], and σ (`noise_std`) is stated in that range, everywhere.

An operator knows the `shape` of the pictures that it acts on. A linear one has `apply` (A), `adjoint` (Aᵀ, by automatic
differentiation where a class gives none), `solve`, which is argmin_x |A x - y|² + ρ |x - z|², `pinv` and, where the
eigenvectors of AᵀA are known, `spectrum`: `solve` is then a closed form, and conjugate gradients otherwise.
One that isn't linear (JPEG, clipping) has `apply`, which can be differentiated, and a `solve` of its own.

An operator of one's own is a class of three members:

    class Flip(Operator):
        def __init__(self, shape, noise_std=0.0):
            super().__init__(shape, shape, noise_std)
        def apply(self, sample):
            return sample.flip(-1)

This file stands alone: it is copied beside the pipelines that use it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Shape = tuple[int, ...]
Seeds = int | torch.Generator | list[torch.Generator] | None
LUMA = (0.299, 0.587, 0.114)
"""What a gray picture takes of red, green and blue (ITU-R BT.601)."""


class Spectrum(NamedTuple):
    """An orthonormal basis in which AᵀA is diagonal: AᵀA x = inverse(values * forward(x))."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    values: Tensor


class Operator:
    """A map of pictures to measurements, with noise. Subclasses give `apply`.

    shape: (channels, height, width) of a picture.
    measurement_shape: of a measurement, without the batch axis.
    noise_std: σ of the noise on a measurement, of pictures in [0, 1]. Raises `ValueError` if it is negative.
    """

    linear = True

    def __init__(self, shape: Shape, measurement_shape: Shape, noise_std: float = 0.0) -> None:
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be (channels, height, width), each 1 or more, and is {tuple(shape)}.")
        if not 0 <= noise_std < math.inf:
            raise ValueError(f"noise_std must be 0 or more, of pictures in [0, 1], and is {noise_std}.")
        self.shape = tuple(int(n) for n in shape)
        self.measurement_shape = tuple(int(n) for n in measurement_shape)
        self.noise_std = float(noise_std)

    def apply(self, sample: Tensor) -> Tensor:
        """A x: (n, *shape) to (n, *measurement_shape)."""
        raise NotImplementedError

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Aᵀ y: (n, *measurement_shape) to (n, *shape)."""
        self._require_linear("adjoint")
        with torch.enable_grad():
            zero = measurement.new_zeros((len(measurement), *self.shape), requires_grad=True)
            (gradient,) = torch.autograd.grad(self.apply(zero), zero, measurement)
        return gradient

    def spectrum(self) -> Spectrum | None:
        """The eigenvectors and eigenvalues of AᵀA, or None where they aren't known."""
        return None

    def solve(self, z: Tensor, measurement: Tensor, rho: float) -> Tensor:
        """argmin_x |A x - y|² + rho |x - z|², rho > 0: (n, *shape)."""
        self._require_linear("solve")
        right = self.adjoint(measurement) + rho * z
        if (known := self.spectrum()) is not None:
            return known.inverse(known.forward(right) / (known.values.to(right) + rho))
        return _conjugate_gradients(lambda v: self.adjoint(self.apply(v)) + rho * v, right, z)

    def pinv(self, measurement: Tensor) -> Tensor:
        """The least-squares picture of least norm: (n, *shape). Singular values under a tenth of the greatest are left
        out, for they would turn noise into picture; what isn't linear returns a first guess."""
        self._require_linear("pinv")
        right = self.adjoint(measurement)
        if (known := self.spectrum()) is None:
            rho = 1e-3 * self.norm()
            return _conjugate_gradients(lambda v: self.adjoint(self.apply(v)) + rho * v, right, torch.zeros_like(right))
        values = known.values.to(right)
        kept = values > 0.01 * values.max()
        return known.inverse(torch.where(kept, known.forward(right) / values.clamp(min=1e-12), 0.0))

    def norm(self) -> float:
        """The greatest eigenvalue of AᵀA; by 50 power iterations where there is no spectrum."""
        self._require_linear("norm")
        if (known := self.spectrum()) is not None:
            return float(known.values.max())
        generator = torch.Generator().manual_seed(0)
        vector = torch.randn(1, *self.shape, generator=generator)
        for _ in range(50):
            vector = self.adjoint(self.apply(vector / vector.norm()))
        return float(vector.norm())

    def observed(self) -> Tensor | None:
        """Which pixels the measurement shows, each alone: bool (channels, height, width); None where none is."""
        return None

    def measure(self, sample: Tensor, generator: Seeds = None) -> Tensor:
        """A x with noise. generator: one, a list of one for each picture, or a seed: picture k has `generator + k`."""
        clean = self.apply(sample)
        if isinstance(generator, int):
            generator = [torch.Generator().manual_seed(generator + k) for k in range(len(clean))]
        each = generator if isinstance(generator, list) else [generator] * len(clean)
        noise = [
            torch.randn(clean.shape[1:], generator=g, dtype=clean.dtype, device=g.device if g else "cpu") for g in each
        ]
        return clean + self.noise_std * torch.stack(noise).to(clean.device)

    def log_likelihood(self, sample: Tensor, measurement: Tensor) -> Tensor:
        """log p(y | x) but for a constant, (n,). Raises `ValueError` without noise, where it is infinite."""
        if self.noise_std == 0:
            raise ValueError("log_likelihood needs noise: noise_std is 0.")
        return -(measurement - self.apply(sample)).flatten(1).square().sum(1) / (2 * self.noise_std**2)

    @property
    def num_measured(self) -> int:
        """Values of a measurement that say something: of a mask, those of known pixels."""
        shown = self.observed()
        masked = shown is not None and self.measurement_shape == self.shape
        return int(shown.sum()) if masked and shown is not None else math.prod(self.measurement_shape)

    def fit(self, sample: Tensor, measurement: Tensor) -> Tensor:
        """The root mean square of y - A x in units of `noise_std`, (n,): about 1 where x explains y; NaN without
        noise."""
        if self.noise_std == 0:
            return torch.full((len(sample),), math.nan)
        square = (measurement - self.apply(sample)).flatten(1).square().sum(1) / max(1, self.num_measured)
        return square.sqrt() / self.noise_std

    def adjoint_error(self, generator: torch.Generator | None = None) -> float:
        """|<A x, y> - <x, Aᵀ y>| / (|A x| |y|) for random x and y: round-off where `adjoint` is right."""
        generator = generator or torch.Generator().manual_seed(0)
        x = torch.randn(1, *self.shape, generator=generator, dtype=torch.float64)
        image = self.apply(x)
        y = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        difference = (image * y).sum() - (x * self.adjoint(y)).sum()
        return float(difference.abs() / (image.norm() * y.norm()))

    def _require_linear(self, what: str) -> None:
        if not self.linear:
            raise ValueError(f"{type(self).__name__} isn't linear: it has no {what}.")


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], right: Tensor, start: Tensor, most: int = 300) -> Tensor:
    """The solution of a symmetric positive system for each picture, to round-off or `most` iterations."""
    # A picture that is solved moves no more, whatever it shares its batch with.
    size = (-1, *[1] * (right.ndim - 1))
    solution, residual = start, right - apply(start)
    direction, square = residual, residual.flatten(1).square().sum(1)
    enough = (torch.finfo(right.dtype).eps * 10) ** 2 * right.flatten(1).square().sum(1)
    for _ in range(most):
        active = square > enough
        if not bool(active.any()):
            break
        image = apply(direction)
        curvature = (direction * image).flatten(1).sum(1)
        step = torch.where(active, square / curvature.clamp(min=1e-30), 0.0).view(size)
        solution, residual = solution + step * direction, residual - step * image
        before, square = square, torch.where(active, residual.flatten(1).square().sum(1), square)
        direction = residual + (square / before.clamp(min=1e-30)).view(size) * direction
    return solution


# -- Pixels and channels -----------------------------------------------------------------------------------------


class Mask(Operator):
    """Pixels that are known, and others that aren't: y = m x.

    mask: bool or 0 and 1, (channels, height, width), True where a pixel is known. Noise lies on known pixels only.
    """

    def __init__(self, mask: Tensor, noise_std: float = 0.0) -> None:
        super().__init__(tuple(mask.shape), tuple(mask.shape), noise_std)
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError("mask must hold True and False, or 0 and 1, only.")
        self.mask = mask.bool().cpu()

    def apply(self, sample: Tensor) -> Tensor:
        return sample * self.mask.to(sample)

    def adjoint(self, measurement: Tensor) -> Tensor:
        return measurement * self.mask.to(measurement)

    def spectrum(self) -> Spectrum:
        return Spectrum(lambda x: x, lambda x: x, self.mask.double())

    def observed(self) -> Tensor:
        return self.mask

    def measure(self, sample: Tensor, generator: Seeds = None) -> Tensor:
        return self.apply(super().measure(sample, generator))


class Identity(Mask):
    """Noise alone: y = x."""

    def __init__(self, shape: Shape, noise_std: float = 0.0) -> None:
        super().__init__(torch.ones(shape, dtype=torch.bool), noise_std)


class MixChannels(Operator):
    """Other channels: y = M x at each pixel, M of shape (rows, channels)."""

    def __init__(self, shape: Shape, matrix: Tensor, noise_std: float = 0.0) -> None:
        if matrix.ndim != 2 or matrix.shape[1] != shape[0]:
            raise ValueError(
                f"matrix must have a column for each of {shape[0]} channels, and is {tuple(matrix.shape)}."
            )
        super().__init__(shape, (len(matrix), *shape[1:]), noise_std)
        self.matrix = matrix.double().cpu()
        values, self._vectors = torch.linalg.eigh(self.matrix.T @ self.matrix)
        self._values = values.clamp(min=0).view(-1, 1, 1)

    def apply(self, sample: Tensor) -> Tensor:
        return _mix(self.matrix, sample)

    def adjoint(self, measurement: Tensor) -> Tensor:
        return _mix(self.matrix.T, measurement)

    def spectrum(self) -> Spectrum:
        return Spectrum(lambda x: _mix(self._vectors.T, x), lambda x: _mix(self._vectors, x), self._values)


class Gray(MixChannels):
    """A gray picture of one in colour, by luma weights (ITU-R BT.601)."""

    def __init__(self, shape: Shape, noise_std: float = 0.0) -> None:
        if shape[0] != 3:
            raise ValueError(f"Gray needs pictures of three channels, and shape is {tuple(shape)}.")
        super().__init__(shape, torch.tensor([LUMA]), noise_std)


def _mix(matrix: Tensor, sample: Tensor) -> Tensor:
    return torch.einsum("rc,nchw->nrhw", matrix.to(sample), sample)


# -- Down-scaling and blur ---------------------------------------------------------------------------------------


class Downscale(Operator):
    """A smaller picture: y = R_h x R_wᵀ, whose rows average `factor` pixels or weigh four times as many (bicubic).

    factor: 2 or more; height and width must be multiples of it.
    kernel: "average" of the pixels, or "bicubic" with a = -1/2, stretched by the factor, as Pillow resizes.
    """

    def __init__(self, shape: Shape, factor: int, noise_std: float = 0.0, kernel: str = "average") -> None:
        _, height, width = shape
        if factor < 2 or height % factor or width % factor:
            raise ValueError(
                f"factor must be 2 or more and divide height and width, {height}×{width}, and is {factor}."
            )
        if kernel not in ("average", "bicubic"):
            raise ValueError(f'kernel must be "average" or "bicubic", and is {kernel!r}.')
        super().__init__(shape, (shape[0], height // factor, width // factor), noise_std)
        self.factor = factor
        rows = _averaging if kernel == "average" else _bicubic
        self._rows, self._columns = rows(height, factor), rows(width, factor)
        self._bases: tuple[Tensor, Tensor, Tensor] | None = None

    def apply(self, sample: Tensor) -> Tensor:
        return _both_sides(self._rows, sample, self._columns.T)

    def adjoint(self, measurement: Tensor) -> Tensor:
        return _both_sides(self._rows.T, measurement, self._columns)

    def spectrum(self) -> Spectrum:
        if self._bases is None:
            (high, v), (wide, w) = (torch.linalg.eigh(m.T @ m) for m in (self._rows, self._columns))
            self._bases = (v, w, (high[:, None] * wide[None, :]).clamp(min=0))
        v, w, values = self._bases
        return Spectrum(lambda x: _both_sides(v.T, x, w), lambda x: _both_sides(v, x, w.T), values)


def _averaging(size: int, factor: int) -> Tensor:
    return torch.eye(size // factor, dtype=torch.float64).repeat_interleave(factor, 1) / factor


def _bicubic(size: int, factor: int) -> Tensor:
    """(size / factor, size), each row summing to 1: Keys' kernel (1981, eq. 4), where the picture ends cut off."""
    centres = (torch.arange(size // factor, dtype=torch.float64) + 0.5) * factor - 0.5
    distance = (torch.arange(size, dtype=torch.float64)[None] - centres[:, None]).abs() / factor
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    return weights / weights.sum(1, keepdim=True)


def gaussian_kernel(std: float) -> Tensor:
    """A Gaussian of standard deviation `std` pixels, cut off at four of them; (size, size), its sum 1."""
    if not 0 < std < math.inf:
        raise ValueError(f"std must be above 0, in pixels, and is {std}.")
    reach = max(1, math.ceil(4 * std))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / std) ** 2)
    return torch.outer(line, line) / line.sum() ** 2


def motion_kernel(length: float, angle: float = 0.0) -> Tensor:
    """A line of `length` pixels at `angle` degrees, counter-clockwise from the right; (size, size), its sum 1."""
    if not 1 <= length < math.inf:
        raise ValueError(f"length must be 1 or more, in pixels, and is {length}.")
    reach = math.ceil(length / 2)
    at = (torch.arange(200, dtype=torch.float64) + 0.5) / 200 * length - length / 2
    x, y = at * math.cos(math.radians(angle)) + reach, -at * math.sin(math.radians(angle)) + reach
    kernel = torch.zeros(2 * reach + 2, 2 * reach + 2, dtype=torch.float64)
    for down in (0, 1):
        for right in (0, 1):
            weight = (1 - (y - y.floor() - down).abs()) * (1 - (x - x.floor() - right).abs())
            kernel.index_put_((y.long() + down, x.long() + right), weight, accumulate=True)
    return kernel[: 2 * reach + 1, : 2 * reach + 1] / kernel[: 2 * reach + 1, : 2 * reach + 1].sum()


class Blur(Operator):
    """A picture under a kernel: y = k * x, each channel alone.

    kernel: (odd, odd) weights; see `gaussian_kernel` and `motion_kernel`.
    boundary: "mirror", the picture goes on as in a mirror, or "circular", as on a torus.

    The spectrum is known on a torus, and in a mirror for a kernel that is its own mirror image: the cosine transform.
    """

    def __init__(self, shape: Shape, kernel: Tensor, noise_std: float = 0.0, boundary: str = "mirror") -> None:
        super().__init__(shape, shape, noise_std)
        if kernel.ndim != 2 or kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
            raise ValueError(f"kernel must have an odd height and an odd width, and is {tuple(kernel.shape)}.")
        if boundary not in ("mirror", "circular"):
            raise ValueError(f'boundary must be "mirror" or "circular", and is {boundary!r}.')
        self.kernel, self.boundary = kernel.double().cpu(), boundary
        _, height, width = self.shape
        even = all(torch.allclose(self.kernel, self.kernel.flip(axis), atol=1e-9) for axis in (0, 1))
        self._transfer: Tensor | None = None
        self._cosines: tuple[Tensor, Tensor] | None = None
        if boundary == "circular":
            self._transfer = torch.fft.fft2(_wrapped(self.kernel, height, width))
        elif even:
            self._transfer = torch.fft.fft2(_wrapped(self.kernel, 2 * height, 2 * width)).real[:height, :width]
            self._cosines = (_cosine_basis(height), _cosine_basis(width))

    def apply(self, sample: Tensor) -> Tensor:
        if self._transfer is None:
            return self._convolve(sample)
        return self._filter(self._transfer, sample)

    def adjoint(self, measurement: Tensor) -> Tensor:
        if self._transfer is None:
            return super().adjoint(measurement)
        return self._filter(self._transfer.conj(), measurement)

    def spectrum(self) -> Spectrum | None:
        if self._transfer is None:
            return None
        return Spectrum(*self._basis(), self._transfer.abs().square())

    def _basis(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        if self._cosines is None:
            return _fourier, _from_fourier
        high, wide = self._cosines
        return lambda x: _both_sides(high, x, wide.T), lambda x: _both_sides(high.T, x, wide)

    def _filter(self, transfer: Tensor, sample: Tensor) -> Tensor:
        basis = self._basis()
        coefficients = basis[0](sample)
        filtered: Tensor = basis[1](coefficients * transfer.to(coefficients))
        return filtered

    def _convolve(self, sample: Tensor) -> Tensor:
        (down, right), (_, height, width) = (n // 2 for n in self.kernel.shape), self.shape
        rows, columns = _mirrored(height, down), _mirrored(width, right)
        padded = sample[..., rows, :][..., columns].flatten(0, 1).unsqueeze(1)
        kernel = self.kernel.flip(0, 1).to(sample)[None, None]  # convolution, where torch correlates
        return F.conv2d(padded, kernel).view(sample.shape)


def _both_sides(left: Tensor, sample: Tensor, right: Tensor) -> Tensor:
    return left.to(sample) @ sample @ right.to(sample)


def _fourier(sample: Tensor) -> Tensor:
    coefficients: Tensor = torch.fft.fft2(sample, norm="ortho")
    return coefficients


def _from_fourier(coefficients: Tensor) -> Tensor:
    sample: Tensor = torch.fft.ifft2(coefficients, norm="ortho").real
    return sample


def _wrapped(kernel: Tensor, height: int, width: int) -> Tensor:
    """The kernel on a torus, its centre at the origin; longer ones go round."""
    rows = (torch.arange(kernel.shape[0]) - kernel.shape[0] // 2) % height
    columns = (torch.arange(kernel.shape[1]) - kernel.shape[1] // 2) % width
    torus = torch.zeros(height, width, dtype=kernel.dtype)
    return torus.index_put_((rows[:, None].expand_as(kernel), columns.expand_as(kernel)), kernel, accumulate=True)


def _mirrored(size: int, reach: int) -> Tensor:
    """Indices of a line that goes on by `reach` on both sides as in a mirror: … 1 0 0 1 …"""
    at = torch.arange(-reach, size + reach) % (2 * size)
    return torch.minimum(at, 2 * size - 1 - at)


def _cosine_basis(size: int) -> Tensor:
    """The orthonormal cosine transform DCT-II as a matrix, a row for each frequency."""
    at = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * (at[None] + 0.5) * at[:, None]) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


# -- Scanners ----------------------------------------------------------------------------------------------------


class RandomProjections(Operator):
    """y = P x with `rows` random orthonormal rows (compressed sensing); the same rows for the same `seed`."""

    def __init__(self, shape: Shape, rows: int, noise_std: float = 0.0, seed: int = 0) -> None:
        size = math.prod(shape)
        if not 1 <= rows <= size:
            raise ValueError(f"rows must be in 1..{size}, the number of values of a picture, and is {rows}.")
        if rows * size > 2**27:
            raise ValueError(f"rows times the {size} values of a picture must be at most 2^27, and is {rows * size}.")
        super().__init__(shape, (rows,), noise_std)
        normal = torch.randn(size, rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self._rows: Tensor = torch.linalg.qr(normal).Q.T.contiguous()

    def apply(self, sample: Tensor) -> Tensor:
        return sample.flatten(1) @ self._rows.to(sample).T

    def adjoint(self, measurement: Tensor) -> Tensor:
        return (measurement @ self._rows.to(measurement)).view(-1, *self.shape)

    def solve(self, z: Tensor, measurement: Tensor, rho: float) -> Tensor:
        return z + self.adjoint(measurement - self.apply(z)) / (1 + rho)  # P Pᵀ = I

    def pinv(self, measurement: Tensor) -> Tensor:
        return self.adjoint(measurement)

    def norm(self) -> float:
        return 1.0


class Fourier(Operator):
    """A part of the Fourier transform of each channel, as an MRI scanner takes it, seen by one coil or several.

    mask: bool (height, width), True where a frequency is taken; the zero frequency is at [0, 0].
    coils: complex sensitivities (coils, height, width); one of 1 where there are none.

    A measurement is (channels * coils, 2, frequencies): real and imaginary parts, with noise on each. Since pictures
    are real, AᵀA of one coil isn't a projection: its eigenvalues are (m(k) + m(-k)) / 2.
    """

    def __init__(self, shape: Shape, mask: Tensor, noise_std: float = 0.0, coils: Tensor | None = None) -> None:
        if tuple(mask.shape) != tuple(shape[1:]) or not bool(mask.any()):
            raise ValueError(f"mask must be {tuple(shape[1:])}, with True somewhere, and is {tuple(mask.shape)}.")
        if coils is not None and tuple(coils.shape[1:]) != tuple(shape[1:]):
            raise ValueError(f"coils must be (coils, *{tuple(shape[1:])}), and is {tuple(coils.shape)}.")
        self.mask = mask.bool().cpu()
        self.coils = None if coils is None else coils.to(torch.complex128).cpu()
        number = 1 if coils is None else len(coils)
        super().__init__(shape, (shape[0] * number, 2, int(self.mask.sum())), noise_std)

    def apply(self, sample: Tensor) -> Tensor:
        seen = sample.unsqueeze(2)
        if self.coils is not None:
            seen = seen * self.coils.to(torch.complex128 if sample.dtype == torch.float64 else torch.complex64)
        taken = torch.fft.fft2(seen, norm="ortho").flatten(1, 2)[..., self.mask]
        return torch.stack((taken.real, taken.imag), 2)

    def spectrum(self) -> Spectrum | None:
        if self.coils is not None:
            return None
        opposite = self.mask.flip(0, 1).roll((1, 1), (0, 1))
        return Spectrum(_fourier, _from_fourier, (self.mask.double() + opposite.double()) / 2)


class Radon(Operator):
    """Means along parallel rays at several angles, as a CT scanner takes them; pictures must be square.

    angles: degrees, (number,). A measurement is (channels, number, size). Outside of the picture there is nothing.
    """

    def __init__(self, shape: Shape, angles: Tensor, noise_std: float = 0.0) -> None:
        if shape[1] != shape[2]:
            raise ValueError(f"Radon needs square pictures, and shape is {tuple(shape)}.")
        if angles.ndim != 1 or len(angles) < 1:
            raise ValueError(f"angles must be a row of degrees, at least one, and is {tuple(angles.shape)}.")
        super().__init__(shape, (shape[0], len(angles), shape[2]), noise_std)
        self.angles = angles.double().cpu()

    def apply(self, sample: Tensor) -> Tensor:
        lines = []
        for angle in torch.deg2rad(self.angles).tolist():
            c, s = math.cos(angle), math.sin(angle)
            turn = sample.new_tensor([[[c, -s, 0.0], [s, c, 0.0]]]).expand(len(sample), -1, -1)
            grid = F.affine_grid(turn, list(sample.shape), align_corners=False)
            lines.append(F.grid_sample(sample, grid, align_corners=False).mean(2))
        return torch.stack(lines, 2)


# -- What isn't linear -------------------------------------------------------------------------------------------


class Clip(Operator):
    """Values under `low` and above `high` are cut off: y = min(max(x, low), high)."""

    linear = False

    def __init__(self, shape: Shape, low: float, high: float, noise_std: float = 0.0) -> None:
        if not low < high:
            raise ValueError(f"low must be under high, and they are {low} and {high}.")
        super().__init__(shape, shape, noise_std)
        self.low, self.high = float(low), float(high)

    def apply(self, sample: Tensor) -> Tensor:
        return sample.clamp(self.low, self.high)

    def solve(self, z: Tensor, measurement: Tensor, rho: float) -> Tensor:
        # Each pixel lies under, between or above the bounds: the best of the three.
        between = ((measurement + rho * z) / (1 + rho)).clamp(self.low, self.high)
        candidates = torch.stack((between, z.clamp(min=self.high), z.clamp(max=self.low)))
        cost = (candidates.clamp(self.low, self.high) - measurement).square() + rho * (candidates - z).square()
        return candidates.gather(0, cost.argmin(0, keepdim=True))[0]

    def pinv(self, measurement: Tensor) -> Tensor:
        return measurement


_QUANTA = {
    "luma": "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99",
    "chroma": "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99 "
    + "99 " * 32,
}
"""Steps of quantisation at quality 50 (ITU-T T.81, tables K.1 and K.2)."""
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class Jpeg(Operator):
    """What a JPEG file keeps: blocks of 8 pixels in the cosine basis, rounded to steps that grow with the frequency.

    quality: 1 to 100, as in Pillow and libjpeg. Colour is kept as luma and chroma, chroma at half the size (4:2:0).

    The gradient of rounding is taken to be 1. `solve` takes rounding to a step q for noise of variance q²/12, that of
    what is uniform between -q/2 and q/2, on the coefficients of y, the picture that was decoded. (To go to the nearest
    picture whose coefficients round to those of y keeps more of the blocks: on photographs of quality 10 its draws
    are 3 dB worse.) A decoded picture is rounded to 8 bits again, so `noise_std` is 0.002 at least.
    """

    linear = False

    def __init__(self, shape: Shape, quality: int, noise_std: float = 0.0) -> None:
        if not 1 <= quality <= 100:
            raise ValueError(f"quality must be in 1..100, and is {quality}.")
        if shape[0] not in (1, 3):
            raise ValueError(f"Jpeg needs pictures of one channel or three, and shape is {tuple(shape)}.")
        super().__init__(shape, shape, max(noise_std, 0.002) if noise_std >= 0 else noise_std)
        self.quality = quality
        scale = 5000 / quality if quality < 50 else 200 - 2 * quality
        tables = [torch.tensor([float(n) for n in _QUANTA[name].split()]) for name in ("luma", "chroma")]
        steps = [((t * scale + 50) / 100).floor().clamp(1, 255).view(8, 8) / 255 for t in tables]
        self._steps = [steps[0], steps[1], steps[1]][: shape[0]]

    def apply(self, sample: Tensor) -> Tensor:
        planes = []
        for plane, step in zip(self._planes(sample), self._steps, strict=True):
            rounded = (plane / step.to(plane)).round() * step.to(plane)
            planes.append(plane + (rounded - plane).detach())
        return (self._picture(planes) + 0.5).clamp(0, 1)

    def solve(self, z: Tensor, measurement: Tensor, rho: float) -> Tensor:
        changes = []
        for plane, seen, step in zip(self._planes(z), self._decoded(measurement), self._steps, strict=True):
            variance = step.to(plane).square() / 12 + self.noise_std**2
            changes.append((seen - plane) / (1 + variance * rho / self.noise_std**2))
        # chroma that is repeated, not interpolated, has these changes as its means of four pixels
        return z + self._picture(changes, "nearest")

    def pinv(self, measurement: Tensor) -> Tensor:
        return measurement

    def _planes(self, sample: Tensor) -> list[Tensor]:
        """Cosine coefficients of luma and chroma: (n, rows, columns, 8, 8) each."""
        _, height, width = self.shape
        unit = 8 if self.shape[0] == 1 else 16
        padded = F.pad(sample - 0.5, (0, -width % unit, 0, -height % unit), mode="replicate")
        if self.shape[0] == 1:
            return [_blocks(padded)]
        ycc = _mix(torch.tensor(_TO_YCC, dtype=torch.float64), padded)
        return [_blocks(ycc[:, :1]), *(_blocks(F.avg_pool2d(ycc[:, k : k + 1], 2)) for k in (1, 2))]

    def _decoded(self, measurement: Tensor) -> list[Tensor]:
        """The coefficients that a decoded picture was made of: without what interpolating chroma blurred."""
        planes = self._planes(measurement)
        for k in range(1, len(planes)):
            chroma = blurred = _from_blocks(planes[k])
            for _ in range(10):
                chroma = chroma + blurred - F.avg_pool2d(_enlarged(chroma, "bilinear"), 2)
            planes[k] = _blocks(chroma)
        return planes

    def _picture(self, planes: list[Tensor], interpolation: str = "bilinear") -> Tensor:
        """Pictures of such coefficients, with 0 for medium gray."""
        lines = [_from_blocks(plane) for plane in planes]
        picture = lines[0]
        if len(lines) == 3:
            ycc = torch.cat([lines[0], *(_enlarged(line, interpolation) for line in lines[1:])], 1)
            picture = _mix(torch.linalg.inv(torch.tensor(_TO_YCC, dtype=torch.float64)), ycc)
        return picture[..., : self.shape[1], : self.shape[2]]


def _enlarged(chroma: Tensor, interpolation: str) -> Tensor:
    """Twice the size, by the triangle filter of libjpeg (bilinear) or by repeating (nearest)."""
    return F.interpolate(chroma, scale_factor=2, mode=interpolation)


def _blocks(plane: Tensor) -> Tensor:
    """(n, 1, height, width) in blocks of eight pixels, in the cosine basis: (n, rows, columns, 8, 8)."""
    basis = _cosine_basis(8).to(plane)
    n, _, height, width = plane.shape
    return basis @ plane.view(n, height // 8, 8, width // 8, 8).transpose(2, 3) @ basis.T


def _from_blocks(coefficients: Tensor) -> Tensor:
    basis = _cosine_basis(8).to(coefficients)
    n, rows, columns = coefficients.shape[:3]
    return (basis.T @ coefficients @ basis).transpose(2, 3).reshape(n, 1, rows * 8, columns * 8)


# -- Several together --------------------------------------------------------------------------------------------


class Composition(Operator):
    """One after the other, the last argument first: Composition(mask, blur) masks what was blurred.

    The noise is that of the outermost. Raises `ValueError` where shapes don't fit, or an inner one has noise.
    """

    def __init__(self, *operators: Operator) -> None:
        for outer, inner in itertools.pairwise(operators):
            if outer.shape != inner.measurement_shape:
                raise ValueError(
                    f"{type(outer).__name__} takes pictures of shape {outer.shape}, and {type(inner).__name__} makes "
                    f"measurements of {inner.measurement_shape}."
                )
            if inner.noise_std:
                raise ValueError(f"noise must come last: {type(inner).__name__} has noise_std {inner.noise_std}.")
        super().__init__(operators[-1].shape, operators[0].measurement_shape, operators[0].noise_std)
        self.operators = operators
        self.linear = all(operator.linear for operator in operators)

    def apply(self, sample: Tensor) -> Tensor:
        for operator in reversed(self.operators):
            sample = operator.apply(sample)
        return sample

    def adjoint(self, measurement: Tensor) -> Tensor:
        self._require_linear("adjoint")
        for operator in self.operators:
            measurement = operator.adjoint(measurement)
        return measurement

    def solve(self, z: Tensor, measurement: Tensor, rho: float) -> Tensor:
        return super().solve(z, measurement, rho) if self.linear else _descend(self, z, measurement, rho)

    def pinv(self, measurement: Tensor) -> Tensor:
        if self.linear:
            return super().pinv(measurement)
        for operator in self.operators:
            measurement = operator.pinv(measurement)
        return measurement

    def observed(self) -> Tensor | None:
        shown = [operator.observed() for operator in self.operators]
        known = [mask for mask in shown if mask is not None]
        return torch.stack(known).all(0) if len(known) == len(shown) else None

    def measure(self, sample: Tensor, generator: Seeds = None) -> Tensor:
        for operator in reversed(self.operators[1:]):
            sample = operator.apply(sample)
        return self.operators[0].measure(sample, generator)


def _descend(operator: Operator, z: Tensor, measurement: Tensor, rho: float, steps: int = 30) -> Tensor:
    """argmin_x |A(x) - y|² + rho |x - z|² by gradients with momentum, from z, where there is no closed form."""
    x, velocity = z, torch.zeros_like(z)
    for _ in range(steps):
        with torch.enable_grad():
            at = (x + 0.8 * velocity).detach().requires_grad_()
            (gradient,) = torch.autograd.grad((operator.apply(at) - measurement).square().sum() / 2, at)
        velocity = 0.8 * velocity - 0.5 / (1 + rho) * (gradient + rho * (at - z))
        x = (x + velocity).detach()
    return x


class Stack(Operator):
    """Several measurements of one picture, each flattened, one after the other. All need the same `noise_std`."""

    def __init__(self, *operators: Operator) -> None:
        if len({(operator.shape, operator.noise_std) for operator in operators}) != 1:
            raise ValueError("Stack needs operators on pictures of one shape, with one noise_std.")
        self._sizes = [math.prod(operator.measurement_shape) for operator in operators]
        super().__init__(operators[0].shape, (sum(self._sizes),), operators[0].noise_std)
        self.operators = operators
        self.linear = all(operator.linear for operator in operators)

    def apply(self, sample: Tensor) -> Tensor:
        return torch.cat([operator.apply(sample).flatten(1) for operator in self.operators], 1)

    def adjoint(self, measurement: Tensor) -> Tensor:
        self._require_linear("adjoint")
        return torch.stack([o.adjoint(part) for o, part in self._parts(measurement)]).sum(0)

    def solve(self, z: Tensor, measurement: Tensor, rho: float) -> Tensor:
        return super().solve(z, measurement, rho) if self.linear else _descend(self, z, measurement, rho)

    def pinv(self, measurement: Tensor) -> Tensor:
        if self.linear:
            return super().pinv(measurement)
        return torch.stack([o.pinv(part) for o, part in self._parts(measurement)]).mean(0)

    def _parts(self, measurement: Tensor) -> list[tuple[Operator, Tensor]]:
        parts = measurement.split(self._sizes, 1)
        return [(o, part.unflatten(1, o.measurement_shape)) for o, part in zip(self.operators, parts, strict=True)]


class PhysicsOperator(Operator):
    """A linear `Physics` of the package deepinv, by its own `A`, `A_adjoint`, `A_dagger` and `prox_l2`.

    shape: (channels, height, width) of its pictures, in [0, 1].
    noise_std: σ; None takes that of its noise model (`physics.noise_model.sigma`).
    """

    def __init__(self, physics: Any, shape: Shape, noise_std: float | None = None) -> None:
        if noise_std is None:
            noise_std = float(getattr(getattr(physics, "noise_model", None), "sigma", 0.0))
        with torch.no_grad():
            measured = physics.A(torch.zeros(1, *shape))
        super().__init__(shape, tuple(measured.shape[1:]), noise_std)
        self.physics = physics

    def apply(self, sample: Tensor) -> Tensor:
        measured: Tensor = self.physics.A(sample)
        return measured

    def adjoint(self, measurement: Tensor) -> Tensor:
        image: Tensor = self.physics.A_adjoint(measurement)
        return image

    def solve(self, z: Tensor, measurement: Tensor, rho: float) -> Tensor:
        image: Tensor = self.physics.prox_l2(z, measurement, 1 / rho)
        return image

    def pinv(self, measurement: Tensor) -> Tensor:
        image: Tensor = self.physics.A_dagger(measurement)
        return image
