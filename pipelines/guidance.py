"""Guidance: from a network's output and a weaker one to the output that a sampler steps with.

    ε = ε_weak + w (ε − ε_weak)

The weaker output is that of the null condition (classifier-free guidance, Ho & Salimans 2022, arXiv 2207.12598, eq. 6;
their w is ours minus 1), or that of a weaker model, an earlier or a smaller one (autoguidance, Karras et al. 2024,
arXiv 2406.02507, section 4), which serves a model without conditions too. w = 1 is the network's own output, and w = 0
the weaker one. For given x_t, the targets ε, v, x_0 and x_0 − ε are affine functions of each other, and an affine map
commutes with this combination (its two weights sum to 1): the same line serves all four.

A guider of diffusers mixes the two in its own way: in a part of the steps (`start`, `stop`; Kynkäänniemi et al. 2024,
arXiv 2404.07724), rescaled (Lin et al. 2023, arXiv 2305.08891, section 3.4), or without what is parallel to the output
(`AdaptiveProjectedGuidance`, Sadat et al. 2024, arXiv 2410.02416).

This file stands alone: it is copied beside the pipelines that use it.
"""

from __future__ import annotations

import math
from typing import Any

import torch

Keywords = dict[str, torch.Tensor]


class Guidance:
    """What a network is told, and what its output is led away from.

    condition: keyword of the unet -> one row an image.
    weak: the same for the weaker output; None where there is none, and nothing leads.
    guide: the unet of a weaker model; None where the weaker output is the unet's own, under `weak`.
    guider: of diffusers; None for the line above.
    """

    def __init__(
        self, condition: Keywords, weak: Keywords | None = None, guide: Any = None, guider: Any = None
    ) -> None:
        self.condition, self.weak, self.guide, self.guider = condition, weak, guide, guider

    def output(self, unet: Any, x: torch.Tensor, t: torch.Tensor, scale: float, step: int, steps: int) -> torch.Tensor:
        """The guided output for x (batch, channels, ...) at timestep t, which is evaluation `step` of `steps`.

        scale: w, where there is no guider. The variance, where the unet says one, is the network's own, unguided.
        """
        strong, weak = self._needed(scale, t, step, steps)
        if not weak:
            return _output(unet, x, t, self.condition)
        assert self.weak is not None
        if not strong:
            return _output(self.guide or unet, x, t, self.weak)
        if self.guide is None:  # in one batch
            both = {name: torch.cat([self.weak[name], rows]) for name, rows in self.condition.items()}
            null, own = _output(unet, torch.cat([x, x]), t, both).chunk(2)
        else:
            null, own = _output(self.guide, x, t, self.weak), _output(unet, x, t, self.condition)
        channels = x.shape[1]
        mixed = own.clone()
        mixed[:, :channels] = self._mixed(own[:, :channels], null[:, :channels], scale)
        return mixed

    def _needed(self, scale: float, t: torch.Tensor, step: int, steps: int) -> tuple[bool, bool]:
        """Whether the network's own output is needed, and whether the weaker one is."""
        if self.weak is None:
            return True, False
        if self.guider is None:
            return scale != 0, scale != 1
        self.guider.set_state(step=step, num_inference_steps=steps, timestep=t)
        self.guider.prepare_inputs({})  # of nothing: some begin to remember in it
        return True, self.guider.num_conditions > 1

    def _mixed(self, own: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
        if self.guider is None:
            return null + scale * (own - null)
        return torch.as_tensor(self.guider.forward(own, null).pred)


def _output(unet: Any, x: torch.Tensor, t: torch.Tensor, condition: Keywords) -> torch.Tensor:
    return torch.as_tensor(unet(x.to(unet.dtype), t, **condition).sample.to(x.dtype))


def require_guidance(pipeline: Any, guidance_scale: float, guider: Any, guide: Any) -> str:
    """What of a call asks for guidance, empty where nothing does. Raises `ValueError` for what can't guide."""
    if not math.isfinite(guidance_scale):
        raise ValueError(f"guidance_scale must be finite, and is {guidance_scale}.")
    if guide is not None:
        _require_guide(pipeline, guide)
    if guider is not None:
        _require_guider(guider, guidance_scale)
        return f"guider {type(guider).__name__}"
    if guide is not None and guidance_scale == 1:
        raise ValueError("guide has no weight at guidance_scale 1. Use a larger one, such as 2.")
    return "" if guidance_scale in (0, 1) else f"guidance_scale {guidance_scale}"


def _require_guider(guider: Any, guidance_scale: float) -> None:
    """Raise `ValueError` for a guider that needs more than two outputs, or beside a `guidance_scale`."""
    from diffusers.guiders.guider_utils import BaseGuidance  # which older versions haven't: only who has one comes here

    if not isinstance(guider, BaseGuidance):
        raise ValueError(f"guider must be one of diffusers.guiders, such as ClassifierFreeGuidance(), and is {guider}.")
    name = type(guider).__name__
    hooked = type(guider).prepare_models is not BaseGuidance.prepare_models
    if hooked or type(guider)._input_predictions != ["pred_cond", "pred_uncond"]:
        raise ValueError(
            f"guider must make do with two outputs, as ClassifierFreeGuidance and AdaptiveProjectedGuidance do, and "
            f"{name} changes the network from within. A weaker model that leads is guide."
        )
    if guidance_scale != 1:
        raise ValueError(f"guider has a guidance_scale of its own, and another, {guidance_scale}, is given. Leave it.")


def _require_guide(pipeline: Any, guide: Any) -> None:
    """Raise `ValueError` for what can't lead the model of `pipeline`: it must be a model of the same kind of images and
    the same process, with the same target."""
    kind = type(pipeline).__name__
    if type(guide).__name__ != kind:
        raise ValueError(f"guide must be a {kind}, of a weaker model of the same data, and is {type(guide).__name__}.")
    for name in ("in_channels", "sample_size", "num_class_embeds"):
        own, other = pipeline.unet.config[name], guide.unet.config[name]
        if own != other:
            raise ValueError(f"guide must have unet.config.{name} {own}, as the model has, and has {other}.")
    own, other = (each.scheduler.config["prediction_type"] for each in (pipeline, guide))
    if own != other:
        raise ValueError(f"guide must predict {own}, as the model does, and predicts {other}.")
    own, other = (each.scheduler.alphas_cumprod.cpu() for each in (pipeline, guide))
    if own.shape != other.shape or not torch.allclose(own, other, atol=1e-6):
        raise ValueError("guide must be a model of the same noise schedule, and its alphas_cumprod are others.")
    if pipeline.unet.device != guide.unet.device:
        raise ValueError(f"guide must be on {pipeline.unet.device}, as the model is, and is on {guide.unet.device}.")
