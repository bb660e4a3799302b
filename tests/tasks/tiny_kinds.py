"""A tiny set of data of each kind, and a training of it that takes seconds, for test_kinds.py."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

_TINY = [
    *("--train.batch-size", "8", "--train.num-steps", "60", "--train.checkpoint-every", "20", "--train.log-every", "1"),
    *("--train.mixed-precision", "no", "--train.tracker", "none", "--train.lr-warmup-steps", "2"),
    *("--train.held-out-every", "30", "--train.sample-every", "0", "--schedule.num-train-timesteps", "20"),
]


@dataclass(frozen=True)
class TinyKind:
    """How the kind is tried.

    make: writes its data into a folder.
    preset, arguments: of `logsnr train`, but for --data.source and --out.
    asks: of `logsnr sample`, for one of what there is to ask for.
    judges: of `logsnr evaluate`: attributes, which it must then judge.
    stock: the class that stock diffusers loads RUN/model as, without code.
    scheduler: another that draws with it too, of `logsnr sample`.
    states: whether its samples are states, which some commands can't take.
    """

    make: Callable[[Path], None]
    preset: str
    arguments: list[str]
    asks: list[str]
    judges: list[str]
    stock: str | None
    scheduler: str = "DDIM"
    states: bool = False


def _pictures(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    names = []
    for k in range(24):
        pixels = (60 + 130 * (k % 2) + rng.normal(0, 8, (8, 8, 3))).clip(0, 255).astype(np.uint8)
        names.append(f"{k:02}.png")
        Image.fromarray(pixels).save(folder / names[-1])
    return names


def _images(folder: Path) -> None:
    _pictures(folder)


def _captioned(folder: Path) -> None:
    shades = ("dark", "light")
    rows = [(name, f"{shades[k % 2]} number {k}", shades[k % 2]) for k, name in enumerate(_pictures(folder))]
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "text", "shade"), *rows])


def _texts(folder: Path) -> None:
    """Documents of two classes, each of a word of its own."""
    for name, words in (("low", ("ant", "bee", "cow", "doe")), ("high", ("EMU", "FOX", "GNU", "HEN"))):
        (folder / name).mkdir()
        for word in words:
            (folder / name / f"{word}.txt").write_text(" ".join([word] * 10))


_NET = [
    *("--data.resolution", "8", "--data.held-out-fraction", "0.25", "--model.norm-num-groups", "4"),
    *("--model.block-out-channels", "8", "--model.attention-levels", "0", "--model.attention-head-dim", "4"),
]

KINDS = {
    "image": TinyKind(
        make=_images,
        preset="images-32",
        arguments=[*_TINY, *_NET],
        asks=[],
        judges=[],
        stock="DDPMPipeline",
    ),
    "text-to-image": TinyKind(
        make=_captioned,
        preset="captions-32",
        arguments=[*_TINY, *_NET, "--model.cross-attention-dim", "8", "--condition.text-encoder", "scratch"],
        asks=["--prompts", "light number 3", "dark"],
        judges=["shade"],
        stock="IFPipeline",
    ),
    "text": TinyKind(
        make=_texts,
        preset="text-128",
        arguments=[
            *(*_TINY, "--data.length", "12", "--data.held-out-fraction", "0.25", "--model.hidden-size", "16"),
            *("--model.num-hidden-layers", "1", "--model.num-attention-heads", "2", "--model.intermediate-size", "16"),
            *("--model.dropout", "0.1"),
        ],
        asks=["--prompts", "ant", "--class-labels", "low"],
        judges=[],
        stock="LLaDA2Pipeline",
        scheduler="BlockRefinement",
        states=True,
    ),
}
