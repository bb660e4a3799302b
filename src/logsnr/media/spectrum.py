r"""How much of the images a noise level leaves to be seen: their power spectrum against that of the noise.

Let S_k be the variance of the k-th Fourier mode (orthonormal) of the images about their mean, colours turned to their
principal axes. At log-SNR lambda the mode is seen in noise of variance e^-lambda, and the best linear denoiser leaves
S_k / (1 + e^lambda S_k) of it. The share of the whole variance that is left,

    hidden(lambda) = sum_k S_k / (1 + e^lambda S_k)  /  sum_k S_k,

falls from 1, where all is noise, to 0. Sampling decides on the coarse structure first and on all else in its light,
so what a schedule has to match is the curve of the coarse modes alone: those up to eight cycles an image, which a
thumbnail of 16 pixels shows. In the same picture at twice the side they have four times the variance, since averaging
2 x 2 pixels quarters the noise: their curve is 2 ln 2 further left. That is why large images need more noise
(Hoogeboom et al., 2301.11093, section 3.1), and it holds for contrast and smoothness as it does for size.

What is known to work is known of photographs of 64 pixels a side. Their spectrum is 1 / f^2 (Field, 1987), nine tenths
of it in brightness, with a standard deviation of 0.5. `offset` is how far to the right of their curve that of other
images is, at its middle: the same schedules and weights, moved by so much, treat other images as those are treated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

COARSE = 8
"""Cycles an image."""
_COLORS = (0.9, 0.08, 0.02)
"""Shares of brightness and two colours in the variance of photographs."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The pixels of a set of images, values in [-1, 1], in numbers."""

    mean: float
    std: float
    """sigma_data."""
    power: Tensor
    """S_k, (channels, height, width), float64; the zero frequency comes first."""

    @functools.cached_property
    def offset(self) -> float:
        """How far the curve of the coarse modes is right of that of photographs of 64 pixels, where both are 1/2."""
        return half_hidden(self.power) - half_hidden(photographs())

    def by_frequency(self) -> tuple[Tensor, Tensor]:
        """Frequencies 1, 2, … half the side, in cycles an image, and the main colour's mean power at each."""
        power = self.power[self.power.flatten(1).sum(1).argmax()]
        radius = _radius(power.shape[-1]).round().long().flatten()
        sums = torch.bincount(radius, power.flatten()) / torch.bincount(radius).clamp(min=1)
        frequencies = torch.arange(1, power.shape[-1] // 2 + 1)
        return frequencies, sums[frequencies]


def spectrum(batches: Callable[[], Iterable[Tensor]]) -> Spectrum:
    """Of images (batch, channels, side, side) in [-1, 1]. They are gone through twice, one batch in memory at a time.

    Args:
        batches: called twice, for the same batches.
    """
    count, moments, squares = 0, torch.zeros(2, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for images in batches():
        values = images.double()
        pixels = values.transpose(0, 1).flatten(1)
        moments = moments + torch.stack([values.sum(), values.square().sum()])
        squares = squares + pixels @ pixels.T
        total = total + values.sum(0)
        count += len(images)
    average = total / count
    flat, size = average.flatten(1), count * average.numel()
    mean = float(moments[0]) / size
    std = math.sqrt(max(0.0, float(moments[1]) - size * mean**2) / (size - 1))
    axes = torch.linalg.eigh(squares - count * flat @ flat.T).eigenvectors.float()
    power = torch.zeros_like(average)
    for images in batches():
        modes = torch.fft.fft2(torch.einsum("nchw,cd->ndhw", images - average.float(), axes), norm="ortho")
        power += modes.abs().square().double().sum(0)
    return Spectrum(mean, std, power / (count - 1))


def hidden(power: Tensor, log_snr: float) -> float:
    """Share of the variance of the coarse ones of S_k, (channels, side, side), that such noise hides, in [0, 1]."""
    coarse = power[:, _radius(power.shape[-1]) <= COARSE]
    return float((coarse / (1 + math.exp(log_snr) * coarse)).sum() / coarse.sum())


def half_hidden(power: Tensor) -> float:
    """The log-SNR at which half of the variance of the coarse modes is hidden."""
    low, high = -40.0, 40.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if hidden(power, middle) > 0.5 else (low, middle)
    return low


@functools.cache
def photographs(side: int = 64) -> Tensor:
    """S_k of photographs, (3, side, side): 1 / f^2 below one cycle an image as at one, standard deviation 0.5."""
    power = 1 / _radius(side).clamp(min=1).square()
    shares = torch.tensor(_COLORS, dtype=torch.float64).view(3, 1, 1)
    return 3 * 0.25 * shares * power / power.mean()


def _radius(side: int) -> Tensor:
    """The frequency of each mode in cycles an image, (side, side)."""
    frequencies = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    return torch.hypot(frequencies[:, None], frequencies[None])
