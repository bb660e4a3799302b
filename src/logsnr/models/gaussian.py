"""The network of Gaussian data, exactly: E[x_0 | x_t] in closed form, where a trained one would stand.

With x_0 ~ N(m, C) and x_t = α_t x_0 + σ_t ε, α_t² = ᾱ_t = 1 − σ_t²,

    E[x_0 | x_t] = m + α_t C (α_t² C + σ_t² I)⁻¹ (x_t − α_t m).

Whatever is made of it has no error of a network: what is wrong then is the method's.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from logsnr.schedulers.scheduling_beta import BetaScheduler


class GaussianNetwork(ModelMixin, ConfigMixin):  # type: ignore[misc]  # stock's own two bases disagree
    """A `UNet2DModel` by its call and configuration, which predicts x_0 in [-1, 1] (`prediction_type="sample"`)."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int,
        in_channels: int = 1,
        out_channels: int = 1,
        num_class_embeds: int | None = None,
        class_embed_type: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.anchor = torch.nn.Parameter(torch.zeros(()))  # whose device and type are the network's

    def of(
        self, mean: Tensor, basis: Tensor, variances: Tensor, rest: float, alphas_cumprod: Tensor
    ) -> GaussianNetwork:
        """Itself, with N(mean, basis diag(variances - rest) basis^T + rest I) over images in [-1, 1].

        mean: (values,); basis: (values, directions), orthonormal columns; variances: (directions,).
        alphas_cumprod: ᾱ of each timestep, (timesteps,).
        """
        self.register_buffer("mean", mean.float())
        self.register_buffer("basis", basis.float())
        self.register_buffer("variances", variances.float())
        self.register_buffer("rest", torch.tensor(rest))
        self.register_buffer("alphas_cumprod", alphas_cumprod.float())
        return self

    def forward(
        self, sample: Tensor, timestep: Any, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> UNet2DOutput | tuple[Tensor]:
        """E[x_0 | x_t] of samples (n, channels, height, width); `timestep` a number, or one for each."""
        t = torch.as_tensor(timestep, device=sample.device).long().expand(len(sample))
        bar = self.alphas_cumprod[t].view(-1, 1).to(sample)
        noise = 1 - bar
        x = sample.flatten(1) - bar.sqrt() * self.mean
        rest = self.rest / (bar * self.rest + noise)
        gain = self.variances / (bar * self.variances + noise) - rest
        estimate = self.mean + bar.sqrt() * (rest * x + ((x @ self.basis) * gain) @ self.basis.T)
        found = estimate.view_as(sample)
        return UNet2DOutput(sample=found) if return_dict else (found,)


def gaussian_schedule(schedule: BetaScheduler) -> BetaScheduler:
    """The same noise schedule for a network that predicts x_0."""
    made = type(schedule).from_config({**schedule.config, "prediction_type": "sample", "variance_type": "fixed_small"})
    assert isinstance(made, BetaScheduler)
    return made
