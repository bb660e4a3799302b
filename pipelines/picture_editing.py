"""Editing: a picture that is given, changed as a whole (`strength`) or where a mask is white (`mask_image`).

As a whole (SDEdit, Meng et al. 2021, arXiv 2108.01073): noise is added to the picture up to a level of the chain, and
the steps from there on are run. What is larger than the noise is kept, the rest is drawn anew.

Where a mask is white: the network is shown what is known as it is, without noise, beside the rest of x_t. It has never
seen that in training, and yet completes it better than with the noise of the step on what is known (Song et al. 2021,
arXiv 2011.13456, appendix I.2), which hides it in the first steps, where most is decided: benchmarks/editing.md.
`IFInpaintingPipeline` shows it so too, but for solvers that scale their samples, as Euler's do: there it shows less.
At strength 1 it begins with sqrt(ᾱ_T) x_0 and noise, so that a trace of what is hidden shines through; here with noise
alone. Otherwise the two do the same operations in the same order.

This file stands alone: it is copied beside the pipelines that use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

USUAL_STRENGTH = 0.7
"""Without a mask, as in `IFImg2ImgPipeline`; with one it is 1, as in `IFInpaintingPipeline`."""
_PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # as in pixel_sampling.py


@dataclass(frozen=True)
class Edit:
    """What is changed, and how far.

    picture: (n, channels, height, width) in [-1, 1].
    mask: (n, 1, height, width), true where it is drawn anew; None is everywhere.
    strength: in (0, 1], the share of the steps that are run; 1 begins from noise alone.
    """

    picture: torch.Tensor
    mask: torch.Tensor | None
    strength: float

    @property
    def count(self) -> int:
        """Of the images that are asked for by as many pictures or masks."""
        return max(len(self.picture), 1 if self.mask is None else len(self.mask))

    def rows(self, batch: int, device: torch.device, dtype: torch.dtype) -> Self:
        """One picture and one mask for each of the images."""
        for name, given in (("image", self.picture), ("mask_image", self.mask)):
            if given is not None and len(given) not in (1, batch):
                raise ValueError(f"{name} must be one, or one for each of {batch} images; there are {len(given)}.")
        mask = None if self.mask is None else self.mask.to(device).expand(batch, -1, -1, -1)
        return replace(self, picture=self.picture.to(device, dtype).expand(batch, -1, -1, -1), mask=mask)

    def begin(self, scheduler: Any, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The sample to begin with, and the timesteps that are run, of those that the scheduler has set."""
        total = -(-len(scheduler.timesteps) // scheduler.order)  # the last step of a solver of two stages has one
        run = int(total * self.strength)
        if run == total:
            return noise * scheduler.init_noise_sigma, scheduler.timesteps
        if run == 0:
            raise ValueError(
                f"strength must leave one or more of the {total} steps, and is {self.strength}. Use more than "
                f"{1 / total:.2g}, or more steps."
            )
        if not hasattr(scheduler, "add_noise") or hasattr(scheduler, "prk_timesteps"):
            raise ValueError(
                f"strength must be 1 with {type(scheduler).__name__}, which has no add_noise or can't begin in the "
                f"middle, and is {self.strength}. Or swap to another scheduler, such as DPMSolverMultistep."
            )
        first = (total - run) * scheduler.order
        timesteps: torch.Tensor = scheduler.timesteps[first:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        noised: torch.Tensor = scheduler.add_noise(self.picture, noise, timesteps[:1].expand(len(noise)))
        return noised, timesteps

    def show(self, scheduler: Any, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The sample, with what is known such that `scale_model_input` makes the picture of it."""
        if self.mask is None:
            return sample
        scale = scheduler.scale_model_input(torch.ones_like(sample), timestep)
        return torch.where(self.mask, sample, self.picture / scale)

    def finish(self, sample: torch.Tensor) -> torch.Tensor:
        """The last sample, what is known as it was."""
        return sample if self.mask is None else torch.where(self.mask, sample, self.picture)


def read_edit(
    image: Any, mask_image: Any, strength: float | None, channels: int, size: int | Sequence[int] | None
) -> Edit | None:
    """What is asked for by the arguments of a pipeline's call; None where no image is given."""
    if image is None:
        for name, given in (("strength", strength), ("mask_image", mask_image)):
            if given is not None:
                raise ValueError(f"{name} is for a picture that is changed, and there is no image. Give one.")
        return None
    if strength is None:
        strength = USUAL_STRENGTH if mask_image is None else 1.0
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be above 0 and at most 1, and is {strength}.")
    if size is None:
        raise ValueError("unet.config.sample_size must be the height and width of the images, and is None.")
    height, width = (size, size) if isinstance(size, int) else size
    shape = (channels, height, width)
    picture = read_pictures("image", image, shape)
    mask = None if mask_image is None else read_pictures("mask_image", mask_image, (1, height, width)) >= 0.5
    if mask is not None and not bool(mask.flatten(1).any(1).all()):
        raise ValueError("mask_image must be white where the picture is to be drawn anew, and is black everywhere.")
    return Edit(2 * picture - 1, mask, float(strength))


def read_pictures(name: str, given: Any, shape: tuple[int, int, int]) -> torch.Tensor:
    """One picture or several, (n, *shape) in [0, 1], float32 or float64: of PIL, NumPy (channels last) or torch."""
    several = list(given) if isinstance(given, list | tuple) else [given]
    if not several:
        raise ValueError(f"{name} must be a picture or a list of pictures, and is an empty list.")
    return torch.cat([_read(name, each, shape) for each in several])


def _read(name: str, given: Any, shape: tuple[int, int, int]) -> torch.Tensor:
    channels, height, width = shape
    if isinstance(given, Image.Image):
        pictures = _of_pil(name, given, _PIL_MODES.get(channels))
    elif isinstance(given, np.ndarray):
        pictures = torch.from_numpy(given)
        pictures = pictures.unsqueeze(-1) if given.ndim == 2 and channels == 1 else pictures
        pictures = pictures.movedim(-1, -3) if pictures.ndim >= 3 else pictures
    elif isinstance(given, torch.Tensor):
        pictures = given.unsqueeze(0) if given.ndim == 2 and channels == 1 else given
    else:
        raise ValueError(f"{name} must be of PIL, NumPy or torch, and is {type(given).__name__}.")
    pictures = pictures.float() if pictures.dtype == torch.bool else pictures
    if not pictures.is_floating_point():
        raise ValueError(f"{name} must hold floats in [0, 1], and holds {pictures.dtype}. Divide it by 255.")
    pictures = pictures.unsqueeze(0) if pictures.ndim == 3 else pictures
    if pictures.ndim != 4 or tuple(pictures.shape[2:]) != (height, width):
        cure = f"Use {name}.resize(({width}, {height}))." if isinstance(given, Image.Image) else "Resize it."
        shown = f"{given.width}×{given.height}" if isinstance(given, Image.Image) else f"of shape {tuple(given.shape)}"
        raise ValueError(f"{name} must be {width}×{height} pixels, as the model's pictures, and is {shown}. {cure}")
    if pictures.shape[1] != channels:
        last = " (last)" if isinstance(given, np.ndarray) else ""
        raise ValueError(f"{name} must have {channels} channels{last}, and has {pictures.shape[1]}.")
    if not bool(((pictures >= 0) & (pictures <= 1)).all()):
        low, high = float(pictures.min()), float(pictures.max())
        raise ValueError(f"{name} must lie in [0, 1], black and white, and lies in [{low:.3g}, {high:.3g}].")
    return pictures


def _of_pil(name: str, given: Image.Image, mode: str | None) -> torch.Tensor:
    """(channels, height, width) of 8 bits. A transparent picture lies on white, as in training, and a mask on black."""
    if mode is None or given.mode[0] in "IF":
        raise ValueError(f"{name} has the mode {given.mode}: give it as floats in [0, 1], NumPy or torch.")
    if given.has_transparency_data and mode != "RGBA":
        rgba = given.convert("RGBA")
        under = "black" if name == "mask_image" else "white"
        given = Image.alpha_composite(Image.new("RGBA", rgba.size, under), rgba)
    array = np.asarray(given.convert(mode), dtype=np.float32) / 255
    return torch.from_numpy(np.atleast_3d(array)).movedim(-1, 0)
