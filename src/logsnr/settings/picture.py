"""What the settings of every kind of pictures share: where they come from, what becomes of them, and what a U-Net for
them must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from logsnr.base.errors import ConfigError
from logsnr.settings.rules import require

COLOURS = {1: "gray", 3: "RGB", 4: "RGBA"}
"""By the number of channels."""


@dataclass(frozen=True)
class PictureConfig:
    """Where pictures come from and what becomes of them. Each kind says what a `source` may be."""

    source: str
    """Where the images are."""
    resolution: int = 32
    """Height and width in pixels; images are resized on the short side, then cropped at the center."""
    channels: Literal[1, 3, 4] = 3
    """1 gray, 3 RGB, 4 RGBA. With 1 or 3 an alpha channel is laid over white."""
    image_column: str | None = None
    """Name of the image column; found by its type when not given."""
    horizontal_flip: bool = False
    """Mirror half of the images at random. Not for text, digits or anything with a handedness."""
    held_out_fraction: float = 0.05
    """Share of the images kept from training, for the held-out loss: half of them at most. Chosen by a fixed
    seed."""
    skip_unreadable: bool = False
    """Go on without files that can't be read, and list them; otherwise they stop the run."""
    num_workers: int = 0
    """Processes that decode images: what has changed when the set is opened, and, of a set too large to be kept in the
    cache (4 GiB), all of it in each epoch."""

    def __post_init__(self) -> None:
        require(self.resolution >= 4, "data.resolution", "at least 4", self.resolution)
        fraction = self.held_out_fraction
        require(0 <= fraction <= 0.5, "data.held_out_fraction", "in [0, 0.5], as most are for training", fraction)
        require(self.num_workers >= 0, "data.num_workers", "0 or more", self.num_workers)


def require_levels(model: Any) -> None:
    """Raise ConfigError where the settings of a U-Net contradict one another."""
    levels = len(model.block_out_channels)
    require(levels >= 1, "model.block_out_channels", "at least one level", model.block_out_channels)
    require(model.norm_num_groups >= 1, "model.norm_num_groups", "at least 1", model.norm_num_groups)
    if bad := [c for c in model.block_out_channels if c % model.norm_num_groups]:
        raise ConfigError(
            f"model.norm_num_groups must divide every entry of model.block_out_channels, and "
            f"{model.norm_num_groups} doesn't divide {bad[0]}."
        )
    within = all(0 <= level < levels for level in model.attention_levels)
    rule = f"among 0..{levels - 1}, the levels of block_out_channels"
    require(within, "model.attention_levels", rule, model.attention_levels)
    require(model.layers_per_block >= 1, "model.layers_per_block", "at least 1", model.layers_per_block)
    require(0 <= model.dropout < 1, "model.dropout", "in [0, 1)", model.dropout)


def require_fit(data: PictureConfig, model: Any) -> None:
    """Raise ConfigError where the U-Net can't take pictures of this size. (That of `init_from` isn't known here.)"""
    levels = len(model.block_out_channels)
    divisor, resolution = 2 ** (levels - 1), data.resolution
    if model.init_from is None and resolution % divisor:
        below, above = resolution // divisor * divisor, -(-resolution // divisor) * divisor
        nearest = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(
            f"data.resolution must be a multiple of {divisor} for the {levels} levels of model.block_out_channels, and "
            f"is {resolution}. Use {nearest}, or fewer levels."
        )
