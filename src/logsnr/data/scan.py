"""Reading a whole source of images at their final size: once, and after that what has changed.

What was read is kept in the cache (see `logsnr.data.kept_pixels`), never in the source, and used again as far as it
holds:

- An image holds whose name, size in bytes and time of change are those that were noted. It is not read again.
- Of another, the content is hashed, and it is decoded if that hash isn't the one that was noted.
- One that changed less than two seconds before the reading began, or after, is hashed again too: it may have been
  written once more without its time of change showing it. (So does git with its index; the coarsest file system, FAT,
  counts in steps of two seconds.)
- Files that were read and hold no image are remembered with the reason; one that couldn't be read is tried again.
- Pixels are kept up to `KEPT_LIMIT` bytes a set. Of a larger set only the manifest is: as long as nothing changes it
  isn't read when it is opened, and it is read in each epoch; when something changes all of it is read again.
- Another version of Pillow may decode otherwise, so it begins anew.
- Where the cache can't be written, a warning says so, and the set is held in memory like one that comes as arrays, up
  to `MEMORY_LIMIT` bytes; a larger one is read in each epoch.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from tqdm import tqdm

from logsnr.base.errors import DataError
from logsnr.base.warn import warn_caller
from logsnr.data.kept_pixels import Memory, Reading, Store, cache_file, kept
from logsnr.data.pixels import Pixels, fit
from logsnr.data.source import Origin, Source
from logsnr.data.workers import in_workers
from logsnr.folders.cache import cache_folder

MEMORY_LIMIT = 1 << 30
"""Sets that aren't in the cache and take more bytes than this, resized, are decoded anew in each epoch."""
KEPT_LIMIT = 4 << 30
"""Sets that take more bytes than this, resized, aren't kept in the cache."""

_RECIPE = 2
"""To be changed with anything that changes what becomes of a file, or the form in which it is kept."""
_COARSEST_CLOCK = 2 * 10**9


@dataclass(frozen=True)
class FittedImages:
    """The images of a source at their final size. Can be pickled, for worker processes."""

    source: Source
    resolution: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        return self.channels, self.resolution, self.resolution

    def read(self, index: int) -> Pixels:
        """That image in its own depth, `shape`. Raises `DataError` if it can't be read."""
        found = self(_Wanted(index, None))
        if isinstance(found, DataError):
            raise found
        if isinstance(found.image, str):
            raise DataError(f"An image can't be read any more since this run began: {found.image}.")
        assert found.image is not None
        return found.image

    def __call__(self, wanted: _Wanted) -> _Found | DataError:
        """What there is of an image now; a `DataError`, which ends the reading, comes back as a value."""
        hashed = b""
        try:
            content = self.source.content(wanted.index)
            if wanted.known is not None:
                hashed = hashlib.blake2b(content, digest_size=16).digest()
                if hashed == wanted.known:
                    return _Found(hashed, None)
            pixels, several = self.source.decode(content, wanted.index)
            fitted = fit(pixels, *self.shape[1::-1])
            return _Found(hashed, fitted, min(pixels.shape[:2]) < self.resolution, several, int(pixels.max()))
        except DataError as error:
            return error
        except MemoryError:
            raise
        except (
            Exception
        ) as error:  # damaged files make Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
            return _Found(hashed, f"{self.source.name(wanted.index)} ({str(error) or type(error).__name__})")


@dataclass(frozen=True)
class _Wanted:
    index: int
    known: bytes | None
    """Hash of the content whose pixels are known; b"" if none are, None where no hash is asked for."""


@dataclass(frozen=True, eq=False)
class _Found:
    hashed: bytes
    """Of the content; b"" if it couldn't be read."""
    image: Pixels | str | None
    """The pixels, why there are none, or None where the content is the known one."""
    enlarged: bool = False
    several: bool = False
    """Whether its file has further pages or frames."""
    peak: int = 0
    """The largest value of the whole image, before it was fitted."""


def scan(images: FittedImages, num_workers: int) -> Reading:
    """Reads the whole source, or what has changed since it was read last. Raises `DataError`."""
    began = time.time_ns()
    origin = images.source.origin()
    if origin is None:
        return _read(images, _Present(images, began, None, None), Memory(MEMORY_LIMIT), num_workers)
    path = _path(origin, images)
    before = kept(path)
    present = _Present(images, began, origin, before)
    if before is not None and present.unchanged:
        return before
    least = len(present.names) * int(np.prod(images.shape))
    try:
        with cache_file(path, KEPT_LIMIT if least <= KEPT_LIMIT else 0) as store:
            return _read(images, present, store, num_workers)
    except OSError as error:
        warn_caller(
            f"what was read of the images can't be kept in {path.parent}, and is read again next time: {error}. Make "
            "room or the folder writable, or name another with XDG_CACHE_HOME."
        )
    return _read(images, present, Memory(MEMORY_LIMIT), num_workers)


def _path(origin: Origin, images: FittedImages) -> Path:
    content = repr((_RECIPE, PIL.__version__, origin.place, images.shape))
    return (
        cache_folder() / "images" / hashlib.blake2b(content.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    )


class _Present:
    """The images that there are now, and what an earlier reading, if there was one, says of them."""

    def __init__(self, images: FittedImages, began: int, origin: Origin | None, before: Reading | None) -> None:
        count = len(images.source)
        self.began = began
        self.names = [images.source.name(index) for index in range(count)]
        self.stamps = np.zeros((count, 2), np.int64) if origin is None else origin.stamps
        self.unchanged = False
        """Whether all is as it was, so that nothing needs to be read."""
        self.known = np.zeros(count, bool)
        """(n,): which images needn't be read."""
        self._rows = np.full(count, -1)
        """(n,): the place of each image in the earlier reading; -1 where it has none."""
        self._before = before
        if before is None:
            return
        place = {name: row for row, name in enumerate(before.names)}
        rows = np.array([place.get(name, -1) for name in self.names], np.int64)
        same = (rows >= 0) & (before.stamps[rows] == self.stamps).all(axis=1)
        settled = self.stamps[:, 1] < before.time - _COARSEST_CLOCK
        was_read = before.contents[rows].any(axis=1) | (self.stamps[:, 0] < 0)
        known = same & settled & was_read
        self.unchanged = before.names == self.names and bool(known.all())
        if before.pixels is not None:  # without them there is nothing to go by: the hash of all pixels needs each
            self._rows, self.known = rows, known

    def content(self, index: int) -> bytes:
        """Hash of what the image was read from; b"" if that is unknown."""
        row = self._rows[index]
        return b"" if self._before is None or row < 0 else self._before.contents[row].tobytes()

    def found(self, index: int) -> _Found:
        """What was found in the image."""
        assert self._before is not None
        row = int(self._rows[index])
        before = self._before
        flags = bool(before.enlarged[row]), bool(before.several[row])
        return _Found(self.content(index), before.image(row), *flags, int(before.peaks[row]))


def _read(images: FittedImages, present: _Present, store: Store, num_workers: int) -> Reading:
    """Reads what isn't known, and takes the rest from what is."""
    count = len(present.names)
    contents, depths = np.zeros((count, 16), np.uint8), np.zeros(count, np.uint8)
    enlarged, several, peaks = np.zeros(count, bool), np.zeros(count, bool), np.zeros(count, np.uint16)
    reasons: list[str] = []
    digest = hashlib.blake2b(digest_size=16)
    wanted = (_Wanted(index, present.content(index)) for index in np.flatnonzero(~present.known).tolist())
    shown = tqdm(range(count), "Reading images", leave=False, unit=" images", delay=2)
    # closed at once if anything fails: worker processes that an error keeps alive keep this one from ending
    with contextlib.closing(in_workers(images, wanted, num_workers)) as read:
        for index in shown:
            found = present.found(index) if present.known[index] else next(read)
            if isinstance(found, DataError):
                raise found
            if found.image is None:
                found = present.found(index)
            contents[index] = np.frombuffer(found.hashed or bytes(16), np.uint8)
            if isinstance(found.image, str):
                reasons.append(found.image)
                continue
            assert found.image is not None
            pixels = found.image.tobytes()
            digest.update(found.image.dtype.str.encode() + pixels)
            store.add(pixels)
            depths[index] = found.image.itemsize
            enlarged[index], several[index], peaks[index] = found.enlarged, found.several, found.peak
    size = int(np.prod(images.shape))
    return store.finish(
        Reading(
            present.names,
            present.stamps,
            contents,
            depths,
            enlarged,
            peaks,
            several,
            reasons,
            digest.digest(),
            present.began,
            size,
            pixels=None,
        )
    )
