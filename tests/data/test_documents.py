"""logsnr.data.documents: which documents are found, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from logsnr.base.errors import DataError
from logsnr.data.documents import Documents, open_documents
from logsnr.settings.text import TextDataConfig


def opened(source: Path, labelled: bool = True, **settings: Any) -> Documents:
    return open_documents(TextDataConfig(str(source), **settings), labelled)


def refused(source: Path, message: str, **settings: Any) -> None:
    """`message` is a regular expression; the error must also have a cure: a sentence after the first."""
    with pytest.raises(DataError, match=message) as caught:
        opened(source, **settings)
    assert str(caught.value).endswith(".")


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def classes(found: Documents) -> list[str]:
    assert found.labels is not None
    return [found.labels.names[k] for k in found.labels.values]


# Text files


def test_a_file_has_paragraphs_or_lines(tmp_path: Path) -> None:
    verses = write(tmp_path / "verses.txt", "\ufeff\r\none\r\ntwo\r\n \r\n\r\n\u00e9\u2028three\r\n")
    assert opened(verses).texts == ["one\ntwo", "\u00e9\u2028three"]
    assert opened(verses, documents="lines").texts == ["one", "two", "\u00e9\u2028three"]
    assert opened(verses, documents="files").texts == ["\none\ntwo\n \n\n\u00e9\u2028three\n"]
    assert opened(write(tmp_path / "names", "ada\nbob\n")).texts == ["ada", "bob"]


def test_folders_are_classes(tmp_path: Path) -> None:
    for name in ("10/a.txt", "9/b.txt", "9/deep/c.TXT", ".hidden/d.txt", "9/e.pdf", "10/f.png"):
        write(tmp_path / name, f"text of\n\n{name}")
    found = opened(tmp_path)
    assert [found.name(k) for k in range(3)] == ["10/a.txt", "9/b.txt", "9/deep/c.TXT"]
    assert found.labels is not None
    assert found.labels.names == ["9", "10"]
    assert classes(found) == ["10", "9", "9"]
    assert found.notes == ["left out 2 files of other kinds: .pdf 1, .png 1"]
    paragraphs = opened(tmp_path, documents="paragraphs")
    assert paragraphs.texts[:2] == ["text of", "10/a.txt"]
    assert classes(paragraphs) == ["10", "10", "9", "9", "9", "9"]
    assert opened(tmp_path, labelled=False).labels is None


def test_what_is_wrong_with_files_is_said(tmp_path: Path) -> None:
    refused(
        write(tmp_path / "latin.txt", "ab\ncd \u00e9".encode("latin-1")),
        r"latin.txt is not in UTF-8: byte 0xe9 in line 2, at its byte 4\.",
    )
    refused(write(tmp_path / "empty.txt", " \n"), "is empty")
    refused(tmp_path / "nowhere", "no folder of that name")
    refused(tmp_path / "nowhere.txt", "no such file")
    folder = tmp_path / "folder"
    write(folder / "a.md", "a")
    refused(folder, r"No texts in .* There are others: \.md 1")
    for name in ("a", "b", "c"):
        write(folder / f"{name}.txt", "" if name == "b" else name)
    refused(folder, r"1 of 3 texts in .* are empty: b\.txt")
    (folder / "b.txt").unlink()
    write(folder / "sub" / "d.txt", "d")
    refused(folder, "has 2 texts at the top, which have no class, and 1 in")
    assert opened(folder, labelled=False).texts == ["a", "c", "d"]
    refused(folder, "data.text_column is story, but .* is a folder of text files", text_column="story")
    refused(write(tmp_path / "a.txt", "a"), "data.label_column is x, but .* is a text file", label_column="x")
    for name in ("Train", "Test"):
        write(tmp_path / "parts" / name / "a.txt", "a")
    refused(tmp_path / "parts", "holds splits")


# FASTA


def test_fasta(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fasta", ">sp|P1 one\r\nMKV\r\nLLA*\r\n\r\n>two\nm-k\n")
    found = opened(path)
    assert found.texts == ["MKVLLA*", "m-k"]
    assert found.name(0) == "sp|P1 one"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MKV\n>a\nMKV\n", "must begin with a line >NAME, as FASTA does, and line 1 is 'MKV'"),
        (">a\nMKV\n>b\n>c\nMK1\n", "must hold letters, .* line 5, of c, is 'MK1'"),
        (">a\nMKV\n>b\n>c\nMK\n", "1 of 3 records in .* have no sequence: b in line 3"),
        ("\n", "is empty"),
    ],
)
def test_broken_fasta_is_refused(tmp_path: Path, text: str, message: str) -> None:
    refused(write(tmp_path / "a.fa", text), message)


# Tables

ROWS = [
    {"text": "a \u2028 b", "by": "ada", "other": "x"},
    {"text": "c" * 200_000, "by": "bob", "other": "y"},
    {"text": 'd,\n"e"', "by": "ada", "other": "z"},
]


def save(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"table.{kind}" if kind != "saved" else folder / "saved"
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif kind == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    else:
        datasets.Dataset.from_list(rows).class_encode_column("by").save_to_disk(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "saved"])
def test_tables(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path, kind, ROWS)
    found = opened(path, label_column="by")
    assert found.texts == [row["text"] for row in ROWS]
    assert classes(found) == ["ada", "bob", "ada"]
    assert opened(path, text_column="other").texts == ["x", "y", "z"]
    refused(path, r"data.text_column is story, and there is no such column in .*text.*by.*other", text_column="story")
    refused(path, "data.label_column is whose, and .* has no such column", label_column="whose")
    refused(path, "data.documents is lines, but .* is a table", documents="lines")


def test_what_is_wrong_with_tables_is_said(tmp_path: Path) -> None:
    def table(*rows: dict[str, Any]) -> Path:
        return save(tmp_path, "jsonl", list(rows))

    refused(table({"a": "x", "b": "y"}), "has 2 columns of words, one is needed")
    refused(table({"a": 1}), "has 0 columns of words")
    refused(table({"text": "x"}, {"text": ""}, {}), "2 of 3 texts in the column text .* those of rows 2, 3")
    refused(table({"text": "x"}, {"text": 3}), "must hold words, and holds 3")
    refused(table({"text": "x", "by": "a"}, {"text": "y", "by": "a"}), "holds one value in .*, a:", label_column="by")
    refused(table({"text": "x", "by": "a"}, {"text": "y"}), "1 of 2 texts have no label .* row 2", label_column="by")
    refused(write(tmp_path / "half.jsonl", '{"text": "\\ud83d"}\n'), "half of a surrogate pair, .* rows 1")
    refused(write(tmp_path / "a.parquet", "no"), "can't be read as parquet")
    refused(write(tmp_path / "a.jsonl", ""), "is empty")
    assert opened(table({"text": "x", "label": 1}, {"text": "y", "label": 1})).labels is None
    assert classes(opened(table({"text": "x", "label": 10}, {"text": "y", "label": 9}))) == ["10", "9"]
