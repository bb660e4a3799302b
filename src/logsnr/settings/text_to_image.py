"""The settings of pictures with captions: where both come from, and the network that draws what is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from logsnr.base.errors import ConfigError
from logsnr.settings.kind import Kind
from logsnr.settings.picture import PictureConfig
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
        levels = len(self.block_out_channels)
        require(levels >= 1, "model.block_out_channels", "at least one level", self.block_out_channels)
        if bad := [c for c in self.block_out_channels if c % self.norm_num_groups]:
            raise ConfigError(
                f"model.norm_num_groups must divide every entry of model.block_out_channels, and "
                f"{self.norm_num_groups} doesn't divide {bad[0]}."
            )
        rule = f"among 0..{levels - 1}, the levels of block_out_channels"
        within = all(0 <= level < levels for level in self.attention_levels)
        require(within, "model.attention_levels", rule, self.attention_levels)
        attending = {*self.attention_levels, levels - 1}  # the middle has the last level's channels
        if bad := [
            self.block_out_channels[k]
            for k in sorted(attending)
            if self.block_out_channels[k] % self.attention_head_dim
        ]:
            raise ConfigError(
                f"model.attention_head_dim must divide the channels of every level with attention, and "
                f"{self.attention_head_dim} doesn't divide {bad[0]}."
            )
        require(self.cross_attention_dim >= 1, "model.cross_attention_dim", "at least 1", self.cross_attention_dim)
        require(self.layers_per_block >= 1, "model.layers_per_block", "at least 1", self.layers_per_block)
        require(0 <= self.dropout < 1, "model.dropout", "in [0, 1)", self.dropout)


def _check(data: CaptionedDataConfig, model: PromptedModelConfig) -> None:
    """Raise ConfigError where the network can't take pictures of this size. (That of `init_from` isn't known here.)"""
    levels = len(model.block_out_channels)
    divisor, resolution = 2 ** (levels - 1), data.resolution
    if model.init_from is None and resolution % divisor:
        below, above = resolution // divisor * divisor, -(-resolution // divisor) * divisor
        nearest = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(
            f"data.resolution must be a multiple of {divisor} for the {levels} levels of model.block_out_channels, and "
            f"is {resolution}. Use {nearest}, or fewer levels."
        )


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
    check=_check,
)
