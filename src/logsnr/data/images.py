"""Images as examples: opened, fitted to one size, in [-1, 1], under their class."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from logsnr.base.errors import DataError
from logsnr.base.words import listed
from logsnr.data.kept_pixels import Reading
from logsnr.data.pixels import Pixels
from logsnr.data.scan import FittedImages, scan
from logsnr.data.seeded import Example, SeededData
from logsnr.data.source import Labels, OpenedSource
from logsnr.data.sources import open_source
from logsnr.settings.image import DataConfig
from logsnr.settings.picture import COLOURS, PictureConfig


@dataclass(frozen=True, eq=False)
class ImageExamples:
    """The readable images of a source: float32 in [-1, 1], (channels, height, width), under `class_labels`, an int."""

    noun: ClassVar[str] = "image"

    images: FittedImages
    reading: Reading
    horizontal_flip: bool
    """Whether a seed mirrors half of them."""
    class_names: list[str] | None
    """Names of the classes; None without labels, and where all images are of one class: nothing to condition on."""
    labels: NDArray[np.int64] | None
    """The class of each image, (images,); None without classes."""
    notes: list[str]
    """Sentences about what the source has beside them."""

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        return self.images.shape

    @property
    def channels(self) -> int:
        """1 gray, 3 RGB, 4 RGBA."""
        return self.images.channels

    @property
    def resolution(self) -> int:
        """Height and width."""
        return self.images.resolution

    @property
    def in_memory(self) -> bool:
        """Whether they needn't be read and decoded in each epoch."""
        return self.reading.pixels is not None

    @functools.cached_property
    def bits(self) -> Literal[8, 16]:
        """Depth of the images. In a set of both depths 8-bit values are multiplied by 257: 255 becomes 65535."""
        return 16 if (self.reading.depths == 2).any() else 8

    @property
    def deep_image(self) -> str | None:
        """In a set of both depths, the first image of 16 bits."""
        depths = self.reading.depths
        return self.reading.names[int((depths == 2).argmax())] if (depths == 1).any() and self.bits == 16 else None

    @property
    def num_enlarged(self) -> int:
        """Images whose short side was shorter than `resolution`."""
        return int(self.reading.enlarged.sum())

    @property
    def skipped(self) -> list[str]:
        """Files left out because they can't be read, each with the reason."""
        return self.reading.reasons

    @property
    def complaints(self) -> list[str]:
        """A line for each file left out, and the remarks."""
        return [*(f"skipped {name}" for name in self.skipped), *self.remarks]

    @property
    def remarks(self) -> list[str]:
        """A line for each kind of thing that isn't used or looks wrong."""
        paged = np.flatnonzero(self.reading.several).tolist()
        first = (
            [f"of {_count(len(paged), 'file')} with several pages or frames the first is used: {listed(names)}"]
            if (names := [self.reading.names[index] for index in paged])
            else []
        )
        return [*first, *self._darkness, *self.notes]

    @property
    def _darkness(self) -> list[str]:
        """A word where the top bits are used by no image, as of a camera of 12 bits or a map of labels."""
        peak = int(self.reading.peaks.astype(np.int64)[self.reading.depths == self.bits // 8].max())
        most = (1 << self.bits) - 1
        if peak > most // 4:
            return []
        return [
            f"the images are all but black: no value is above {peak:,}, and white is {most:,}. Multiply the values by "
            f"{most // max(peak, 1)} before training, unless they are meant so"
        ]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all pixels (after resizing) and labels, hexadecimal: changes if and only if the data do."""
        content = hashlib.blake2b(self.reading.digest, digest_size=16)
        content.update(repr((self.class_names, self.channels, self.resolution)).encode())
        content.update(b"" if self.labels is None else self.labels.astype("<i8").tobytes())
        return content.hexdigest()

    @property
    def summary(self) -> str:
        """Size, kind, depth and classes, and what was enlarged or left out."""
        return self.described("no classes" if self.class_names is None else f"{len(self.class_names)} classes")

    def described(self, condition: str) -> str:
        """The summary, with these words for what they are conditioned on."""
        kind = COLOURS[self.channels]
        since = f" (since {self.deep_image} is)" if self.deep_image else ""
        enlarged = f"; {_count(self.num_enlarged, 'smaller image')} enlarged" if self.num_enlarged else ""
        skipped = f"; {_count(len(self.skipped), 'unreadable file')} skipped" if self.skipped else ""
        return (
            f"{self.resolution}x{self.resolution}, {kind}, {self.bits} bit{since}, {condition}"
            f"{'' if self.in_memory else ', read from disk in every epoch'}{enlarged}{skipped}"
        )

    def read(self, index: int, seed: int | None) -> Example:
        """The image at `index`, mirrored if that is wanted and the last bit of `seed` says so."""
        place = int(self.places[index])
        kept = self.reading.image(place) if self.in_memory else self.images.read(place)
        assert not isinstance(kept, str)
        pixels = _deepened(kept) if self.bits == 16 else kept
        pixels = pixels.reshape(self.shape)
        if self.horizontal_flip and seed is not None and seed & 1:
            pixels = pixels[..., ::-1]
        clean = pixels.astype(np.float32)
        clean /= np.float32(((1 << self.bits) - 1) / 2)  # x / 255 * 2 - 1, to the bit
        clean -= 1
        return Example(clean, self.condition(index))

    def condition(self, index: int) -> Mapping[str, Any]:
        """The image's class, where there are classes."""
        return {} if self.labels is None else {"class_labels": int(self.labels[index])}

    @functools.cached_property
    def places(self) -> NDArray[np.int64]:
        """Where in the source each image is that could be read."""
        return np.flatnonzero(self.reading.depths)


ImageData: TypeAlias = SeededData[ImageExamples]
"""Images, split into training and held-out ones."""


def open_images(config: DataConfig, labelled: bool = True) -> ImageData:
    """Finds, reads and checks the whole set, with a progress bar on stderr if that takes over two seconds.

    Every image that isn't in the cache already (see `logsnr.data.scan`) is decoded once here, in `config.num_workers`
    processes (0: in this one), so that a damaged file stops the run before it has begun. Raises `DataError` for
    anything in the data that can't be used as asked.
    """
    examples = read_source(open_source(config, labelled), config)
    workers = 0 if examples.in_memory else config.num_workers
    return SeededData(examples, config.held_out_fraction, workers, classes=examples.labels)


def read_source(source: OpenedSource, config: PictureConfig) -> ImageExamples:
    """Reads and checks all images of an opened source. Raises `DataError` where they can't be used as asked."""
    if len(source.images) < 2:
        raise DataError(
            f"{config.source} has {_count(len(source.images), 'image')}, and at least 2 are needed: one to "
            "train on and one to hold out."
        )
    images = FittedImages(source.images, config.resolution, config.channels)
    reading = scan(images, config.num_workers)
    _require_readable(reading, config)
    names, labels = _classes(source.labels, reading)
    notes = [*source.notes, *_empty_classes(source.labels, names)]
    return ImageExamples(images, reading, config.horizontal_flip, names, labels, notes)


def class_counts(data: ImageData) -> list[int] | None:
    """Training images of each class; None without classes."""
    names = data.examples.class_names
    if names is None:
        return None
    counts = Counter(condition["class_labels"] for condition in data.conditions("train"))
    return [counts[label] for label in range(len(names))]


def _require_readable(reading: Reading, config: PictureConfig) -> None:
    unreadable, count = reading.reasons, len(reading.names)
    if unreadable and not config.skip_unreadable:
        raise DataError(
            f"{len(unreadable)} of {_count(count, 'image')} can't be read: "
            f"{listed(unreadable)}. "
            "Repair or remove them, or pass --data.skip-unreadable to go on without them."
        )
    if count - len(unreadable) < 2:
        raise DataError(
            f"{config.source} has {_count(count - len(unreadable), 'readable image')}, and at least 2 are needed. "
            f"Can't be read: {listed(unreadable)}."
        )


def _classes(labels: Labels | None, reading: Reading) -> tuple[list[str] | None, NDArray[np.int64] | None]:
    """Names of the classes that have readable images, and these images' labels; None if there are none, or only one."""
    if labels is None:
        return None, None
    present, values = np.unique(labels.values[reading.depths > 0], return_inverse=True)
    return ([labels.names[k] for k in present], values) if len(present) > 1 else (None, None)


def _empty_classes(labels: Labels | None, names: list[str] | None) -> list[str]:
    if labels is None or names is None or len(names) == len(labels.names):
        return []
    empty = [name for name in labels.names if name not in names]
    return [f"{_count(len(empty), 'class', 'classes')} without a readable image left out: {listed(empty)}"]


def _deepened(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
