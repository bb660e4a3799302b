"""What the settings of every kind of pictures share: where they come from, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from logsnr.settings.rules import require


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
