"""Lists of images: `metadata.csv` or `metadata.jsonl` in a folder, with a column `file_name` and others beside it."""

from __future__ import annotations

import csv
import dataclasses
import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logsnr.base.errors import DataError
from logsnr.base.words import listed
from logsnr.settings.picture import PictureConfig

_LONGEST = 2**31 - 1
"""Characters in a cell; by default csv stops at 131,072, and a text may be longer."""


@dataclass(frozen=True)
class Listing:
    """The entries of a list. A file may have several."""

    path: Path
    files: list[str]
    """The file of each entry, as the folder names it."""
    columns: dict[str, list[Any]]
    """The other columns; None where an entry has nothing."""

    def left_out(self, stored: list[str]) -> list[str]:
        """A line about the images of the folder that it doesn't name, if there are any."""
        unnamed = sorted(set(stored) - set(self.files))
        return (
            [f"left out {len(unnamed)} images that {self.path.name} doesn't name: {listed(unnamed)}"] if unnamed else []
        )


def listing_of(root: Path) -> Path | None:
    """The list of a folder, if it has one. Raises `DataError` where it has two."""
    found = [root / name for name in ("metadata.csv", "metadata.jsonl") if (root / name).is_file()]
    if len(found) == 2:
        raise DataError(f"{root} has both a metadata.csv and a metadata.jsonl. Remove one.")
    return found[0] if found else None


def read_listing(path: Path, stored: list[str], config: PictureConfig) -> Listing:
    """Reads a list of the images `stored` in its folder. Raises `DataError` where it isn't one."""
    rows = read_csv(path) if path.suffix == ".csv" else read_jsonl(path)
    columns: dict[str, list[Any]] = {key: [] for row in rows for key in row}
    for key, values in columns.items():
        values += [row.get(key) for row in rows]
    if config.image_column not in (None, "file_name"):
        raise DataError(
            f"data.image_column must be file_name (or not given) with {path}, and is {config.image_column}."
        )
    files = columns.pop("file_name", None)
    if not rows or files is None:
        raise DataError(f"{path} must have a column file_name and rows; its columns: {', '.join(columns) or 'none'}.")
    if bad := [i for i, name in enumerate(files) if not isinstance(name, str)]:
        raise DataError(f"{path} has no file_name in entry {bad[0] + 1}.")
    return Listing(path, _as_stored(files, stored), columns)


def refuse_columns(config: Any, why: str) -> None:
    """Raises `DataError` where the settings name a column, and there are none."""
    for setting in dataclasses.fields(config):
        value = getattr(config, setting.name)
        if setting.name.endswith("_column") and value is not None:
            raise DataError(f"data.{setting.name} is {value}, but {why}, so there are no columns. Leave it out.")


def _as_stored(names: list[str], stored: list[str]) -> list[str]:
    """The names as the folder has them: accents may be composed in one of the two and decomposed in the other."""
    there = set(stored)
    composed = {unicodedata.normalize("NFC", name): name for name in stored}
    return [
        name if name in there else composed.get(unicodedata.normalize("NFC", Path(name).as_posix()), name)
        for name in names
    ]


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file by column; None where a cell is empty. Raises `DataError`."""
    csv.field_size_limit(_LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restkey=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} can't be read as CSV in UTF-8: {error}.") from None
    if bad := [i for i, row in enumerate(rows) if "" in row]:
        raise DataError(f"{path} has more values than columns in entry {bad[0] + 1}, or a column without a name.")
    return [{key: value or None for key, value in row.items()} for row in rows]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects in the lines of a file. Raises `DataError`."""
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
