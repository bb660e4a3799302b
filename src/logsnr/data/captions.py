"""Pictures and what they are called: captions from a list, a table, text files or the names of files.

`open_captioned` finds the images, as `logsnr.data.sources` has it, and one caption or several for each:

- `data.captions found`: a column of `metadata.csv`, `metadata.jsonl` or the table. It is `data.caption_column`, or the
  only one that is called text, caption, captions or prompt. Lists are several captions; so are several entries of one
  file. In a folder without such a list it is as with `files`.
- `data.captions files`: beside `fox.png` lies `fox.txt`, in UTF-8. Each line that isn't empty is a caption.
- `data.captions names`: the name of the file without its ending and the numbers at its end, `_`, `-` and dots being
  spaces: that of `red_fox-02.png` is "red fox".

`data.group_column` says what belongs together, with any of these, where there is a list or a table. A caption that is
missing or empty is an error: an image without one would be drawn for every prompt.

`open_columns` reads further columns.
"""

from __future__ import annotations

import dataclasses
import os
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from logsnr.base.errors import DataError
from logsnr.base.words import listed, one_line
from logsnr.data.folder import Folder, in_words, read_folder
from logsnr.data.listing import Listing
from logsnr.data.source import Source
from logsnr.data.tables import Table, open_table
from logsnr.settings.text_to_image import CaptionedDataConfig

_COLUMNS = ("text", "caption", "captions", "prompt")
_NUMBER = re.compile(r"[\d\s.,+-]*")
_NUMBERS_AT_THE_END = re.compile(r"(\s*\(?\d+\)?)+$")
_ANOTHER_COLUMN = "name another column with --data.caption-column"
_BY_NAME = "take the names of the files with --data.captions names"


@dataclass(frozen=True)
class CaptionedSource:
    """The images, and the captions of each."""

    images: Source
    captions: list[tuple[str, ...]]
    """At least one an image, none of them empty, without space around them."""
    groups: list[str] | None
    """The group of each image; None where no column says it."""
    notes: list[str]
    """What the source has beside them, a line for each kind of thing."""


def open_captioned(config: CaptionedDataConfig) -> CaptionedSource:
    """Finds the images of `config.source` and their captions, without decoding any image.

    Raises `DataError` where an image has no caption, or it is unclear which.
    """
    table = open_table(config)
    if table is not None:
        return _of_table(table, config)
    folder = read_folder(Path(config.source).expanduser(), config)
    listing = folder.listing
    if config.captions == "names":
        captions, notes = _of_names(folder), _left_out(folder)
    elif config.captions == "files" or listing is None:
        captions, notes = _of_files(folder), _left_out(folder, texts=True)
    else:
        captions, notes = _of_listing(folder, listing, config), _left_out(folder)
    groups = None if listing is None or config.group_column is None else _listed_groups(listing, config.group_column)
    return CaptionedSource(folder.images, captions, groups, notes)


def open_columns(config: CaptionedDataConfig, columns: Sequence[str], setting: str) -> dict[str, list[str | None]]:
    """What stands in columns beside the images of `config.source`: a text for each image, in the order of
    `open_captioned`, or None. Of several entries of one image the first counts.

    Raises `DataError` in the name of `setting` where there is no such column, or it holds something else than words,
    numbers and truth values.
    """
    table = open_table(config)
    if table is not None:
        for column in columns:
            _require_column(table.rows.column_names, column, setting, table.source, table.described)
        return {column: _texts(table.column(column), column, table.source, setting) for column in columns}
    listing = read_folder(Path(config.source).expanduser(), config).listing
    if listing is None:
        raise DataError(
            f"{setting} is {columns[0]}, but {config.source} has no metadata.csv or metadata.jsonl, so there are no "
            "columns. Write one with the columns file_name, text and those, or leave it out."
        )
    first = {name: row for row, name in reversed(list(enumerate(listing.files)))}
    rows = [first[name] for name in dict.fromkeys(listing.files)]
    found = {}
    for column in columns:
        _require_column(listing.columns, column, setting, str(listing.path), ", ".join(listing.columns))
        texts = _texts(listing.columns[column], column, str(listing.path), setting)
        found[column] = [texts[row] for row in rows]
    return found


def _texts(values: Sequence[Any], column: str, where: str, setting: str) -> list[str | None]:
    for value in values:
        if not isinstance(value, str | int | float | None):
            raise DataError(
                f"{setting} is {column}, which must hold words, numbers or truth values in {where}, and holds "
                f"{reprlib.repr(value)}. Name another column."
            )
    return [None if value in (None, "") else str(value) for value in values]


# Columns


def _of_table(table: Table, config: CaptionedDataConfig) -> CaptionedSource:
    where = table.source
    if config.captions != "found":
        raise DataError(
            f"data.captions is {config.captions}, but {where} is a table, whose images have no files. Leave it out; "
            "--data.caption-column names the column."
        )
    names = table.rows.column_names
    column = _caption_column(names, config, where, table.described)
    captions = _captions(table.column(column), column, where, table.images.name)
    groups = None
    if (by := config.group_column) is not None:
        _require_column(names, by, "data.group_column", where, table.described)
        groups = _groups(table.column(by), by, where, table.images.name)
    return CaptionedSource(table.images, [_once(texts) for texts in captions], groups, [])


def _of_listing(folder: Folder, listing: Listing, config: CaptionedDataConfig) -> list[tuple[str, ...]]:
    where = str(listing.path)
    column = _caption_column(listing.columns, config, where, ", ".join(listing.columns) or "none")
    found = _captions(listing.columns[column], column, where, _entry(listing))
    captions: dict[str, tuple[str, ...]] = {}
    for name, texts in zip(listing.files, found, strict=True):
        captions[name] = (*captions.get(name, ()), *texts)
    return [_once(captions[name]) for name in folder.names]


def _caption_column(columns: Iterable[str], config: CaptionedDataConfig, where: str, described: str) -> str:
    if config.caption_column is not None:
        _require_column(columns, config.caption_column, "data.caption_column", where, described)
        return config.caption_column
    found = [name for name in columns if name in _COLUMNS]
    if len(found) > 1:
        raise DataError(
            f"{where} has several columns that may be the caption ({', '.join(found)}): name one with "
            "--data.caption-column."
        )
    if not found:
        raise DataError(
            f"{where} has no column called {', '.join(_COLUMNS[:-1])} or {_COLUMNS[-1]}: name that of the captions "
            f"with --data.caption-column. Its columns: {described}."
        )
    return found[0]


def _require_column(columns: Iterable[str], column: str, setting: str, where: str, described: str) -> None:
    if column not in columns:
        raise DataError(f"{setting} is {column}, which doesn't exist in {where}. Name one of its columns: {described}.")


def _captions(values: Sequence[Any], column: str, where: str, name: Callable[[int], str]) -> list[list[str]]:
    """The captions in each cell of a column. Raises `DataError` where one has none."""
    cells = [list(value) if isinstance(value, list | tuple) else [value] for value in values]
    no_words = f"The caption column {column} of {where} must hold words, or lists of them, and holds"
    for index, cell in enumerate(cells):
        for text in cell:
            if not isinstance(text, str | None):
                raise DataError(f"{no_words} {reprlib.repr(text)} ({name(index)}). {_ANOTHER_COLUMN.capitalize()}.")
    found = [[(text or "").strip() for text in cell] for cell in cells]
    if missing := [index for index, texts in enumerate(found) if not texts or "" in texts]:
        raise DataError(
            f"{len(missing)} of {len(values)} captions in the column {column} of {where} are missing or empty, the "
            f"first is that of {name(missing[0])}. Write them, remove these images, or {_ANOTHER_COLUMN}."
        )
    if all(_NUMBER.fullmatch(text) for texts in found for text in texts):
        raise DataError(f"{no_words} numbers alone, as {found[0][0]}. {_ANOTHER_COLUMN.capitalize()}.")
    return found


def _listed_groups(listing: Listing, column: str) -> list[str]:
    """The group of each file of a list, in the order in which it names them first; `file_name` may be the column."""
    columns: dict[str, list[Any]] = {"file_name": listing.files, **listing.columns}
    _require_column(columns, column, "data.group_column", str(listing.path), ", ".join(columns))
    found = _groups(columns[column], column, str(listing.path), _entry(listing))
    first: dict[str, int] = {}
    for row, name in enumerate(listing.files):
        known = first.setdefault(name, row)
        if found[known] != found[row]:
            raise DataError(
                f"The group column {column} of {listing.path} puts {name} into two groups, {found[known]!r} in entry "
                f"{known + 1} and {found[row]!r} in entry {row + 1}. Keep one."
            )
    return [found[row] for row in first.values()]


def _groups(values: Sequence[Any], column: str, where: str, name: Callable[[int], str]) -> list[str]:
    if missing := [index for index, value in enumerate(values) if value in (None, "")]:
        raise DataError(
            f"{len(missing)} of {len(values)} groups in the column {column} of {where} are missing, the first is that "
            f"of {name(missing[0])}. Write them, or name another column with --data.group-column."
        )
    for index, value in enumerate(values):
        if not isinstance(value, str | int):
            raise DataError(
                f"The group column {column} of {where} must hold words or whole numbers, and holds "
                f"{reprlib.repr(value)} ({name(index)}). Name another column with --data.group-column."
            )
    return [str(value) for value in values]


def _entry(listing: Listing) -> Callable[[int], str]:
    return lambda index: f"{listing.files[index]} in entry {index + 1}"


# Files


def _of_files(folder: Folder) -> list[tuple[str, ...]]:
    """The lines of the text file beside each image."""
    beside = {_stem(name): name for name in folder.found.texts}
    names, root = folder.names, folder.root
    if missing := [name for name in names if _stem(name) not in beside]:
        raise DataError(
            f"{len(missing)} of the {len(names)} images in {root} have no caption: there is no "
            f"{_stem(missing[0])}.txt beside {missing[0]}, the first of them. Write these files, remove the images, or "
            f"{_BY_NAME}. Captions may also stand in a metadata.csv with the columns file_name and text."
        )
    found = [_lines(root / beside[_stem(name)]) for name in names]
    if empty := [name for name, texts in zip(names, found, strict=True) if not texts]:
        raise DataError(
            f"{len(empty)} of the {len(names)} images in {root} have an empty caption: there is no word in "
            f"{beside[_stem(empty[0])]}, the first of them. Write them, or remove these images."
        )
    return found


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8: {one_line(error)}. Save it in UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {one_line(error)}. Make it readable, or remove it.") from None
    # by line feeds alone: a text may hold other characters that end lines, such as U+2028
    return _once(line.strip() for line in text.split("\n") if line.strip())


def _of_names(folder: Folder) -> list[tuple[str, ...]]:
    """The words in the name of each image."""
    names, root = folder.names, folder.root
    found = [_words(name) for name in names]
    cure = (
        f"Rename them, or write captions: {_stem(names[0])}.txt beside {names[0]}, or a metadata.csv with the columns "
    )
    cure += "file_name and text."
    if len(names) > 1 and len(set(found)) == 1:
        alike = f"all are {found[0]!r}" if found[0] else "nothing is left of them"
        raise DataError(
            f"data.captions is names, but the names of the {len(names)} images in {root} say nothing: without numbers "
            f"{alike}. {cure}"
        )
    if empty := [name for name, words in zip(names, found, strict=True) if not words]:
        raise DataError(
            f"data.captions is names, but there is no word in {len(empty)} of the {len(names)} names of images in "
            f"{root}, the first is {empty[0]}. {cure}"
        )
    return [(words,) for words in found]


def _words(name: str) -> str:
    spaced = re.sub(r"[_.\s-]+", " ", PurePosixPath(in_words(name)).stem)
    return _NUMBERS_AT_THE_END.sub("", spaced).strip()


def _stem(name: str) -> str:
    """The path without its ending."""
    return os.path.splitext(name)[0]


def _left_out(folder: Folder, texts: bool = False) -> list[str]:
    """Lines about what isn't used; `texts`: the text files beside images are."""
    found, notes = folder.found, []
    if texts:
        found = dataclasses.replace(found, others=found.others - Counter({".txt": len(found.texts)}))
        pictures = {_stem(name) for name in found.images}
        if alone := [name for name in found.texts if _stem(name) not in pictures]:
            notes = [f"left out {len(alone)} .txt without an image beside them: {listed(alone)}"]
    listing = folder.listing
    return [*(found.notes if listing is None else listing.left_out(found.images)), *notes]


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    """Each text once, in the order in which they come first."""
    return tuple(dict.fromkeys(texts))
