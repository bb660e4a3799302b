"""The settings of pictures with captions: where both come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from logsnr.base.errors import ConfigError
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
