"""The settings of pictures with captions: where both come from, and the network that draws what is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from logsnr.base.errors import ConfigError
from logsnr.settings.kind import Kind
from logsnr.settings.picture import PictureConfig, require_fit, require_levels
from logsnr.settings.rules import require


@dataclass(frozen=True)
class CaptionedDataConfig(PictureConfig):
    """Where the images and their captions come from and what becomes of them."""

    source: str
    """A folder of images, a folder made by datasets' `save_to_disk`, or a data set id on the Hub."""
    captions: Literal["found", "files", "names"] = "found"
    """`found`: a column of `metadata.csv`, `metadata.jsonl` or the table; in a folder without such a list, the `.txt`
    beside each image. `files`: that `.txt`. `names`: the file's name; `red_fox-02.png` is "red fox"."""
    caption_column: str | None = None
    """Name of the column of captions; the only one called text, caption, captions or prompt when not given."""
    group_column: str | None = None
    """Name of the column that says what belongs together (one patient, one object): a group is held out or trained on
    as a whole. When not given, images with the same first caption belong together."""

    def __post_init__(self) -> None:
        require(bool(self.source), "data.source", "a folder or a data set id", self.source)
        super().__post_init__()
        require(self.captions in ("found", "files", "names"), "data.captions", "found, files or names", self.captions)
        if self.caption_column is not None and self.captions != "found":
            raise ConfigError(
                f"data.caption_column is {self.caption_column}, and with data.captions {self.captions} no column is "
                "read for captions. Leave one of the two out."
            )


@dataclass(frozen=True)
class PromptedModelConfig:
    """The U-Net: a stock `UNet2DConditionModel`, with cross-attention to the caption."""

    block_out_channels: tuple[int, ...] = (64, 128, 192)
    """Channels of each level; each level after the first halves the resolution."""
    layers_per_block: int = 1
    """ResNet blocks a level."""
    attention_levels: tuple[int, ...] = (1, 2)
    """Levels that attend to the picture and to the caption, 0 being full resolution. The middle always does."""
    attention_head_dim: int = 32
    """Channels of one attention head; must divide the channels of each level with attention."""
    cross_attention_dim: int = 128
    """Length of a caption's states as attention sees them."""
    norm_num_groups: int = 8
    """Groups of each GroupNorm; must divide every entry of block_out_channels."""
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    """How the timestep enters a block: added, or as scale and shift."""
    dropout: float = 0.0
    """Dropout in the ResNet blocks; 0.1 helps small data sets."""
    init_from: Annotated[str | None, tyro.conf.arg(aliases=["--init-from"])] = None
    """Start from the network of this model folder or Hub repo (its architecture and text encoder are taken over)."""

    def __post_init__(self) -> None:
        require_levels(self)
        require(self.attention_head_dim >= 1, "model.attention_head_dim", "at least 1", self.attention_head_dim)
        attending = {*self.attention_levels, len(self.block_out_channels) - 1}  # the middle has the last level's
        channels = [self.block_out_channels[level] for level in sorted(attending)]
        if bad := [c for c in channels if c % self.attention_head_dim]:
            raise ConfigError(
                f"model.attention_head_dim must divide the channels of every level with attention, and "
                f"{self.attention_head_dim} doesn't divide {bad[0]}."
            )
        require(self.cross_attention_dim >= 1, "model.cross_attention_dim", "at least 1", self.cross_attention_dim)


TEXT_TO_IMAGE = Kind(
    name="text-to-image",
    data=CaptionedDataConfig,
    model=PromptedModelConfig,
    parts="logsnr.tasks.text_to_image:TEXT_TO_IMAGES",
    pipelines=("TextToImagePipeline", "IFPipeline"),
    placeholders={
        "data.source": "path/to/captioned/images",
        "condition.text_encoder": "path/to/text/encoder",
        "model.init_from": "path/to/model",
    },
    captioned=True,
    bundled=frozenset({"minilm", "scratch"}),
    check=require_fit,
)
