"""The network of Gaussian data, exactly: E[x_0 | x_t] in closed form, where a trained one would stand.

With x_0 ~ N(m, C) and x_t = α_t x_0 + σ_t ε, α_t² = ᾱ_t = 1 − σ_t²,

    E[x_0 | x_t] = m + α_t C (α_t² C + σ_t² I)⁻¹ (x_t − α_t m).

Whatever is made of it has no error of a network: what is wrong then is the method's. C is known by its eigenvectors and
variances along them, so that f(C) x is to be had: directions in a matrix, or the frequencies of pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from logsnr.schedulers.scheduling_beta import BetaScheduler


class Directions(torch.nn.Module):
    """C = basis diag(variances - rest) basis^T + rest I, in float32.

    basis: (values, directions), orthonormal columns; variances: (directions,). rest: in all other directions.
    """

    basis: Tensor
    variances: Tensor
    rest: Tensor

    def __init__(self, basis: Tensor, variances: Tensor, rest: float) -> None:
        super().__init__()
        self.register_buffer("basis", basis.float())
        self.register_buffer("variances", variances.float())
        self.register_buffer("rest", torch.tensor(rest))

    def forward(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """f(C) x of images (n, channels, height, width)."""
        flat, rest = x.flatten(1), f(self.rest).view(-1, 1)
        gain = f(self.variances).view(len(rest), -1) - rest
        return (rest * flat + ((flat @ self.basis) * gain) @ self.basis.T).view_as(x)


class Frequencies(torch.nn.Module):
    """C = F* diag(variances) F, with F the orthonormal Fourier transform of each channel; in float64.

    variances: of each frequency, (height, width).
    """

    variances: Tensor

    def __init__(self, variances: Tensor) -> None:
        super().__init__()
        self.register_buffer("variances", variances.double())

    def forward(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """f(C) x of images (n, channels, height, width)."""
        filtered: Tensor = torch.fft.ifft2(f(self.variances).to(x) * torch.fft.fft2(x)).real
        return filtered


class GaussianNetwork(ModelMixin, ConfigMixin):  # type: ignore[misc]  # stock's own two bases disagree
    """A `UNet2DModel` by its call and configuration, of images in [-1, 1]. prediction_type: what it predicts."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int | tuple[int, int],
        in_channels: int = 1,
        out_channels: int = 1,
        num_class_embeds: int | None = None,
        class_embed_type: str | None = None,
        prediction_type: str = "sample",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.anchor = torch.nn.Parameter(torch.zeros(()))  # whose device and type are the network's

    def of(self, mean: Tensor, covariance: Directions | Frequencies, alphas_cumprod: Tensor) -> GaussianNetwork:
        """Itself, with N(mean, covariance), and computing in the precision of the covariance.

        mean: (channels, height, width). alphas_cumprod: ᾱ of each timestep, (timesteps,).
        """
        self.covariance = covariance
        self.register_buffer("mean", mean.to(covariance.variances))
        self.register_buffer("alphas_cumprod", alphas_cumprod.to(covariance.variances))
        return self

    def forward(
        self, sample: Tensor, timestep: Any, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> UNet2DOutput | tuple[Tensor]:
        """The prediction of samples (n, channels, height, width); `timestep` a number, or one for each."""
        t = torch.as_tensor(timestep, device=sample.device).long().expand(len(sample))
        bar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        a, noise, x_t = bar.sqrt(), 1 - bar, sample.to(bar.dtype)
        x_0 = self.mean + a * self.covariance(lambda variance: variance / (bar * variance + noise), x_t - a * self.mean)
        found = self._predicted(x_0, x_t, a, noise.sqrt()).to(sample.dtype)
        return UNet2DOutput(sample=found) if return_dict else (found,)

    def _predicted(self, x_0: Tensor, x_t: Tensor, a: Tensor, s: Tensor) -> Tensor:
        kind = self.config["prediction_type"]
        if kind == "sample":
            return x_0
        eps = (x_t - a * x_0) / s
        return {"epsilon": eps, "v_prediction": a * eps - s * x_0, "x0_minus_noise": x_0 - eps}[kind]


def gaussian_schedule(schedule: BetaScheduler) -> BetaScheduler:
    """The same noise schedule for a network that predicts x_0."""
    made = type(schedule).from_config({**schedule.config, "prediction_type": "sample", "variance_type": "fixed_small"})
    assert isinstance(made, BetaScheduler)
    return made
