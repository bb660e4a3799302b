"""A picture file -> values in [0, 1], and back into a file of the same size, depth and format.

What is kept: width and height, 8 or 16 bits, gray or colour, alpha, the colour profile (ICC), the format. JPEG is
written at quality 95 without smaller chroma, WebP lossless where the file was, PNG and TIFF losslessly. Palettes become
RGB, and floats 16 bits, for what is computed fits neither. A picture is turned upright, as its EXIF says, and then
neither EXIF nor texts are written: they may name people and places.

Pillow writes gray pictures of 16 bits alone, so PNG and TIFF of 16 bits are written here.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from logsnr.base.errors import DataError
from logsnr.base.files import replacing_file
from logsnr.base.words import listed, one_line
from logsnr.data.folder import EXTENSIONS, find_images
from logsnr.data.pixels import FORMATS, Pixels, decode

JPEG_QUALITY = 95
_WRITTEN = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
_PROFILES = {b"GRAY": 1, b"RGB ": 3}
"""Colour space in the header of a profile (ICC.1:2022, 7.2.8) -> channels."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What a picture file holds.

    color: float32 (channels, height, width) in [0, 1], 1 channel gray or 3 RGB.
    alpha: float32 (1, height, width) in [0, 1]; None where the file has none.
    format: Pillow's name of it: PNG, JPEG, TIFF, WEBP or BMP.
    bits: 8 or 16.
    profile: its colour profile.
    lossless: whether a WebP is.
    """

    color: Tensor
    alpha: Tensor | None
    format: str
    bits: int
    profile: bytes | None
    lossless: bool

    @property
    def size(self) -> str:
        """Width and height in words: 640x480."""
        return f"{self.color.shape[2]}x{self.color.shape[1]}"


def read_content(path: Path) -> bytes:
    """What a file holds. Raises DataError, with the reason and the cure, where it can't be read."""
    with _reading(path):
        return path.read_bytes()


def read_picture(path: Path) -> Picture:
    """The picture in a file, upright. Raises DataError, with the reason and the cure, where it can't be restored or
    written back."""
    data = read_content(path)
    try:
        decoded = decode(data, path.name)
    except DataError:
        raise
    except Exception as error:  # a damaged file may bring about whatever Pillow raises
        raise DataError(f"{path} can't be read: {one_line(error)}. {_CURE}") from error
    kind, profile = _kind_and_profile(data)
    if kind not in _WRITTEN:
        raise DataError(f"{path} is a {kind}, which holds 256 colours at most. Save it as PNG.")
    if decoded.several:
        raise DataError(f"{path} has several pages or frames. Save the one that you want as a file of its own.")
    values = torch.from_numpy(decoded.pixels.transpose(2, 0, 1).astype(np.float32))
    values /= np.iinfo(decoded.pixels.dtype).max
    has_alpha = len(values) in (2, 4)
    return Picture(
        color=values[:-1] if has_alpha else values,
        alpha=values[-1:] if has_alpha else None,
        format=kind,
        bits=8 * decoded.pixels.dtype.itemsize,
        profile=profile,
        lossless=b"VP8L" in data,
    )


def write_picture(path: Path, color: Tensor, alpha: Tensor | None, like: Picture) -> None:
    """A file of the format, depth and profile of `like`, whose size may be another; it appears whole.

    color: (1 or 3, height, width) in [0, 1]; values outside are clipped.
    alpha: (1, height, width), or None.

    Raises CheckpointError where it can't be written.
    """
    white = (1 << like.bits) - 1
    values = color if alpha is None else torch.cat([color, alpha])
    pixels = (values.detach().float().cpu().clamp(0, 1) * white).round().numpy()
    pixels = pixels.transpose(1, 2, 0).astype(np.uint16 if like.bits == 16 else np.uint8)
    fits = like.profile is not None and _PROFILES.get(like.profile[16:20]) == len(color)
    with replacing_file(path) as temporary:
        temporary.write_bytes(_encoded(pixels, like, like.profile if fits else None))


def read_mask(path: Path) -> Tensor:
    """A mask in a picture file: bool (height, width), True where the picture is known, which is black; white is to be
    repaired. What is brighter than half counts as white, and what is transparent as black. Raises DataError."""
    picture = read_picture(path)
    seen = picture.color.mean(0)
    return (seen if picture.alpha is None else seen * picture.alpha[0]) <= 0.5


def picture_files(inputs: Sequence[Path], record: str) -> dict[str, Path]:
    """The files among `inputs`, and the pictures below the folders among them, at any depth and in order: by the name
    that what is made of each is given, a path within a folder where it lay deeper. A folder below with a file called
    `record` holds results, and is left out.

    Raises DataError where there is none, or two would have one name.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        with _reading(given):
            folder, file = given.is_dir(), given.is_file()
            if folder:
                os.scandir(given).close()
        if folder:
            images = [name for name in find_images(given).images if not _made(given, name, record)]
            if not images:
                raise DataError(f"No pictures in {given}. Files with these endings count: {' '.join(EXTENSIONS)}.")
            named = {name: given / name for name in images}
        elif file:
            named = {given.name: given}
        else:
            raise DataError(f"There is no file or folder {given}.")
        if both := [name for name in named if name in found and not os.path.samefile(found[name], named[name])]:
            raise DataError(
                f"{found[both[0]]} and {named[both[0]]} have one name, and what is made of them would have too: "
                f"{listed(both)}. Give them in two commands, each with an --out of its own."
            )
        found |= named
    return found


_CURE = "Mend it, or give another."


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise DataError where the system refuses to read the file or folder."""
    try:
        yield
    except OSError as error:
        link = isinstance(error, FileNotFoundError) and os.path.islink(path)
        reason = f"it is a link to {path.readlink()}, which isn't there" if link else error.strerror
        raise DataError(f"{path} can't be read: {reason}. {_CURE}") from error


def _made(folder: Path, name: str, record: str) -> bool:
    return any((folder / parent / record).is_file() for parent in PurePath(name).parents if parent.name)


def _kind_and_profile(data: bytes) -> tuple[str, bytes | None]:
    with warnings.catch_warnings():  # of many pixels, which were decoded already
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            return kind, image.info.get("icc_profile") or None


def _encoded(pixels: Pixels, like: Picture, profile: bytes | None) -> bytes:
    if pixels.dtype == np.uint16:
        return _tiff16(pixels, profile) if like.format == "TIFF" else _png16(pixels, profile)
    options: dict[str, Any] = {
        "JPEG": {"quality": JPEG_QUALITY, "subsampling": 0},
        "WEBP": {"quality": JPEG_QUALITY, "lossless": like.lossless, "exact": True},
    }.get(like.format, {})
    if profile is not None and like.format != "BMP":
        options["icc_profile"] = profile
    file = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[..., 0]).save(file, like.format, **options)
    return file.getvalue()


def _png16(pixels: Pixels, profile: bytes | None) -> bytes:
    """A PNG of 16 bits a channel (W3C PNG, third edition, 5 and 11); rows unfiltered but for the difference from the
    row above, which packs pictures well."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = pixels.shape
    raw = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(height, -1)
    above = np.concatenate([np.zeros_like(raw[:1]), raw[:-1]])
    rows = np.concatenate([np.full((height, 1), 2, np.uint8), raw - above], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    color = b"" if profile is None else chunk(b"iCCP", b"profile\0\0" + zlib.compress(profile))
    data = chunk(b"IDAT", zlib.compress(rows.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + color + data + chunk(b"IEND", b"")


def _tiff16(pixels: Pixels, profile: bytes | None) -> bytes:
    """An uncompressed little-endian TIFF of 16 bits a channel in one strip (TIFF 6.0, 2), alpha unassociated."""
    height, width, channels = pixels.shape
    short, long, undefined = 3, 4, 7
    bits = struct.pack(f"<{channels}H", *[16] * channels)
    strip = pixels.astype("<u2").tobytes()
    tags: list[tuple[int, int, int, int | bytes]] = [
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, channels, 16 if channels == 1 else bits if channels > 2 else 16 | 16 << 16),
        (259, short, 1, 1),
        (262, short, 1, 1 if channels < 3 else 2),
        (273, long, 1, strip),
        (277, short, 1, channels),
        (278, long, 1, height),
        (279, long, 1, len(strip)),
    ]
    if channels in (2, 4):
        tags.append((338, short, 1, 2))
    if profile is not None:
        tags.append((34675, undefined, len(profile), profile))
    directory, behind, at = b"", b"", 8 + 2 + 12 * len(tags) + 4
    for number, kind, count, value in tags:
        if isinstance(value, bytes):
            behind += b"\0" * (len(behind) % 2)
            directory += struct.pack("<HHII", number, kind, count, at + len(behind))
            behind += value
        else:
            directory += struct.pack("<HHII", number, kind, count, value)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + struct.pack("<I", 0) + behind
