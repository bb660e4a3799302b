"""What a source of images is: images that are read one by one, what says whether they changed, and their labels."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from logsnr.data.pixels import Decoded


class Source(Protocol):
    """Images that can be read one by one, in a fixed order. Can be pickled, for worker processes."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call the image in a message."""
        ...

    def origin(self) -> Origin | None:
        """What would have changed if the images had; None where they are arrays in memory already."""
        ...

    def content(self, index: int) -> bytes:
        """The image as it is stored; raises `OSError` where that can't be read."""
        ...

    def decode(self, content: bytes, index: int) -> Decoded:
        """The image as uint8 or uint16, (height, width, channels); raises what `logsnr.data.pixels.decode` raises."""
        ...


@dataclass(frozen=True, eq=False)
class Origin:
    """Where the images of a source are stored, and when they were."""

    place: str
    """The folder or data set, and the part of it, in words that no other source has."""
    stamps: NDArray[np.int64]
    """(images, 2): of what each image is read from, the number of bytes (or a hash of where they are and how many)
    and the time of the last change in nanoseconds; (-1, -1) where there is no such file."""


def read_image(source: Source, index: int) -> Decoded:
    """The image at `index` as it is stored; raises what `Source.content` and `Source.decode` raise."""
    return source.decode(source.content(index), index)


@dataclass(frozen=True)
class Labels:
    """The class of each image: `values` are int64, (images,), positions in `names`."""

    values: NDArray[np.int64]
    names: list[str]


@dataclass(frozen=True)
class OpenedSource:
    """The images, and their labels where there are any and they are wanted."""

    images: Source
    labels: Labels | None
    notes: list[str] = field(default_factory=list)
    """What the source has beside them, a line for each kind of thing."""


def stamp(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; (-1, -1) where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns
