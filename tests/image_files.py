"""Images made here: noise in files of every kind, and what becomes of it when it is opened."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from logsnr.data.images import ImageData
from logsnr.settings.image import DataConfig

rng = np.random.default_rng(0)


def config(source: Path | str, resolution: int = 8, channels: Any = 3, **more: Any) -> DataConfig:
    return DataConfig(source=str(source), resolution=resolution, channels=channels, **more)


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def save_noise(path: Path, count: int, size: tuple[int, int, int] = (8, 8, 3)) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(noise(*size)).save(path / f"{i:03}.png")


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow can't write."""
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(pixels: np.ndarray, orientation: int = 1, photometric: int = 2) -> bytes:
    """An uncompressed little-endian TIFF of 16 bits a channel."""
    height, width, channels = pixels.shape
    tags: list[tuple[int, int, int, int]] = []
    bits_at = 8 + 2 + 12 * 10 + 4
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, bits_at if channels > 2 else 16),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, bits_at + 2 * channels),
        (274, 3, 1, orientation),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, pixels.nbytes),
    ]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    bits = struct.pack(f"<{channels}H", *[16] * channels)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", 0) + bits + pixels.tobytes()


def all_pixels(data: ImageData, split: Any = "train") -> np.ndarray:
    """The images of a split as whole numbers, (images, height, width, channels)."""
    half = (2**data.examples.bits - 1) / 2
    batches = [np.rint((b.clean.double().numpy() + 1) * half) for b in data.in_order(split, 7)]
    return np.concatenate(batches).astype(int).transpose(0, 2, 3, 1)
