"""logsnr.data.folder: folders that aren't like ours. What isn't used is said, and what is unclear is refused."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from pathlib import Path

import pytest
from image_files import config, encoded, noise, save_noise
from PIL import Image

from logsnr.base.errors import DataError
from logsnr.data.images import ImageExamples, open_images


def examples(folder: Path) -> ImageExamples:
    return open_images(config(folder, held_out_fraction=0)).examples


def write_list(folder: Path, rows: list[tuple[str, str]]) -> None:
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "label"), *rows])


@pytest.mark.parametrize(
    "parts",
    [("Train", "TEST"), ("training", "Validation"), ("train_2", "val-2"), ("imagesTr", "imagesTs"), ("dev", "eval")],
)
def test_parts_of_a_set_are_not_classes(tmp_path: Path, parts: tuple[str, str]) -> None:
    for part in parts:
        save_noise(tmp_path / part / "cat", 2)
    with pytest.raises(DataError, match="holds splits"):
        examples(tmp_path)


def test_parts_beside_another_folder_are_not_classes(tmp_path: Path) -> None:
    for part in ("train", "test", "extra"):
        save_noise(tmp_path / part, 2)
    with pytest.raises(DataError, match=r"holds splits \(test, train\)"):
        examples(tmp_path)


def test_one_class_may_be_called_like_a_part(tmp_path: Path) -> None:
    for name in ("bus", "train", "tram"):
        save_noise(tmp_path / name, 2)
    assert examples(tmp_path).class_names == ["bus", "train", "tram"]


def test_numbers_as_folders_come_in_their_order(tmp_path: Path) -> None:
    for number in (0, 1, 2, 10, 11, -3):
        save_noise(tmp_path / str(number), 2)
    found = examples(tmp_path)
    assert found.class_names == ["-3", "0", "1", "2", "10", "11"]
    names = found.reading.names
    assert [found.class_names[found.condition(k)["class_labels"]] for k in range(len(found))] == [
        name.split("/")[0] for name in names
    ]


def test_accents_composed_or_not_are_one_class_and_one_file(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        save_noise(tmp_path / "set" / unicodedata.normalize(form, "café"), 2)
    save_noise(tmp_path / "set" / "tea", 2)
    found = examples(tmp_path / "set")
    assert found.class_names == ["café", "tea"]
    assert len(found) == 6
    listed = tmp_path / "listed"
    listed.mkdir()
    for name in ("é.png", "a.png"):
        Image.fromarray(noise(8, 8, 3)).save(listed / unicodedata.normalize("NFD", name))
    write_list(listed, [("é.png", "x"), ("./a.png", "y")])
    assert len(examples(listed)) == 2


def test_names_that_are_no_text_are_classes_all_the_same(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"tea"):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        for k in range(2):
            with open(folder + f"/{k}.png".encode(), "wb") as file:
                file.write(encoded(Image.fromarray(noise(8, 8, 3))))
    assert examples(tmp_path).class_names == ["caf\ufffd", "tea"]


def test_runs_models_and_pictures_of_ours_are_no_data(tmp_path: Path) -> None:
    save_noise(tmp_path, 4)
    save_noise(tmp_path / "run" / "samples", 1)
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    save_noise(tmp_path / "model", 1)
    (tmp_path / "model" / "model_index.json").write_text("{}")
    found = examples(tmp_path)
    assert len(found) == 4
    assert found.remarks == ["left out what logsnr made: model, run"]
    with pytest.raises(DataError, match="a folder that logsnr made"):
        examples(tmp_path / "run")


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    save_noise(tmp_path, 4)
    for name in ("a.npy", "b.npy", "README", "c.HEIC"):
        (tmp_path / name).write_bytes(b"")
    frames = [Image.fromarray(noise(8, 8)) for _ in range(3)]
    for name in ("stack.tif", "film.gif", "film.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert examples(tmp_path).remarks == [
        "of 3 files with several pages or frames the first is used: film.gif, film.webp, stack.tif",
        "left out 4 files of other kinds: .npy 2, .heic 1, no ending 1",
    ]
    assert examples(tmp_path).complaints == examples(tmp_path).remarks  # from the cache too


def test_files_of_a_list_count_once(tmp_path: Path) -> None:
    save_noise(tmp_path, 4)
    rows = [(f"{k:03}.png", "ab"[k % 2]) for k in (0, 1, 2, 0, 0, 1)]
    write_list(tmp_path, rows)
    found = examples(tmp_path)
    assert found.reading.names == ["000.png", "001.png", "002.png"]
    assert found.remarks == [
        "metadata.csv names 3 files again: each counts once",
        "left out 1 images that metadata.csv doesn't name: 003.png",
    ]
    write_list(tmp_path, [*rows, ("002.png", "b")])
    with pytest.raises(DataError, match=r"two labels, 'a' in entry 3 and 'b' in entry 7"):
        examples(tmp_path)
    assert len(open_images(config(tmp_path, held_out_fraction=0), labelled=False)) == 3


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c"])
def test_a_text_may_hold_any_character(tmp_path: Path, end: str) -> None:
    save_noise(tmp_path, 3)
    rows = [{"file_name": f"{k:03}.png", "text": f"one{end}two"} for k in range(3)]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows if end >= "\x20")
    (tmp_path / "metadata.jsonl").write_text(
        "\ufeff" + (text or "\n".join(json.dumps(row) for row in rows)), encoding="utf-8"
    )
    assert len(examples(tmp_path)) == 3


def test_classes_are_those_that_have_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_noise(tmp_path / name, 2)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.png").write_bytes(b"nothing")
    found = open_images(config(tmp_path, held_out_fraction=0, skip_unreadable=True)).examples
    assert found.class_names == ["a", "b"]
    assert found.remarks == ["1 class without a readable image left out: c"]


def test_images_that_use_few_of_their_bits_are_called_dark(tmp_path: Path) -> None:
    for name, scale in (("dark", 4095), ("light", 65535)):
        (tmp_path / name).mkdir()
        for k in range(3):
            values = noise(8, 8, dtype="uint16").astype(float) / 65535 * scale
            Image.fromarray(values.astype("uint16")).save(tmp_path / name / f"{k}.png")
    (line,) = examples(tmp_path / "dark").remarks
    assert "all but black" in line
    assert "white is 65,535. Multiply the values by 16" in line
    assert examples(tmp_path / "light").remarks == []
