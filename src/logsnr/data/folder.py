"""Folders of images, with sub-folders or a list for their classes; see `logsnr.data.sources` for the rules."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from logsnr.base.errors import DataError
from logsnr.base.words import listed
from logsnr.data.labels import WITHOUT_LABELS, encode, in_order, label_column
from logsnr.data.listing import Listing, listing_of, read_listing, refuse_columns
from logsnr.data.pixels import Decoded, decode
from logsnr.data.source import Labels, OpenedSource, Origin, Source, stamp
from logsnr.settings.image import DataConfig
from logsnr.settings.picture import PictureConfig

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


@dataclass(frozen=True)
class Folder:
    """A folder of images, before anything is known of their labels or captions."""

    root: Path
    found: Found
    listing: Listing | None

    @property
    def names(self) -> list[str]:
        """The images that count, each once: those of the list, in its order, or those that were found."""
        return self.found.images if self.listing is None else list(dict.fromkeys(self.listing.files))

    @property
    def images(self) -> Source:
        """These images."""
        return _Files(self.root, self.names)


def read_folder(root: Path, config: PictureConfig) -> Folder:
    """The images below `root`. Raises `DataError` where there are none, or it is unclear what they are."""
    if is_made_here(root):
        raise DataError(f"{root} is a folder that logsnr made, of a run or a model, and holds no data.")
    listing = listing_of(root)
    if listing is None:
        refuse_columns(config, f"{root} is a folder of images without metadata.csv or metadata.jsonl")
    found = find_images(root)
    if listing is not None:
        return Folder(root, found, read_listing(listing, found.images, config))
    if not found.images:
        endings = " ".join(EXTENSIONS)
        raise DataError(f"No images in {root}. Files with these endings count: {endings}.{_other_files(found)}")
    refuse_splits(root, top_folders(found.images))
    return Folder(root, found, None)


def open_folder(root: Path, config: DataConfig, labelled: bool) -> OpenedSource:
    """The images below `root`, and their labels. Raises `DataError` where either is unclear."""
    folder = read_folder(root, config)
    if folder.listing is not None:
        return _open_listed(folder, folder.listing, config, labelled)
    labels = folder_labels(root, folder.names) if labelled else None
    return OpenedSource(folder.images, labels, folder.found.notes)


def folder_labels(root: Path, names: list[str], noun: str = "image") -> Labels | None:
    """The folder at the top that each file is in, as its class; None where there are none. `noun`: what to call one.

    Raises `DataError` where some are in none."""
    folders = top_folders(names)
    if not folders:
        return None
    if top := [name for name in names if "/" not in name]:
        raise DataError(
            f"{root} has {len(top)} {noun}s at the top, which have no class, and {len(names) - len(top)} in "
            f"sub-folders. Move them into sub-folders, or {WITHOUT_LABELS}."
        )
    of_folder = {folder: in_words(folder) for folder in folders}
    classes = in_order(set(of_folder.values()))
    position = {folder: classes.index(name) for folder, name in of_folder.items()}
    values = np.array([position[name.split("/")[0]] for name in names], np.int64)
    return Labels(values, classes)


def _open_listed(folder: Folder, listing: Listing, config: DataConfig, labelled: bool) -> OpenedSource:
    column = label_column(listing.columns, config.label_column, str(listing.path)) if labelled else None
    rows = _first_rows(listing, None if column is None else listing.columns[column])
    more = len(listing.files) - len(rows)
    again = [f"{listing.path.name} names {more} file{'' if more == 1 else 's'} again: each counts once"] if more else []
    notes = [*again, *listing.left_out(folder.found.images)]
    if column is None:
        return OpenedSource(folder.images, None, notes)
    values = [listing.columns[column][row] for row in rows]
    return OpenedSource(folder.images, encode(values, column, folder.images.name), notes)


def _first_rows(listing: Listing, labels: list[Any] | None) -> list[int]:
    """The rows that name a file for the first time. Raises `DataError` where a later one gives it another label."""
    first: dict[str, int] = {}
    for row, name in enumerate(listing.files):
        known = first.setdefault(name, row)
        if labels is not None and labels[known] != labels[row]:
            raise DataError(
                f"{listing.path} gives {name} two labels, {labels[known]!r} in entry {known + 1} and {labels[row]!r} "
                f"in entry {row + 1}. Keep one, or {WITHOUT_LABELS}."
            )
    return list(first.values())


def top_folders(names: list[str]) -> list[str]:
    """The folders at the top that have images in them."""
    return sorted({name.split("/")[0] for name in names if "/" in name})


def is_made_here(folder: Path) -> bool:
    """Whether it is the folder of a run or of a model."""
    if (folder / "model_index.json").is_file():
        return True
    return (folder / "config.json").is_file() and any((folder / name).is_dir() for name in ("checkpoints", "model"))


def in_words(name: str) -> str:
    """A name as text: letters and accents composed, and of bytes that are no text a sign for each."""
    text = name.encode(errors="surrogateescape").decode(errors="replace")
    return unicodedata.normalize("NFC", text)


def refuse_splits(root: Path, folders: list[str]) -> None:
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
    texts: list[str] = field(default_factory=list)
    """Those of them that end in .txt: their paths, sorted."""
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
        if way and is_made_here(Path(folder)):
            found.made_here.append(way.removesuffix("/"))
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        shown = [name for name in files if not name.startswith(".")]
        images = [name for name in shown if name.lower().endswith(EXTENSIONS)]
        found.images += [way + name for name in images]
        found.texts += [way + name for name in shown if name.lower().endswith(".txt")]
        found.others.update(Path(name).suffix.lower() for name in set(shown) - set(images))
    found.images.sort()
    found.texts.sort()
    return found
