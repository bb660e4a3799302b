"""`logsnr train` as a command: its presets, its help, and that a dry run leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Command, Finished, without_boxes

from logsnr.settings.presets import presets
from logsnr.settings.run import HIDDEN, RunConfig, flat, from_record

Run = Callable[..., Finished]

# Presets


@pytest.mark.parametrize("preset", presets())
def test_help_of_train_names_every_setting_and_its_value(preset: str, logsnr: Run) -> None:
    end = logsnr("train", preset, "--help")
    assert end.status == 0
    text = without_boxes(end.output)
    for name in flat(presets()[preset].config):
        if name == "kind" or name in HIDDEN:  # the preset's, and what no flag gives
            continue
        flag = name.replace("_", "-")
        assert f"--{flag} " in text or f"--{flag}," in text, flag
    assert f"(default: {presets()[preset].config.train.num_steps})" in text


def test_help_of_train_names_every_preset(logsnr: Run) -> None:
    text = without_boxes(logsnr("train", "--help").output)
    for name, preset in presets().items():
        assert name in text
        assert preset.text in text


def test_a_wrong_preset_is_answered_by_the_presets(logsnr: Run) -> None:
    for argv, problem in [
        (("images64", "--out", "x"), "there is no preset 'images64'. Did you mean images-64 or images-32?"),
        (("--out", "x", "smoke"), "the preset comes first, before --out."),
    ]:
        end = logsnr("train", *argv)
        assert end.status == 2
        assert end.output.startswith(f"logsnr train: {problem}\n\nusage: logsnr train PRESET --out DIR")
        for name, preset in presets().items():
            assert re.search(rf"(?m)^  {name} +{re.escape(preset.text)}$", end.output)
        assert len(end.output.splitlines()) < 20
    assert logsnr("train").status == 2
    assert logsnr("train").output == logsnr("train", "--help").output


# Interrupted


def test_interrupted_before_training_it_just_ends(tiny: list[str], tmp_path: Path) -> None:
    command = Command(tmp_path / "log.txt", ["train", *tiny, "--out", str(tmp_path / "run")], read_slowly)
    command.wait_until(lambda: (tmp_path / "log.txt").exists() and "slowly" in (tmp_path / "log.txt").read_text())
    command.send(signal.SIGINT)
    end = command.wait()
    assert end.status == 130
    assert "Traceback" not in end.output


def read_slowly() -> None:
    import logsnr.data.scan

    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=os.environ["XDG_CACHE_HOME"])  # nothing was read before
    fit = logsnr.data.scan.fit

    def slow(*arguments: Any) -> Any:
        print("slowly", flush=True)
        time.sleep(0.1)
        return fit(*arguments)

    logsnr.data.scan.fit = slow


# Dry runs


def test_dry_run_of_train_shows_everything_and_writes_nothing(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    end = logsnr("train", *tiny, "--out", tmp_path / "run", "--dry-run")
    assert end.status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]
    shown, brace, rest = end.output.rpartition("\n}\n")
    config = from_record(json.loads(shown + brace))
    assert isinstance(config, RunConfig)
    assert config.train.num_steps == 12
    assert "38 training and 2 held-out images, 8x8, gray, 8 bit, 2 classes" in rest
    assert "12 steps of 4 images a process: 1.3 times through the data" in rest
    assert f"The command begins a run in {tmp_path / 'run'}; nothing was written." in rest

    assert logsnr("train", *tiny, "--out", tmp_path / "run").status == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"] == json.loads(shown + brace)["config"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    end = logsnr("train", *tiny, "--out", tmp_path / "run", "--dry-run")
    assert f"The command goes on with the run in {tmp_path / 'run'}; nothing was written." in end.output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_dry_run_finds_what_would_be_refused(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    arguments = ("train", *tiny, "--out", tmp_path / "run", "--dry-run")
    for option, value, words in [
        ("--data.source", "/nowhere", "/nowhere"),
        ("--schedule.name", "cosin", "Did you mean cosine?"),
        ("--init-from", "./nowhere", "There is no folder ./nowhere"),
    ]:
        assert words in logsnr(*arguments, option, value).message
