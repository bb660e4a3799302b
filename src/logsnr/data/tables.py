"""Images and labels in tables of the library datasets: those of the Hub, and folders made by `save_to_disk`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from logsnr.base.errors import DataError
from logsnr.base.words import one_line
from logsnr.data.labels import WITHOUT_LABELS, encode, label_column, refuse_nulls
from logsnr.data.pixels import Decoded, decode
from logsnr.data.source import Labels, OpenedSource, Origin, stamp
from logsnr.settings.image import DataConfig

_WITHOUT_OWNER = {
    *("beans", "cats_vs_dogs", "cifar10", "cifar100", "fashion_mnist", "food101", "imagenet-1k", "mnist", "svhn"),
}
"""Data sets that the Hub knows by names of old, without an owner."""


@dataclass(frozen=True)
class _Table:
    place: str
    rows: Any
    """datasets.Dataset with the one column `image`, not decoded: {"bytes": ..., "path": ...}."""

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return f"image {index}"

    def origin(self) -> Origin | None:
        """Rows that hold images have the stamp of the table's files, rows that name image files those of the files."""
        import pyarrow.compute

        files = [(file["filename"], *stamp(file["filename"])) for file in self.rows.cache_files]
        if not files:  # a table in memory
            return None
        content = int.from_bytes(hashlib.blake2b(repr(files).encode(), digest_size=7).digest(), "little")
        stamps = np.tile(np.array([[content, max(time for _, _, time in files)]], np.int64), (len(self), 1))
        cells = self.rows.with_format("arrow")[:]["image"]
        named = pyarrow.compute.is_null(pyarrow.compute.struct_field(cells, "bytes"))
        paths = pyarrow.compute.struct_field(cells, "path").filter(named).to_pylist()
        for row, path in zip(np.flatnonzero(named.to_numpy()), paths, strict=True):
            if path is not None:
                stamps[row] = stamp(path)
        return Origin(self.place, stamps)

    def content(self, index: int) -> bytes:
        cell = self.rows[index]["image"]
        if cell is None:
            return b""
        content: bytes = cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
        return content

    def decode(self, content: bytes, index: int) -> Decoded:
        if not content:
            raise ValueError("no image in this row")
        return decode(content, self.name(index))


def open_saved_table(path: Path, config: DataConfig, labelled: bool) -> OpenedSource:
    import datasets

    try:
        table = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets, pyarrow and json each raise their own
        raise DataError(f"{path} can't be read as a folder made by save_to_disk: {one_line(error)}.") from None
    if isinstance(table, datasets.DatasetDict):
        if "train" not in table:
            raise DataError(f"{path} must have a split train; it has {', '.join(table)}. Name one: {path}/<split>.")
        table = table["train"]
    return _open_table(table, f"table {path.resolve()}", config, labelled)


def open_hub(config: DataConfig, labelled: bool) -> OpenedSource:
    source = config.source
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", source) is None:
        raise DataError(
            f"data.source is {source}: no folder of that name, and not a Hub id. Name a folder with --data.source."
        )
    if "/" not in source and source not in _WITHOUT_OWNER:
        raise DataError(
            f"data.source is {source}, and there is no such folder in {Path.cwd()}. Name one that is there with "
            "--data.source FOLDER, or a data set of the Hub, which is called OWNER/NAME."
        )
    import datasets

    try:
        table = datasets.load_dataset(source, split="train")
    except Exception as error:  # the Hub, the network and the files can each fail in many ways
        raise DataError(
            f"data.source is {source}: no folder of that name, and the Hub gave no data set of that id with a split "
            f"train: {one_line(error)} ({type(error).__name__}). Name a folder with --data.source."
        ) from None
    return _open_table(table, f"Hub {source}", config, labelled)


def _open_table(table: Any, place: str, config: DataConfig, labelled: bool) -> OpenedSource:
    import datasets

    table = table.with_format(None)
    features = table.features
    kinds = {name: getattr(f, "dtype", None) if isinstance(f, datasets.Value) else None for name, f in features.items()}
    listing = ", ".join(f"{name} ({kinds[name] or type(feature).__name__})" for name, feature in features.items())

    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    image_column = config.image_column or (pictures[0] if len(pictures) == 1 else None)
    if image_column is None:
        raise DataError(
            f"{config.source} has {len(pictures)} image columns, one is needed: name it with --data.image-column. "
            f"Its columns: {listing}."
        )
    if image_column not in pictures:
        problem = "doesn't hold images" if image_column in features else "doesn't exist"
        raise DataError(f"data.image_column is {image_column}, which {problem} in {config.source}. Columns: {listing}.")
    rows = table.select_columns([image_column]).rename_columns(
        {image_column: "image"} if image_column != "image" else {}
    )
    images = _Table(f"{place} {image_column}", rows.cast_column("image", datasets.Image(decode=False)))
    if not labelled:
        return OpenedSource(images, None)

    enumerated = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    column = config.label_column or (enumerated[0] if len(enumerated) == 1 else None)
    if column is None and len(enumerated) > 1:
        raise DataError(
            f"{config.source} has several label columns ({', '.join(enumerated)}): name one with "
            f"--data.label-column, or {WITHOUT_LABELS}."
        )
    if column is not None and column in enumerated:
        values = [None if value == -1 else value for value in table.select_columns([column])[:][column]]  # -1: unknown
        names = list(features[column].names)
        refuse_nulls(values, column, images)
        return OpenedSource(images, Labels(np.array(values, np.int64), names))
    scalars = [name for name, kind in kinds.items() if kind and re.match(r"u?int|(large_)?string|bool", kind)]
    column = label_column(table.select_columns(scalars)[:] if scalars else {}, config, f"{config.source} ({listing})")
    return OpenedSource(
        images, None if column is None else encode(table.select_columns([column])[:][column], column, images)
    )
