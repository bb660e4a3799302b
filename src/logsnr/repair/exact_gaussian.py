"""Gaussian pictures: a network that knows them exactly, and exact draws of what a measurement leaves possible.

Pictures x_0 in [0, 1] have mean 1/2 and the covariance C = F* S F, with F the orthonormal Fourier transform of each
channel and a spectrum S that falls as that of photographs does (Field 1987: power like 1/|k|²). On [-1, 1] the mean is
0 and the spectrum 4 S, so that what a network should say is, at each frequency,

    E[x_0 | x_t] = 4 S α_t / (4 S α_t² + σ_t²) x_t.

A draw from p(x_0 | y) is what minimises |A x - y - σ n|² + σ² |C^(-1/2) (x - 1/2) - n'|² for normal n and n' (perturb
and optimise; Papandreou and Yuille, "Gaussian sampling by local perturbations", NeurIPS 2010). The mean is that of
n = n' = 0.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from logsnr.pipelines.restoration_operators import Operator

STD = 0.2
"""Standard deviation of a pixel."""


def spectrum(height: int, width: int) -> Tensor:
    """S: (height, width), the variance of each frequency; its mean is that of a pixel, `STD` squared."""
    k2 = torch.fft.fftfreq(height)[:, None].double() ** 2 + torch.fft.fftfreq(width)[None].double() ** 2
    power = 1 / (k2 + 1 / (height * width))
    variance: Tensor = STD**2 * power / power.mean()
    return variance


class GaussianUNet(ModelMixin, ConfigMixin):  # type: ignore[misc]  # stock's own two bases disagree
    """The network that is exactly right for Gaussian pictures, with the config and the call of `UNet2DModel`.

    alphas_cumprod: ᾱ_t of the chain. prediction_type: what it predicts. in_channels, sample_size: of the pictures.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        alphas_cumprod: list[float],
        prediction_type: str = "epsilon",
        in_channels: int = 1,
        sample_size: tuple[int, int] = (32, 32),
        out_channels: int = 1,
        num_class_embeds: int | None = None,
        class_embed_type: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.register_buffer("alpha_bar", torch.tensor(alphas_cumprod, dtype=torch.float64))
        self.register_buffer("power", 4 * spectrum(*sample_size))
        self.anchor = torch.nn.Parameter(torch.zeros(()))  # whose dtype and device are the network's

    def forward(
        self, sample: Tensor, timestep: Any, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> Any:
        """`sample` (n, channels, height, width) at timesteps, one or (n,) -> the prediction, in the same shape."""
        t = torch.as_tensor(timestep, device=sample.device).long().view(-1, 1, 1, 1)
        a, s = self.alpha_bar[t].sqrt(), (1 - self.alpha_bar[t]).sqrt()
        x = sample.double()
        gain = self.power * a / (self.power * a**2 + s**2)
        x_0 = torch.fft.ifft2(gain * torch.fft.fft2(x)).real
        eps = (x - a * x_0) / s
        predicted = {"epsilon": eps, "sample": x_0, "v_prediction": a * eps - s * x_0, "x0_minus_noise": x_0 - eps}
        output = predicted[self.config["prediction_type"]].to(sample.dtype)
        return UNet2DOutput(sample=output) if return_dict else (output,)


class _White(Operator):
    """A C^(1/2): the operator on pictures whose covariance is the identity and whose mean is 0."""

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator.shape, operator.measurement_shape, operator.noise_std)
        self._operator, self._root = operator, spectrum(*operator.shape[1:]).sqrt()

    def color(self, white: Tensor) -> Tensor:
        return _filtered(white, self._root)

    def apply(self, sample: Tensor) -> Tensor:
        return self._operator.apply(self.color(sample))

    def adjoint(self, measurement: Tensor) -> Tensor:
        return self.color(self._operator.adjoint(measurement))


def draw_prior(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A Gaussian picture: (1, *shape), float64 around 1/2."""
    white = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    return 0.5 + _filtered(white, spectrum(*shape[1:]).sqrt())


def _filtered(pictures: Tensor, gain: Tensor) -> Tensor:
    """Pictures whose frequencies are multiplied by `gain`, (height, width)."""
    filtered: Tensor = torch.fft.ifft2(gain.to(pictures) * torch.fft.fft2(pictures)).real
    return filtered


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
