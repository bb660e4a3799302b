"""`logsnr compare guidance`: one model in several ways, one table, one picture, and nothing drawn twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Finished
from PIL import Image

Run = Callable[..., Finished]
FEW = ("--evaluate.num", 20, "--evaluate.steps", 4)


@pytest.fixture
def run(tiny: list[str], tmp_path: Path, logsnr: Run) -> Path:
    end = logsnr("train", *tiny, "--out", tmp_path / "run", "--train.keep-guide", 0.5)
    assert end.status == 0, end.output
    return tmp_path / "run"


def test_every_way_at_every_scale(run: Path, logsnr: Run) -> None:
    command = ("compare", "guidance", run, "--scales", 2, 4, "--projected", *FEW)
    dry = logsnr(*command, "--dry-run")
    assert "Would draw 20 images 9 times in 4 steps: without guidance, and with scale 2, 4 classifier" in dry.output
    assert not (run / "guidance.json").exists()

    end = logsnr(*command)
    assert end.status == 0, end.output
    rows = json.loads((run / "guidance.json").read_text())
    ways = ["classifier-free", "in 0.2 to 0.8", "projected", "away from the guide"]
    assert [(row["way"], row["scale"]) for row in rows] == [
        ("", 1),
        *((way, scale) for way in ways for scale in (2, 4)),
    ]
    assert len({row["figures"]["fid"]["value"] for row in rows}) == len(rows)
    assert all(0 <= row["figures"]["class"]["value"] <= 1 for row in rows)
    assert Image.open(run / "guidance.png").width > 1000
    assert "Least FID: " in end.output

    made = {path: path.stat().st_mtime_ns for path in (run / "evaluation").rglob("*") if path.is_file()}
    assert logsnr(*command).status == 0
    assert json.loads((run / "guidance.json").read_text()) == rows
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_what_cannot_be_compared_is_refused(run: Path, tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    for wrong, message in (
        (("--scales", 1, 2), "--scales must be above 0, none of them 1"),
        (("--intervals", 0.8, 0.2), "guidance.interval must be two shares"),
        (("--evaluate.guidance-scale", 2), "play no part here"),
        (("--guide", tmp_path), "guidance.guide: "),
    ):
        assert message in logsnr("compare", "guidance", run, *FEW, *wrong).message
    assert "logsnr compare guidance" in logsnr("compare").output

    alone = tmp_path / "alone"
    assert logsnr("train", *tiny, "--out", alone, "--condition.name", "none").status == 0
    assert "which a weaker model alone can guide" in logsnr("compare", "guidance", alone, *FEW).message
