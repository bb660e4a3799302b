"""What was read of a set of images, and the file that keeps it in the cache.

One file a set and size: the pixels of all readable images one after the other, each in its own depth; then the
manifest, which says for each image what it was read from; then how long that is. Since it is one file, made beside and
renamed, pixels and manifest belong together whoever else opens, writes or deletes it, and pixels that are mapped into
memory stay what they are. It is never changed: where an image has, a new file takes its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import mmap
import os
import struct
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

_END = struct.Struct("<q8s")
"""Bytes of the manifest, and what the file is."""
_KIND = b"logsnr-2"
_ABANDONED = 24 * 3600
"""Seconds after which an unfinished file is what a process left that was killed."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What one reading of n images found, in the order of the source."""

    names: list[str]
    stamps: NDArray[np.int64]
    """(n, 2), as in `logsnr.data.sources.Origin`."""
    contents: NDArray[np.uint8]
    """(n, 16): a hash of the image as it is stored; 0 where that couldn't be read."""
    depths: NDArray[np.uint8]
    """(n,): bytes a value; 0 where there is no image."""
    enlarged: NDArray[np.bool_]
    """(n,): whether the image was smaller than it is now."""
    peaks: NDArray[np.uint16]
    """(n,): the largest value of the image."""
    several: NDArray[np.bool_]
    """(n,): whether its file has further pages or frames, which aren't used."""
    reasons: list[str]
    """Why the images of depth 0 can't be read, a line each."""
    digest: bytes
    """Hash of all pixels."""
    time: int
    """When the reading began, in nanoseconds."""
    size: int
    """Values of one image."""
    pixels: NDArray[np.uint8] | None
    """The values of all readable images as bytes, one image after the other; None if they are too many to be kept."""

    def __getstate__(self) -> dict[str, Any]:
        # What goes to another process goes without its pixels: it reads them from the source.
        return {**self.__dict__, "pixels": None}

    def image(self, index: int) -> NDArray[Any] | str:
        """The values of that image, uint8 or uint16 in a row, or why it can't be read; only where pixels are kept."""
        assert self.pixels is not None
        if self.depths[index] == 0:
            return self.reasons[int(np.count_nonzero(self.depths[:index] == 0))]
        values = self.pixels[self._offsets[index] : self._offsets[index + 1]]
        return values.view(np.uint16) if self.depths[index] == 2 else values

    @functools.cached_property
    def _offsets(self) -> NDArray[np.int64]:
        """(n + 1,): where the bytes of each image begin, and the last one ends."""
        return np.concatenate([[0], np.cumsum(self.depths.astype(np.int64) * self.size)])


class Store(Protocol):
    """Takes pixels in, image by image, as long as they are no more than a limit."""

    def add(self, pixels: bytes) -> None: ...

    def finish(self, reading: Reading) -> Reading:
        """The reading with its pixels, if these aren't too many."""
        ...


class Memory:
    """Pixels kept by this process alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: bytearray | None = bytearray()

    def add(self, pixels: bytes) -> None:
        """As in `Store`."""
        if self._kept is not None and len(self._kept) + len(pixels) <= self._limit:
            self._kept += pixels
        else:
            self._kept = None

    def finish(self, reading: Reading) -> Reading:
        """As in `Store`."""
        pixels = None if self._kept is None else np.frombuffer(self._kept, np.uint8)
        return dataclasses.replace(reading, pixels=pixels)


class CacheFile:
    """Pixels kept in a file, for every process that opens the set. Made by `cache_file`."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._limit = file, limit
        self._length: int | None = 0

    def add(self, pixels: bytes) -> None:
        """As in `Store`; raises `OSError`."""
        if self._length is None:
            return
        self._length += len(pixels)
        if self._length <= self._limit:
            self._file.write(pixels)
        else:
            self._length = None
            self._file.seek(0)
            self._file.truncate()

    def finish(self, reading: Reading) -> Reading:
        """As in `Store`; raises `OSError`."""
        manifest = _packed(reading, self._length)
        self._file.write(manifest + _END.pack(len(manifest), _KIND))
        self._file.flush()
        os.fsync(self._file.fileno())
        return dataclasses.replace(reading, pixels=_mapped(self._file, self._length))


@contextlib.contextmanager
def cache_file(path: Path, limit: int) -> Iterator[CacheFile]:
    """A store whose file takes the place of the one at `path` at the end of the block. Raises `OSError`.

    If the block fails, the file at `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob("*.partial"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < time.time() - _ABANDONED:
                left.unlink()
    descriptor, name = tempfile.mkstemp(".partial", f"{path.name}.", path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield CacheFile(file, limit)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def kept(path: Path) -> Reading | None:
    """The reading in the file at `path`, its pixels mapped into memory; None if there is none, or it is damaged."""
    try:
        with path.open("rb") as file:
            file.seek(-_END.size, os.SEEK_END)
            length, kind = _END.unpack(file.read())
            if kind != _KIND:
                return None
            file.seek(-_END.size - length, os.SEEK_END)
            reading, pixels = _unpacked(file.read(length))
            if pixels is not None and pixels + length + _END.size != path.stat().st_size:
                return None
            return dataclasses.replace(reading, pixels=_mapped(file, pixels))
    except (OSError, ValueError, KeyError, EOFError, struct.error, zipfile.BadZipFile):  # none, not ours, or damaged
        return None


def _mapped(file: BinaryIO, length: int | None) -> NDArray[np.uint8] | None:
    """The first bytes of a file, which stay readable when it is deleted or replaced."""
    if not length:
        return None if length is None else np.empty(0, np.uint8)
    return np.frombuffer(mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ), np.uint8)


def _packed(reading: Reading, length: int | None) -> bytes:
    """Everything but the pixels, of which there are `length` bytes."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        names=_joined(reading.names),
        stamps=reading.stamps,
        contents=reading.contents,
        depths=reading.depths,
        enlarged=reading.enlarged,
        peaks=reading.peaks,
        several=reading.several,
        reasons=_joined(reading.reasons),
        digest=np.frombuffer(reading.digest, np.uint8),
        numbers=np.array([reading.time, reading.size, -1 if length is None else length], np.int64),
    )
    return buffer.getvalue()


def _unpacked(manifest: bytes) -> tuple[Reading, int | None]:
    with np.load(io.BytesIO(manifest), allow_pickle=False) as found:
        moment, size, length = found["numbers"].tolist()
        reading = Reading(
            names=_parted(found["names"]),
            stamps=found["stamps"],
            contents=found["contents"],
            depths=found["depths"],
            enlarged=found["enlarged"],
            peaks=found["peaks"],
            several=found["several"],
            reasons=_parted(found["reasons"]),
            digest=found["digest"].tobytes(),
            time=moment,
            size=size,
            pixels=None,
        )
    return reading, None if length < 0 else length


def _joined(texts: list[str]) -> NDArray[np.uint8]:
    # names of files may hold anything but a zero, bytes that aren't UTF-8 included
    return np.frombuffer("".join(f"{text}\0" for text in texts).encode(errors="surrogateescape"), np.uint8)


def _parted(joined: NDArray[np.uint8]) -> list[str]:
    return joined.tobytes().decode(errors="surrogateescape").split("\0")[:-1]
