"""logsnr.data.captions: which captions are found, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from image_files import encoded, noise, save_noise
from PIL import Image

from logsnr.base.errors import ConfigError, DataError
from logsnr.data.captions import CaptionedSource, open_captioned, open_columns
from logsnr.settings.text_to_image import CaptionedDataConfig


def opened(folder: Path, **settings: Any) -> CaptionedSource:
    return open_captioned(CaptionedDataConfig(str(folder), **settings))


def named(found: CaptionedSource) -> dict[str, tuple[str, ...]]:
    return {found.images.name(k): texts for k, texts in enumerate(found.captions)}


def refused(folder: Path, message: str, **settings: Any) -> None:
    """`message` is a regular expression; the error must also have a cure: a sentence after the first."""
    with pytest.raises(DataError, match=message) as caught:
        opened(folder, **settings)
    assert str(caught.value).endswith(".")


def save_images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(8, 8, 3)).save(folder / name)


def write_list(folder: Path, kind: str, rows: list[dict[str, Any]]) -> None:
    with (folder / f"metadata.{kind}").open("w", newline="", encoding="utf-8") as file:
        if kind == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


# Lists


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("column", ["text", "caption", "captions", "prompt"])
def test_the_column_of_a_list(tmp_path: Path, kind: str, column: str) -> None:
    save_noise(tmp_path, 3)
    rows = [{"file_name": f"{k:03}.png", "label": k, column: f" A Fox, {k}\n"} for k in (1, 0)]
    write_list(tmp_path, kind, rows)
    found = opened(tmp_path)
    assert named(found) == {"001.png": ("A Fox, 1",), "000.png": ("A Fox, 0",)}
    assert found.groups is None
    assert found.notes == [f"left out 1 images that metadata.{kind} doesn't name: 002.png"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_may_come_several_times(tmp_path: Path, kind: str) -> None:
    save_noise(tmp_path, 2)
    pairs = [("001.png", "one"), ("000.png", "zero"), ("001.png", "uno"), ("001.png", "one")]
    write_list(tmp_path, kind, [{"file_name": name, "text": text, "whose": name[2]} for name, text in pairs])
    found = opened(tmp_path, group_column="whose")
    assert named(found) == {"001.png": ("one", "uno"), "000.png": ("zero",)}
    assert found.groups == ["1", "0"]
    assert opened(tmp_path, group_column="file_name").groups == ["001.png", "000.png"]


def test_a_cell_may_hold_a_list(tmp_path: Path) -> None:
    save_noise(tmp_path, 2)
    write_list(
        tmp_path, "jsonl", [{"file_name": "000.png", "text": ["a", "b", "a"]}, {"file_name": "001.png", "text": "c"}]
    )
    assert named(opened(tmp_path)) == {"000.png": ("a", "b"), "001.png": ("c",)}


def test_the_column_is_named_where_it_is_not_clear(tmp_path: Path) -> None:
    save_noise(tmp_path, 2)
    names = ["000.png", "001.png"]
    rows = [{"file_name": n, "text": "t", "prompt": "p", "n": "12", "de": "ein Fuchs"} for n in names]
    write_list(tmp_path, "csv", rows)
    refused(tmp_path, r"metadata\.csv has several columns .* \(text, prompt\): name one with --data\.caption-column")
    assert opened(tmp_path, caption_column="de").captions == [("ein Fuchs",)] * 2
    refused(tmp_path, r"caption_column is fr, which doesn't exist .* columns: text, prompt, n, de", caption_column="fr")
    refused(tmp_path, r"column n of .* must hold words.* numbers alone, as 12\. Name another", caption_column="n")
    write_list(tmp_path, "csv", [{"file_name": n, "de": "ein Fuchs"} for n in names])
    refused(tmp_path, r"no column called text, caption, captions or prompt: name .* --data\.caption-column.*: de\.")
    write_list(tmp_path, "csv", [{"file_name": n} for n in names])
    refused(tmp_path, r"Its columns: none\.")


@pytest.mark.parametrize("value", [3, True, {"a": "b"}, ["a", 2]])
def test_a_column_of_other_things_holds_no_words(tmp_path: Path, value: Any) -> None:
    save_noise(tmp_path, 2)
    rows = [{"file_name": "000.png", "text": "fox"}, {"file_name": "001.png", "text": value}]
    write_list(tmp_path, "jsonl", rows)
    refused(tmp_path, r"column text of .*metadata\.jsonl must hold words.*\(001\.png in entry 2\)\. Name another")


@pytest.mark.parametrize("value", ["", " ", None, [], ["a", ""], [None]])
def test_images_of_a_list_without_a_caption(tmp_path: Path, value: Any) -> None:
    save_noise(tmp_path, 3)
    write_list(tmp_path, "jsonl", [{"file_name": f"00{k}.png", "text": value if k else "fox"} for k in range(3)])
    refused(
        tmp_path,
        r"2 of 3 captions in the column text of .*metadata\.jsonl are missing or empty, the first is that of 001\.png "
        r"in entry 2\. Write them, remove these images, or name another column with --data\.caption-column",
    )


def test_groups_that_cannot_be_used(tmp_path: Path) -> None:
    save_noise(tmp_path, 2)
    rows = [
        {"file_name": "000.png", "text": "a", "who": "x", "some": "", "size": 0.5},
        {"file_name": "001.png", "text": "b", "who": "y", "some": "z", "size": 1.5},
        {"file_name": "000.png", "text": "c", "who": "y", "some": "z", "size": 2.5},
    ]
    write_list(tmp_path, "jsonl", rows)
    refused(tmp_path, r"who of .* puts 000\.png into two groups, 'x' in entry 1 and 'y' in entry 3", group_column="who")
    refused(
        tmp_path,
        r"1 of 3 groups in the column some .* 000\.png in entry 1\. .*--data\.group-column",
        group_column="some",
    )
    refused(tmp_path, r"column size .* whole numbers, and holds 0\.5 \(000\.png in entry 1\)", group_column="size")
    refused(
        tmp_path, r"group_column is no, which doesn't exist .*: file_name, text, who, some, size", group_column="no"
    )


def test_two_lists_are_refused(tmp_path: Path) -> None:
    save_noise(tmp_path, 1)
    for kind in ("csv", "jsonl"):
        write_list(tmp_path, kind, [{"file_name": "000.png", "text": "a"}])
    refused(tmp_path, r"both a metadata\.csv and a metadata\.jsonl\. Remove one")


@pytest.mark.parametrize("column", ["caption_column", "group_column"])
def test_without_a_list_there_are_no_columns(tmp_path: Path, column: str) -> None:
    save_images(tmp_path, "fox.png", "owl.png")
    refused(
        tmp_path, rf"data\.{column} is x, but .* without metadata\.csv .* no columns\. Leave it out", **{column: "x"}
    )
    with pytest.raises(ConfigError, match=r"caption_column is x, and with data\.captions names no column is read"):
        opened(tmp_path, captions="names", caption_column="x")


# Text files


@pytest.mark.parametrize("captions", ["found", "files"])
def test_text_files_beside_the_images(tmp_path: Path, captions: Any) -> None:
    save_images(tmp_path, "fox.png", "deep/red.owl.png")
    (tmp_path / "fox.txt").write_bytes("\ufeff A fox \r\n\r\n\u00c9in\u2028Fuchs\r\nA fox\r\n".encode())
    (tmp_path / "deep" / "red.owl.TXT").write_text("an owl")
    (tmp_path / "README.txt").write_text("by somebody")
    (tmp_path / "x.npy").write_bytes(b"")
    found = opened(tmp_path, captions=captions)
    assert named(found) == {"deep/red.owl.png": ("an owl",), "fox.png": ("A fox", "\u00c9in\u2028Fuchs")}
    assert found.notes == [
        "left out 1 file of other kinds: .npy 1",
        "left out 1 .txt without an image beside them: README.txt",
    ]


def test_text_files_may_go_with_a_list(tmp_path: Path) -> None:
    save_images(tmp_path, "fox.png", "owl.png", "cat.png")
    for name in ("fox", "owl", "cat"):
        (tmp_path / f"{name}.txt").write_text(f"the {name}")
    write_list(tmp_path, "csv", [{"file_name": f"{n}.png", "text": "", "whose": n[0]} for n in ("owl", "fox")])
    found = opened(tmp_path, captions="files", group_column="whose")
    assert named(found) == {"owl.png": ("the owl",), "fox.png": ("the fox",)}
    assert found.groups == ["o", "f"]
    assert found.notes == ["left out 1 images that metadata.csv doesn't name: cat.png"]


def test_text_files_that_cannot_be_used(tmp_path: Path) -> None:
    save_images(tmp_path, "a/fox.png", "a/owl.png", "b.png")
    (tmp_path / "a" / "fox.txt").write_text("a fox")
    refused(
        tmp_path,
        r"2 of the 3 images in .* have no caption: there is no a/owl\.txt beside a/owl\.png, the first .* "
        r"--data\.captions names\. .*metadata\.csv",
    )
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "a" / "owl.txt").write_text(" \n\n")
    refused(tmp_path, r"1 of the 3 images in .* have an empty caption: there is no word in a/owl\.txt, the first")
    (tmp_path / "a" / "owl.txt").write_bytes(b"caf\xe9")
    refused(tmp_path, r"a/owl\.txt is not in UTF-8: .*\. Save it in UTF-8")
    (tmp_path / "a" / "owl.txt").unlink()
    (tmp_path / "a" / "owl.txt").symlink_to(tmp_path / "nowhere")
    refused(tmp_path, r"a/owl\.txt can't be read: .*\. Make it readable")


def test_parts_of_a_set_are_refused_whatever_the_captions(tmp_path: Path) -> None:
    save_images(tmp_path, "train/fox.png", "test/owl.png")
    for captions in ("found", "files", "names"):
        refused(tmp_path, "holds splits", captions=captions)


# Names


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("red_fox-02.png", "red fox"),
        ("Red.Fox.png", "Red Fox"),
        ("deep/red__fox_1_2.png", "red fox"),
        ("cat001.png", "cat"),
        ("fox (2).png", "fox"),
        ("2_foxes.png", "2 foxes"),
        ("-fox-.png", "fox"),
        ("cafe\u0301.png", "caf\u00e9"),
    ],
)
def test_names_of_files(tmp_path: Path, name: str, caption: str) -> None:
    save_images(tmp_path, name, "zebra.png")
    assert opened(tmp_path, captions="names").captions == [(caption,), ("zebra",)]


def test_names_leave_out_text_files_aloud(tmp_path: Path) -> None:
    save_images(tmp_path, "fox.png", "owl.png")
    (tmp_path / "fox.txt").write_text("another")
    assert opened(tmp_path, captions="names").notes == ["left out 1 file of other kinds: .txt 1"]


def test_names_that_say_nothing(tmp_path: Path) -> None:
    save_images(tmp_path / "numbers", "001.png", "2024-01-02.png")
    refused(
        tmp_path / "numbers", r"say nothing: without numbers nothing is left .*001\.txt beside 001", captions="names"
    )
    save_images(tmp_path / "camera", "IMG_0001.png", "IMG_0002.png")
    refused(tmp_path / "camera", r"names of the 2 images in .* all are 'IMG'\. Rename them", captions="names")
    save_images(tmp_path / "some", "fox.png", "owl.png", "17.png")
    refused(tmp_path / "some", r"no word in 1 of the 3 names .* first is 17\.png\. Rename them", captions="names")


# Tables of the library datasets


def save_table(path: Path, columns: dict[str, list[Any]]) -> None:
    import datasets

    count = len(next(iter(columns.values())))
    pictures = [{"bytes": encoded(Image.fromarray(noise(8, 8, 3))), "path": None} for _ in range(count)]
    table = datasets.Dataset.from_dict({"image": pictures, **columns})
    table.cast_column("image", datasets.Image()).save_to_disk(str(path))


def test_the_column_of_a_table(tmp_path: Path) -> None:
    save_table(tmp_path / "t", {"text": ["Fox ", "owl"], "several": [["a", "b"], ["c"]], "who": [3, 4]})
    found = opened(tmp_path / "t")
    assert found.captions == [("Fox",), ("owl",)]
    assert (found.groups, found.notes) == (None, [])
    found = opened(tmp_path / "t", caption_column="several", group_column="who")
    assert found.captions == [("a", "b"), ("c",)]
    assert found.groups == ["3", "4"]


def test_further_columns(tmp_path: Path) -> None:
    columns = {"text": ["Fox", "owl", "cat"], "n": [3, None, 4], "several": [["a"], ["b"], ["c"]]}
    save_table(tmp_path / "t", columns)
    config = CaptionedDataConfig(str(tmp_path / "t"))
    assert open_columns(config, ["n", "text"], "x") == {"n": ["3", None, "4"], "text": columns["text"]}
    with pytest.raises(DataError, match=r"^x is no, which doesn't exist in .*n \(int64\)"):
        open_columns(config, ["no"], "x")
    with pytest.raises(DataError, match=r"^x is several, which must hold words, .* holds \['a'\]\. Name another"):
        open_columns(config, ["several"], "x")
    (tmp_path / "list").mkdir()
    save_images(tmp_path / "list", "fox.png", "owl.png")
    rows = [("owl", "red", ""), ("fox", "grey", "2"), ("owl", "blue", "1")]
    write_list(tmp_path / "list", "csv", [{"file_name": f"{a}.png", "text": a, "c": b, "n": n} for a, b, n in rows])
    config = CaptionedDataConfig(str(tmp_path / "list"))
    assert named(open_captioned(config)) == {"owl.png": ("owl",), "fox.png": ("fox",)}
    assert open_columns(config, ["c", "n"], "x") == {"c": ["red", "grey"], "n": [None, "2"]}
    with pytest.raises(DataError, match=r"^x is no, .*metadata\.csv\. Name one of its columns: text, c, n\.$"):
        open_columns(config, ["no"], "x")
    save_images(tmp_path / "names", "fox.png", "owl.png")
    with pytest.raises(DataError, match=r"^x is c, but .* has no metadata\.csv or metadata\.jsonl"):
        open_columns(CaptionedDataConfig(str(tmp_path / "names"), captions="names"), ["c"], "x")


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    table = tmp_path / "t"
    save_table(
        table, {"a": ["Fox", None, ""], "n": [1, 2, 3], "text": ["x"] * 3, "prompt": ["y"] * 3, "g": [1, None, 1]}
    )
    where = re.escape(str(table))
    refused(table, rf"{where} has several columns .* \(text, prompt\): name one with --data\.caption-column")
    refused(table, rf"caption_column is no, which doesn't exist in {where}.*n \(int64\)", caption_column="no")
    refused(table, rf"column n of {where} must hold words.* 1 \(image 0\)\. Name another", caption_column="n")
    refused(table, r"column image of .* must hold words", caption_column="image")
    refused(table, r"2 of 3 captions in the column a .* that of image 1\. Write them", caption_column="a")
    refused(table, r"group_column is no, which doesn't exist", caption_column="text", group_column="no")
    refused(table, r"1 of 3 groups in the column g .* of image 1\.", caption_column="text", group_column="g")
    for captions in ("files", "names"):
        refused(table, rf"captions is {captions}, but .* is a table, whose .* Leave it out", captions=captions)
    save_table(tmp_path / "none", {"words": ["a", "b"]})
    refused(tmp_path / "none", r"no column called text.*image \(Image\), words \(string\)\.")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    refused(tmp_path, "No images in")
    save_noise(tmp_path, 1)
    refused(tmp_path / "000.png", "is a file")
    refused(tmp_path / "nowhere", "no folder of that name, and not a Hub id")
    with pytest.raises(ConfigError, match=r"data\.source must be a folder or a data set id"):
        CaptionedDataConfig("")
    with pytest.raises(ConfigError, match=r"data\.captions must be found, files or names, and is 'text'"):
        CaptionedDataConfig("x", captions="text")
    with pytest.raises(ConfigError, match=r"data\.resolution must be at least 4"):
        CaptionedDataConfig("x", resolution=2)
