"""Gaussian pictures: a network that knows them exactly, and exact draws of what a measurement leaves possible.

Pictures x_0 in [0, 1] have mean 1/2 and the covariance C = F* S F, with F the orthonormal Fourier transform of each
channel and a spectrum S that falls as that of photographs does (Field 1987: power like 1/|k|²). On [-1, 1] the mean is
0 and the spectrum 4 S; what a network should say then is known (`logsnr.models.gaussian`).

A draw from p(x_0 | y) is what minimises |A x - y - σ n|² + σ² |C^(-1/2) (x - 1/2) - n'|² for normal n and n' (perturb
and optimise; Papandreou and Yuille, "Gaussian sampling by local perturbations", NeurIPS 2010). The mean is that of
n = n' = 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from logsnr.models.gaussian import Frequencies, GaussianNetwork
from logsnr.pipelines.restoration_operators import Operator

STD = 0.2
"""Standard deviation of a pixel."""


def spectrum(height: int, width: int) -> Tensor:
    """S: (height, width), the variance of each frequency; its mean is that of a pixel, `STD` squared."""
    k2 = torch.fft.fftfreq(height)[:, None].double() ** 2 + torch.fft.fftfreq(width)[None].double() ** 2
    power = 1 / (k2 + 1 / (height * width))
    variance: Tensor = STD**2 * power / power.mean()
    return variance


def exact_network(shape: tuple[int, ...], scheduler: Any) -> GaussianNetwork:
    """The network of such pictures, (channels, height, width), which predicts what `scheduler` expects."""
    channels, height, width = shape
    network: GaussianNetwork = GaussianNetwork(
        (height, width), channels, channels, prediction_type=scheduler.config["prediction_type"]
    )
    return network.of(torch.zeros(shape), Frequencies(4 * spectrum(height, width)), scheduler.alphas_cumprod)


class _White(Operator):
    """A C^(1/2): the operator on pictures whose covariance is the identity and whose mean is 0."""

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator.shape, operator.measurement_shape, operator.noise_std)
        self._operator, self._covariance = operator, Frequencies(spectrum(*operator.shape[1:]))

    def color(self, white: Tensor) -> Tensor:
        colored: Tensor = self._covariance(torch.sqrt, white)
        return colored

    def apply(self, sample: Tensor) -> Tensor:
        return self._operator.apply(self.color(sample))

    def adjoint(self, measurement: Tensor) -> Tensor:
        return self.color(self._operator.adjoint(measurement))


def draw_prior(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A Gaussian picture: (1, *shape), float64 around 1/2."""
    white = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    colored: Tensor = Frequencies(spectrum(*shape[1:]))(torch.sqrt, white)
    return 0.5 + colored


def exact_posterior(
    operator: Operator, measurement: Tensor, noise_std: float, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The mean of what a measurement, (1, *measurement_shape), leaves possible, (1, *shape), and `count` draws.

    The operator is linear, `noise_std` above 0.
    """
    white, half = _White(operator), torch.full((1, *operator.shape), 0.5, dtype=torch.float64)
    rest = measurement.double() - operator.apply(half)
    zero = torch.zeros_like(half)
    mean = half + white.color(white.solve(zero, rest, noise_std**2))
    prior, noise = (
        torch.randn(count, *shape, generator=generator) for shape in (operator.shape, operator.measurement_shape)
    )
    draws = white.solve(prior, rest.float() + noise_std * noise, noise_std**2)  # float32: they are draws
    return mean, half + white.color(draws)
