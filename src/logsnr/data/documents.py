"""Where documents and their classes come from: text files, tables and FASTA.

`open_documents` finds out which, and reads all of it:

- A folder made by `save_to_disk`, a data set of the Hub, `.csv`, `.jsonl` and `.parquet`: a row is a document. Its text
  is in `data.text_column`, in the column `text`, or in the only column of words. Labels are found by the rule of
  `logsnr.data.sources` for columns.
- `.fasta`, `.fa`, `.faa`, `.fna`: a record is a document, its lines joined; the name is left out.
- Any other file is text, and so is each `.txt` in a folder, at any depth, in the order of the paths. `data.documents`
  says whether files, paragraphs or lines are documents. The class of one is the first folder on its way.

Text is in UTF-8, and every end of a line is read as a line feed.
"""

from __future__ import annotations

import codecs
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logsnr.base.errors import DataError
from logsnr.base.words import listed, one_line
from logsnr.data.folder import find_images, folder_labels, is_made_here, refuse_splits, top_folders
from logsnr.data.labels import encode, label_column
from logsnr.data.listing import read_csv, read_jsonl, refuse_columns
from logsnr.data.source import Labels
from logsnr.data.tables import described, hub_table, is_saved, saved_table
from logsnr.settings.text import TextDataConfig

_FASTA = (".fasta", ".fa", ".faa", ".fna")
_TABLES = (".csv", ".jsonl", ".parquet")
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_RESIDUES = re.compile(r"[A-Za-z*-]+")


@dataclass(frozen=True)
class Documents:
    """Documents in a fixed order, none of them empty."""

    texts: list[str]
    name: Callable[[int], str]
    """What to call one in a message."""
    labels: Labels | None = None
    """Their classes, where there are any and they are wanted."""
    notes: list[str] = field(default_factory=list)
    """What the source has beside them, a line for each kind of thing."""


def open_documents(config: TextDataConfig, labelled: bool) -> Documents:
    """The documents of `config.source`, and their classes if they are wanted (`labelled`).

    Raises `DataError` where there are none, or they can't be read.
    """
    path = Path(config.source).expanduser()
    if path.is_dir() and not is_saved(path):
        return _of_folder(path, config, labelled)
    ending = path.suffix.lower()
    if path.is_file() and ending not in (*_TABLES, *_FASTA):
        return _of_file(path, config)
    if not path.exists() and ending in (".txt", *_TABLES, *_FASTA):
        raise DataError(f"data.source is {config.source}, and there is no such file. Name one with --data.source.")
    if config.documents != "found":
        what = "a FASTA file, each record" if ending in _FASTA else "a table, each row"
        raise DataError(
            f"data.documents is {config.documents}, but {config.source} is {what} of which is a document. Leave it out."
        )
    if path.is_file() and ending in _FASTA:
        return _of_fasta(path, config)
    return _of_table(path, config, labelled)


# Text files


def _of_file(path: Path, config: TextDataConfig) -> Documents:
    refuse_columns(config, f"{path} is a text file")
    how = config.documents
    text = _read(path)
    if not text.strip():
        raise DataError(f"{path} is empty. Name a file with text in it.")
    if how == "found":
        how = "paragraphs" if _BLANK_LINES.search(text.strip()) else "lines"
    return Documents(_parts(text, how), lambda index: f"document {index + 1} of {path.name}")


def _of_folder(root: Path, config: TextDataConfig, labelled: bool) -> Documents:
    if is_made_here(root):
        raise DataError(f"{root} is a folder that logsnr made, of a run or a model, and holds no data.")
    refuse_columns(config, f"{root} is a folder of text files")
    found = find_images(root)
    names = found.texts
    others = found.others - Counter({".txt": len(names)}) + Counter(Path(name).suffix.lower() for name in found.images)
    notes = dataclasses.replace(found, others=others).notes
    if not names:
        there = f" There are others: {notes[-1].partition(': ')[2]}." if others else ""
        raise DataError(f"No texts in {root}. Files that end in .txt count.{there}")
    refuse_splits(root, top_folders(names))
    labels = folder_labels(root, names, "text") if labelled else None
    read = [_read(root / name) for name in names]
    if empty := [name for name, text in zip(names, read, strict=True) if not text.strip()]:
        raise DataError(f"{len(empty)} of {len(names)} texts in {root} are empty: {listed(empty)}. Remove them.")
    how = "files" if config.documents == "found" else config.documents
    parts = [_parts(text, how) for text in read]
    of_file = [index for index, several in enumerate(parts) for _ in several]
    if labels is not None:
        labels = Labels(labels.values[of_file], labels.names) if len(labels.names) > 1 else None
    return Documents([text for several in parts for text in several], lambda k: names[of_file[k]], labels, notes)


def _read(path: Path) -> str:
    """A text file. Raises `DataError` that says where it isn't UTF-8."""
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise DataError(f"{path} can't be read: {one_line(error)}. Make it readable, or remove it.") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise DataError(
            f"{path} is not in UTF-8: byte {content[error.start]:#04x} in line {line}, at its byte {column}. Save it "
            "in UTF-8, and unpack it if it is an archive."
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parts(text: str, how: str) -> list[str]:
    if how == "files":
        return [text]
    parts = _BLANK_LINES.split(text) if how == "paragraphs" else text.split("\n")
    return [part.strip("\n") for part in parts if part.strip()]


# FASTA


def _of_fasta(path: Path, config: TextDataConfig) -> Documents:
    """Records: a line that begins with `>`, and lines of letters, `*` and `-`."""
    refuse_columns(config, f"{path} is a FASTA file")
    names: list[str] = []
    begins: list[int] = []
    records: list[list[str]] = []
    for number, line in enumerate(_read(path).split("\n"), 1):
        residues = line.strip()
        if residues.startswith(">"):
            names.append(residues[1:].strip() or f"record {len(names) + 1}")
            begins.append(number)
            records.append([])
        elif residues and not records:
            raise DataError(f"{path} must begin with a line >NAME, as FASTA does, and line {number} is {line[:40]!r}.")
        elif residues:
            if _RESIDUES.fullmatch(residues) is None:
                raise DataError(
                    f"{path} must hold letters, * and - in its records, and line {number}, of {names[-1]}, is "
                    f"{line[:40]!r}. Mend the record, or give the file another ending if it isn't FASTA."
                )
            records[-1].append(residues)
    if not records:
        raise DataError(f"{path} is empty. Name a file with records in it.")
    if empty := [f"{name} in line {begins[k]}" for k, name in enumerate(names) if not records[k]]:
        raise DataError(
            f"{len(empty)} of {len(names)} records in {path} have no sequence: {listed(empty)}. Remove them."
        )
    return Documents(["".join(lines) for lines in records], lambda index: names[index])


# Tables


def _of_table(path: Path, config: TextDataConfig, labelled: bool) -> Documents:
    columns, where = _columns(path, config)
    column = _text_column(columns, config.text_column, where)
    texts = columns[column]
    if empty := [k + 1 for k, text in enumerate(texts) if text is None or (isinstance(text, str) and not text.strip())]:
        raise DataError(
            f"{len(empty)} of {len(texts)} texts in the column {column} of {config.source} are missing or empty, those "
            f"of rows {listed(empty)}. Write or remove them, or name another column with --data.text-column."
        )
    if other := [text for text in texts if not isinstance(text, str)]:
        raise DataError(
            f"The text column {column} of {config.source} must hold words, and holds {str(other[0])[:40]}. Name "
            "another with --data.text-column."
        )
    if halves := [k + 1 for k, text in enumerate(texts) if _SURROGATE.search(text)]:  # JSON can escape them
        raise DataError(
            f"{len(halves)} of {len(texts)} texts in the column {column} of {config.source} hold half of a surrogate "
            f"pair, which is no character: those of rows {listed(halves)}. Write them anew."
        )
    documents = Documents(list(texts), _row)
    return dataclasses.replace(documents, labels=_labels(columns, column, config, where)) if labelled else documents


def _columns(path: Path, config: TextDataConfig) -> tuple[dict[str, Sequence[Any]], str]:
    """The columns of a table, classes by their names, and what to call it with its columns."""
    if path.is_file() and path.suffix.lower() != ".parquet":
        rows = read_csv(path) if path.suffix.lower() == ".csv" else read_jsonl(path)
        names = list(dict.fromkeys(name for row in rows for name in row))
        if not names:
            raise DataError(f"{path} is empty. Name a table with rows in it.")
        return {name: [row.get(name) for row in rows] for name in names}, f"{path} ({', '.join(names)})"
    table = _dataset(path, config.source)
    if not len(table):
        raise DataError(f"{config.source} is empty. Name a table with rows in it.")
    return {name: _values(table, name) for name in table.column_names}, f"{config.source} ({described(table)})"


def _dataset(path: Path, source: str) -> Any:
    import datasets

    if path.is_dir():
        return saved_table(path)
    if not path.is_file():
        return hub_table(source)
    import pyarrow
    import pyarrow.parquet

    try:
        return datasets.Dataset(pyarrow.parquet.read_table(path))
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} can't be read as parquet: {one_line(error)}. Write it anew.") from None


def _values(table: Any, name: str) -> Sequence[Any]:
    import datasets

    feature = table.features[name]
    values: list[Any] = table.select_columns([name]).with_format("arrow")[:][name].to_pylist()
    if isinstance(feature, datasets.ClassLabel):  # -1: unknown
        return [None if value in (None, -1) else feature.int2str(value) for value in values]
    return values


def _text_column(columns: dict[str, Sequence[Any]], wanted: str | None, where: str) -> str:
    if wanted is not None:
        if wanted not in columns:
            raise DataError(f"data.text_column is {wanted}, and there is no such column in {where}. Name one of these.")
        return wanted
    if "text" in columns:
        return "text"
    words = [name for name, values in columns.items() if {type(value) for value in values} - {type(None)} == {str}]
    if len(words) != 1:
        raise DataError(
            f"{where} has {len(words)} columns of words, one is needed: name that of the texts with --data.text-column."
        )
    return words[0]


def _labels(columns: dict[str, Sequence[Any]], text: str, config: TextDataConfig, where: str) -> Labels | None:
    others = {
        name: values
        for name, values in columns.items()
        if name != text and {type(value) for value in values} - {type(None)} <= {str, int, bool}
    }
    column = label_column(others, config.label_column, where)
    if column is None:
        return None
    labels = encode(others[column], column, _row, "text")
    if len(labels.names) > 1:
        return labels
    if config.label_column is None:
        return None
    raise DataError(
        f"data.label_column is {column}, which holds one value in {config.source}, {labels.names[0]}: nothing to tell "
        "apart. Leave data.label_column out."
    )


def _row(index: int) -> str:
    return f"row {index + 1}"
