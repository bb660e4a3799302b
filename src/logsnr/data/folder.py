"""Folders of images, with sub-folders or a list for their classes; see `logsnr.data.sources` for the rules."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from logsnr.base.errors import DataError
from logsnr.base.words import listed
from logsnr.data.labels import WITHOUT_LABELS, encode, in_order, label_column, refuse_columns
from logsnr.data.pixels import Decoded, decode
from logsnr.data.source import Labels, OpenedSource, Origin, stamp
from logsnr.settings.image import DataConfig

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_TRAINING = {"train", "training", "trn", "tr", "imagestr"}
_OTHERS = {
    *("test", "testing", "tst", "ts", "imagests", "val", "valid", "validation", "dev", "eval", "evaluation", "holdout"),
}
"""How parts of a set are called, in small letters without what is no letter."""


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
        stamps = np.array([stamp(os.path.join(root, name)) for name in self.names], np.int64)
        return Origin(f"folder {self.root.resolve()}", stamps)

    def content(self, index: int) -> bytes:
        return (self.root / self.names[index]).read_bytes()

    def decode(self, content: bytes, index: int) -> Decoded:
        return decode(content, self.names[index])


def open_folder(root: Path, config: DataConfig, labelled: bool) -> OpenedSource:
    """The images below `root`. Raises `DataError` where there are none, or it is unclear what they are."""
    if _made_here(root):
        raise DataError(f"{root} is a folder that logsnr made, of a run or a model, and holds no data.")
    listings = [root / name for name in ("metadata.csv", "metadata.jsonl") if (root / name).is_file()]
    if len(listings) == 2:
        raise DataError(f"{root} has both a metadata.csv and a metadata.jsonl. Remove one.")
    if listings:
        return _open_listing(root, listings[0], config, labelled)
    refuse_columns(config, f"{root} is a folder of images without metadata.csv or metadata.jsonl")

    found = find_images(root)
    names = found.images
    if not names:
        endings = " ".join(EXTENSIONS)
        raise DataError(f"No images in {root}. Files with these endings count: {endings}.{_other_files(found)}")
    top = [name for name in names if "/" not in name]
    folders = sorted({name.split("/")[0] for name in names if "/" in name})
    _refuse_splits(root, folders)
    if not labelled or not folders:
        return OpenedSource(_Files(root, names), None, found.notes)
    if top:
        raise DataError(
            f"{root} has {len(top)} images at the top, which have no class, and {len(names) - len(top)} in "
            f"sub-folders. Move them into sub-folders, or {WITHOUT_LABELS}."
        )
    of_folder = {folder: _in_words(folder) for folder in folders}
    classes = in_order(set(of_folder.values()))
    position = {folder: classes.index(name) for folder, name in of_folder.items()}
    values = np.array([position[name.split("/")[0]] for name in names], np.int64)
    return OpenedSource(_Files(root, names), Labels(values, classes), found.notes)


def _made_here(folder: Path) -> bool:
    """Whether it is the folder of a run or of a model."""
    if (folder / "model_index.json").is_file():
        return True
    return (folder / "config.json").is_file() and any((folder / name).is_dir() for name in ("checkpoints", "model"))


def _in_words(folder: str) -> str:
    """The name of a folder as a class: letters and accents composed, and of bytes that are no text a sign for each."""
    text = folder.encode(errors="surrogateescape").decode(errors="replace")
    return unicodedata.normalize("NFC", text)


def _refuse_splits(root: Path, folders: list[str]) -> None:
    """Raise DataError where the sub-folders are parts of a set and not classes."""
    parts = {folder: "".join(letter for letter in folder.casefold() if letter.isalpha()) for folder in folders}
    training = [folder for folder, name in parts.items() if name in _TRAINING]
    others = [folder for folder, name in parts.items() if name in _OTHERS]
    if (training and others) or (parts and len(training) + len(others) == len(parts)):
        raise DataError(
            f"{root} holds splits ({listed(sorted([*training, *others]))}). Name one of them: "
            f"{root / (training or others)[0]}."
        )


@dataclass
class Found:
    """What there is below a folder."""

    images: list[str] = field(default_factory=list)
    """Paths with forward slashes, sorted."""
    others: Counter[str] = field(default_factory=Counter)
    """Endings of other files, and how many have them."""
    made_here: list[str] = field(default_factory=list)
    """Folders of runs and models."""

    @property
    def notes(self) -> list[str]:
        """A line for each kind of thing that is left out."""
        runs = [f"left out what logsnr made: {listed(self.made_here)}"] if self.made_here else []
        count = self.others.total()
        most_first = sorted(self.others.items(), key=lambda item: (-item[1], item[0] or "~"))
        kinds = listed(f"{ending or 'no ending'} {count}" for ending, count in most_first)
        return [
            *runs,
            *([f"left out {count} file{'' if count == 1 else 's'} of other kinds: {kinds}"] if count else []),
        ]


def _other_files(found: Found) -> str:
    return f" There are others: {found.notes[-1].partition(': ')[2]}." if found.others else ""


def find_images(root: Path) -> Found:
    """Links to folders are followed, each folder once."""
    found, seen = Found(), set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        way = "" if Path(folder) == root else Path(folder).relative_to(root).as_posix() + "/"
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        if way and _made_here(Path(folder)):
            found.made_here.append(way.removesuffix("/"))
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        shown = [name for name in files if not name.startswith(".")]
        images = [name for name in shown if name.lower().endswith(EXTENSIONS)]
        found.images += [way + name for name in images]
        found.others.update(Path(name).suffix.lower() for name in set(shown) - set(images))
    found.images.sort()
    return found


# Lists


def _open_listing(root: Path, listing: Path, config: DataConfig, labelled: bool) -> OpenedSource:
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
    found = find_images(root)
    names = _as_stored(files, found.images)
    column = label_column(columns, config, str(listing)) if labelled else None
    rows_kept = _first_rows(names, None if column is None else columns[column], listing)
    images = _Files(root, [names[row] for row in rows_kept])
    notes = _listing_notes(names, images.names, found.images, listing)
    if column is None:
        return OpenedSource(images, None, notes)
    return OpenedSource(images, encode([columns[column][row] for row in rows_kept], column, images), notes)


def _as_stored(names: list[str], stored: list[str]) -> list[str]:
    """The names as the folder has them: accents may be composed in one of the two and decomposed in the other."""
    there = set(stored)
    composed = {unicodedata.normalize("NFC", name): name for name in stored}
    return [
        name if name in there else composed.get(unicodedata.normalize("NFC", Path(name).as_posix()), name)
        for name in names
    ]


def _first_rows(names: list[str], labels: list[Any] | None, listing: Path) -> list[int]:
    """The rows that name a file for the first time. Raises `DataError` where a later one gives it another label."""
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        known = first.setdefault(name, row)
        if labels is not None and labels[known] != labels[row]:
            raise DataError(
                f"{listing} gives {name} two labels, {labels[known]!r} in entry {known + 1} and {labels[row]!r} in "
                f"entry {row + 1}. Keep one, or {WITHOUT_LABELS}."
            )
    return list(first.values())


def _listing_notes(named: list[str], kept: list[str], stored: list[str], listing: Path) -> list[str]:
    notes = []
    if more := len(named) - len(kept):
        notes.append(f"{listing.name} names {more} file{'' if more == 1 else 's'} again: each counts once")
    if unnamed := sorted(set(stored) - set(kept)):
        notes.append(f"left out {len(unnamed)} images that {listing.name} doesn't name: {listed(unnamed)}")
    return notes


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
        # by line feeds alone: a text may hold other characters that end lines, such as U+2028
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
            if line.strip():
                rows.append(json.loads(line))
                if not isinstance(rows[-1], dict):
                    raise DataError(f"{path} must hold an object in each line, and line {number} is {line[:40]}.")
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON in line {number}: {error}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8: {error}.") from None
    return rows
