"""`logsnr train PRESET --budget TIME`: how many steps it chooses, keeps, and refuses. No time is asserted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Finished

from logsnr.base.errors import ConfigError
from logsnr.commands.train import seconds_in

Run = Callable[..., Finished]


def chosen(run: Path) -> dict[str, int]:
    settings: dict[str, int] = json.loads((run / "config.json").read_text())["config"]["train"]
    return settings


@pytest.mark.parametrize(("budget", "seconds"), [("90s", 90), ("30m", 1800), ("8h", 28800), ("1h30m", 5400)])
def test_times(budget: str, seconds: int) -> None:
    assert seconds_in(budget) == seconds


@pytest.mark.parametrize("budget", ["", "10", "m", "half an hour", "1m1h", "-5m", "1.5h"])
def test_what_is_no_time(budget: str) -> None:
    with pytest.raises(ConfigError, match="--budget must be a time such as 90s, 30m, 8h or 1h30m, and is"):
        seconds_in(budget)


def test_a_budget_is_turned_into_steps_once(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    at = tiny.index("--train.num-steps")
    arguments = [*tiny[:at], *tiny[at + 2 :], "--train.sample-every", "5", "--out", str(tmp_path / "run")]
    begun = logsnr("train", *arguments, "--budget", "25s")
    assert begun.status == 0, begun.output
    settings = chosen(tmp_path / "run")
    assert settings["budget"] == 25
    assert settings["num_steps"] >= 50
    assert f"{settings['num_steps']} steps of" in begun.output
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 2  # halfway and in the end

    again = logsnr("train", *arguments, "--budget", "25s")
    assert again.status == 0
    assert "A trial" not in again.output
    assert chosen(tmp_path / "run") == settings
    other = logsnr("train", *arguments, "--budget", "26s")
    assert "--budget must be what the run in" in other.message
    assert "began with: a budget of 25 s. Or name another --out." in other.message


def test_what_a_budget_does_not_go_with(tiny: list[str], logsnr: Run) -> None:
    both = logsnr("train", *tiny, "--out", "run", "--budget", "10m")
    assert "--budget chooses the number of steps: leave --train.num-steps out." in both.message
    at = tiny.index("--train.num-steps")
    short = logsnr("train", *tiny[:at], *tiny[at + 2 :], "--out", "run", "--budget", "2s")
    assert "--budget must leave time for 50 steps at least" in short.message
    assert not Path("run").exists()
