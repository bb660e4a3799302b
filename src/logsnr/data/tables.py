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
from logsnr.data.source import Labels, Origin, Source, stamp
from logsnr.settings.image import DataConfig
from logsnr.settings.picture import PictureConfig

_WITHOUT_OWNER = {
    *("beans", "cats_vs_dogs", "cifar10", "cifar100", "fashion_mnist", "food101", "imagenet-1k", "mnist", "svhn"),
}
"""Data sets that the Hub knows by names of old, without an owner."""
_SCALAR = re.compile(r"u?int|(large_)?string|bool")


@dataclass(frozen=True)
class _Images:
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


@dataclass(frozen=True)
class Table:
    """A table of the library datasets, before anything is known of labels or captions."""

    source: str
    """As the settings name it."""
    rows: Any
    """datasets.Dataset, all columns."""
    images: Source

    @property
    def described(self) -> str:
        """Its columns, each with the kind of what it holds."""
        return described(self.rows)

    def column(self, name: str) -> list[Any]:
        """The values of a column; images in it aren't decoded."""
        values: list[Any] = self.rows.select_columns([name]).with_format("arrow")[:][name].to_pylist()
        return values


def open_table(config: PictureConfig) -> Table | None:
    """The table that `config.source` names; None where it is a folder that `save_to_disk` didn't make.

    Raises `DataError` where it is neither a folder nor a data set of the Hub, or where the images are unclear.
    """
    path = Path(config.source).expanduser()
    if path.is_dir():
        if is_saved(path):
            return _find_images(saved_table(path), f"table {path.resolve()}", config)
        return None
    if path.exists():
        raise DataError(f"data.source must be a folder, and {config.source} is a file. Unpack it if it is an archive.")
    return _find_images(hub_table(config.source), f"Hub {config.source}", config)


def is_saved(path: Path) -> bool:
    """Whether `save_to_disk` made the folder."""
    return any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def saved_table(path: Path) -> Any:
    """The datasets.Dataset in a folder made by `save_to_disk`; of several splits that called train.

    Raises `DataError`."""
    import datasets

    try:
        table = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets, pyarrow and json each raise their own
        raise DataError(f"{path} can't be read as a folder made by save_to_disk: {one_line(error)}.") from None
    if isinstance(table, datasets.DatasetDict):
        if "train" not in table:
            raise DataError(f"{path} must have a split train; it has {', '.join(table)}. Name one: {path}/<split>.")
        return table["train"]
    return table


def hub_table(source: str) -> Any:
    """The split train of a data set of the Hub, a datasets.Dataset. Raises `DataError` where there is none."""
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
        return datasets.load_dataset(source, split="train")
    except Exception as error:  # the Hub, the network and the files can each fail in many ways
        raise DataError(
            f"data.source is {source}: no folder of that name, and the Hub gave no data set of that id with a split "
            f"train: {one_line(error)} ({type(error).__name__}). Name a folder with --data.source."
        ) from None


def _find_images(rows: Any, place: str, config: PictureConfig) -> Table:
    import datasets

    rows = rows.with_format(None)
    pictures = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    column = config.image_column or (pictures[0] if len(pictures) == 1 else None)
    if column is None:
        raise DataError(
            f"{config.source} has {len(pictures)} image columns, one is needed: name it with --data.image-column. "
            f"Its columns: {described(rows)}."
        )
    if column not in pictures:
        problem = "doesn't hold images" if column in rows.features else "doesn't exist"
        raise DataError(
            f"data.image_column is {column}, which {problem} in {config.source}. Columns: {described(rows)}."
        )
    cells = rows.select_columns([column]).rename_columns({column: "image"} if column != "image" else {})
    images = _Images(f"{place} {column}", cells.cast_column("image", datasets.Image(decode=False)))
    return Table(config.source, rows, images)


def _kinds(rows: Any) -> dict[str, str | None]:
    """Of each column the type of its values; None where they aren't of one plain type."""
    import datasets

    features = rows.features.items()
    return {name: getattr(f, "dtype", None) if isinstance(f, datasets.Value) else None for name, f in features}


def described(rows: Any) -> str:
    """The columns of a datasets.Dataset, each with the kind of what it holds."""
    kinds = _kinds(rows)
    return ", ".join(f"{name} ({kinds[name] or type(feature).__name__})" for name, feature in rows.features.items())


def table_labels(table: Table, config: DataConfig) -> Labels | None:
    """The labels of a table, by the rule of `logsnr.data.sources`. Raises `DataError` where they are unclear."""
    import datasets

    features = table.rows.features
    enumerated = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    column = config.label_column or (enumerated[0] if len(enumerated) == 1 else None)
    if column is None and len(enumerated) > 1:
        raise DataError(
            f"{config.source} has several label columns ({', '.join(enumerated)}): name one with "
            f"--data.label-column, or {WITHOUT_LABELS}."
        )
    if column is not None and column in enumerated:
        values = [None if value == -1 else value for value in table.column(column)]  # -1: unknown
        refuse_nulls(values, column, table.images.name)
        return Labels(np.array(values, np.int64), list(features[column].names))
    kinds = _kinds(table.rows).items()
    scalars = {name: table.column(name) for name, kind in kinds if kind and _SCALAR.match(kind)}
    column = label_column(scalars, config.label_column, f"{config.source} ({table.described})")
    return None if column is None else encode(scalars[column], column, table.images.name)
