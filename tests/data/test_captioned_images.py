"""logsnr.data.captioned_images on tiny real images, with a tokenizer of one token a letter."""

from __future__ import annotations

import csv
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import noise, save_noise
from PIL import Image

from logsnr.base.errors import DataError
from logsnr.data.captioned_images import CaptionedData, Tokens, open_captioned_images
from logsnr.data.images import open_images
from logsnr.settings.image import DataConfig
from logsnr.settings.text_to_image import CaptionedDataConfig

LENGTH = 77


class Letters:
    """Code points in a row of 77, cut where there are more."""

    digest = "letters"

    def __call__(self, texts: list[str]) -> Tokens:
        ids = np.zeros((len(texts), LENGTH), np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = [ord(letter) for letter in text[:LENGTH]]
        return ids, (ids > 0).astype(np.int64)


def opened(folder: Path, digest: str = "", **settings: Any) -> CaptionedData:
    settings = {"resolution": 8, "held_out_fraction": 0, **settings}
    return open_captioned_images(CaptionedDataConfig(str(folder), **settings), lambda _: Letters(), digest)


def text(ids: Any) -> str:
    return "".join(chr(k) for k in ids if k)


def write_list(folder: Path, rows: list[tuple[str, ...]], *columns: str) -> None:
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "text", *columns), *rows])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images; the first has three captions."""
    save_noise(tmp_path, 4)
    rows = [("000.png", "A Fox"), ("001.png", "owl"), ("000.png", "ein Fuchs"), ("000.png", "volpe")]
    write_list(tmp_path, [*rows, ("002.png", "OWL"), ("003.png", "cat")])
    return tmp_path


def test_a_batch_has_images_and_the_tokens_of_their_captions(folder: Path) -> None:
    data = opened(folder)
    batch = next(data.in_order("train", 9))
    assert batch.condition.keys() == {"input_ids", "attention_mask"}
    ids, mask = batch.condition["input_ids"], batch.condition["attention_mask"]
    assert ids.shape == mask.shape == (4, LENGTH)
    assert ids.dtype == mask.dtype == torch.int64
    assert [text(row) for row in ids] == ["a fox", "owl", "owl", "cat"]
    assert torch.equal(mask, (ids > 0).long())
    plain = open_images(DataConfig(str(folder), resolution=8, channels=3, held_out_fraction=0), labelled=False)
    assert torch.equal(batch.clean, next(plain.in_order("train", 9)).clean)
    examples = data.examples
    assert [examples.caption(k) for k in range(4)] == ["A Fox", "owl", "OWL", "cat"]
    assert [text(c["input_ids"]) for c in data.conditions("train")] == ["a fox", "owl", "owl", "cat"]
    assert (examples.shape, examples.bits, examples.noun, len(examples)) == ((3, 8, 8), 8, "image", 4)
    assert data.description == "4 training and 0 held-out images, 8x8, RGB, 8 bit, 5 captions"


def test_each_caption_of_an_image_has_its_turn_whichever_way_it_looks(folder: Path) -> None:
    examples = opened(folder, horizontal_flip=True).examples
    plain = examples.read(0, None)
    assert text(plain.condition["input_ids"]) == "a fox"
    shown = Counter()
    for seed in np.random.default_rng(0).integers(0, 1 << 63, 600).tolist():
        found = examples.read(0, seed)
        mirrored = not np.array_equal(found.clean, plain.clean)
        assert mirrored == bool(seed & 1)
        shown[text(found.condition["input_ids"]), mirrored] += 1
    assert {caption for caption, _ in shown} == {"a fox", "ein fuchs", "volpe"}
    assert len(shown) == 6
    assert min(shown.values()) > 60
    assert {text(examples.read(1, seed).condition["input_ids"]) for seed in range(50)} == {"owl"}


def test_all_tokens_that_can_be_shown_come_once(tmp_path: Path) -> None:
    save_noise(tmp_path, 4)
    long = "x" * LENGTH
    write_list(tmp_path, [(f"00{k}.png", caption) for k, caption in enumerate(["owl", "Owl", long, long + "y"])])
    data = opened(tmp_path)
    ids, mask = data.examples.unique_tokens()
    assert text(ids[0]) == ""
    assert sorted(map(text, ids)) == ["", "owl", long]
    assert np.array_equal(mask, ids > 0)


def test_workers_change_nothing(folder: Path) -> None:
    again = pickle.loads(pickle.dumps(opened(folder).examples))
    assert text(again.read(3, None).condition["input_ids"]) == "cat"
    assert again.fingerprint == opened(folder).examples.fingerprint


def test_captions_stay_with_their_images_when_files_are_skipped(folder: Path) -> None:
    (folder / "001.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 4 images can't be read"):
        opened(folder)
    data = opened(folder, skip_unreadable=True)
    assert [data.examples.caption(k) for k in range(3)] == ["A Fox", "OWL", "cat"]
    assert data.examples.complaints == ["skipped 001.png (empty file)"]
    assert data.description.endswith("5 captions; 1 unreadable file skipped")


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    for name in ("fox", "owl"):
        Image.fromarray(noise(8, 8, 3)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("a picture")
    (tmp_path / "bat.txt").write_text("a bat")
    data = opened(tmp_path)
    assert data.examples.complaints == ["left out 1 .txt without an image beside them: bat.txt"]
    assert data.description.endswith("8 bit, 1 caption")


def test_the_fingerprint_follows_all_that_can_be_shown(folder: Path) -> None:
    rows = [(f"00{k}.png", caption, "ab"[k % 2]) for k, caption in enumerate(["fox", "owl", "owl", "cat"])]

    def fingerprint(rows: list[tuple[str, ...]] = rows, digest: str = "", **settings: Any) -> str:
        write_list(folder, rows, "whose")
        return opened(folder, digest, **settings).fingerprint

    original = fingerprint()
    assert fingerprint() == original
    others = [
        fingerprint([*rows[:3], ("003.png", "dog", "b")]),
        fingerprint([*rows, ("003.png", "kitten", "b")]),
        fingerprint(digest="words"),
        fingerprint(group_column="whose"),
        fingerprint([*rows[:3], ("003.png", "cat", "c")], group_column="whose"),
    ]
    Image.fromarray(noise(8, 8, 3)).save(folder / "000.png")
    others.append(fingerprint())
    assert len({original, *others}) == 7


# What is held out


def held_out(data: CaptionedData) -> set[int]:
    """Which images they are."""
    every = {data.examples.read(k, None).clean.tobytes(): k for k in range(len(data.examples))}
    return {every[image.numpy().tobytes()] for batch in data.in_order("held_out", 9) for image in batch.clean}


@pytest.mark.parametrize("column", [None, "whose"])
def test_what_belongs_together_is_held_out_together(tmp_path: Path, column: str | None) -> None:
    save_noise(tmp_path, 40)
    names = [f"{k:03}.png" for k in range(40)]
    rows = [(name, f"{'Aa'[k % 2]} fox {k // 4}", f"w{k // 10}") for k, name in enumerate(names)]
    write_list(
        tmp_path, [*rows, *[(name, "an animal", row[2]) for name, row in zip(names, rows, strict=True)]], "whose"
    )
    size, wanted = (4, 8) if column is None else (10, 10)
    found = held_out(opened(tmp_path, held_out_fraction=wanted / 40, group_column=column))
    assert len(found) == wanted
    assert Counter(k // size for k in found) == dict.fromkeys({k // size for k in found}, size)


def test_names_of_one_kind_are_held_out_together(tmp_path: Path) -> None:
    for k in range(20):
        Image.fromarray(noise(8, 8, 3)).save(tmp_path / f"kind_{'abcdefghij'[k // 2]}-{k}.png")
    data = opened(tmp_path, captions="names", held_out_fraction=0.1)
    captions = [data.examples.caption(k) for k in held_out(data)]
    assert len(captions) == 2
    assert len(set(captions)) == 1


def test_a_set_whose_groups_are_too_large_says_so(tmp_path: Path) -> None:
    save_noise(tmp_path, 20)
    rows = [(f"{k:03}.png", "ab"[k % 2]) for k in range(20)]
    write_list(tmp_path, rows)
    with pytest.raises(DataError, match=r"same caption .* 2 such groups of 20 images, and the smallest has 10\. Pass"):
        opened(tmp_path, held_out_fraction=0.05)
    assert opened(tmp_path).num_held_out == 0
    assert opened(tmp_path, held_out_fraction=0.5).num_held_out == 10
    assert opened(tmp_path, held_out_fraction=0.1, group_column="file_name").num_held_out == 2
    write_list(tmp_path, [(name, "a") for name, _ in rows])
    with pytest.raises(DataError, match=r"there are 1 such groups .*--data\.held-out-fraction 0"):
        opened(tmp_path, held_out_fraction=0.5)
