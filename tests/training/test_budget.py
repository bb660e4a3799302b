"""`logsnr train PRESET --budget TIME`: how many steps it chooses, keeps, and refuses. No time is asserted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Finished

from logsnr.base.errors import ConfigError
from logsnr.commands.train import parse_train, seconds_in
from logsnr.training.budget import within
from logsnr.training.train import train

Run = Callable[..., Finished]

BUDGET = 36_000
"""Seconds: so many that what the tests have taken already doesn't matter."""


@pytest.mark.parametrize(("budget", "seconds"), [("90s", 90), ("30m", 1800), ("8h", 28800), ("1h30m", 5400)])
def test_times(budget: str, seconds: int) -> None:
    assert seconds_in(budget) == seconds


@pytest.mark.parametrize("budget", ["", "10", "m", "half an hour", "1m1h", "-5m", "1.5h"])
def test_what_is_no_time(budget: str) -> None:
    with pytest.raises(ConfigError, match="--budget must be a time such as 90s, 30m, 8h or 1h30m, and is"):
        seconds_in(budget)


def test_a_budget_is_turned_into_steps_once(tiny: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    config, _ = parse_train("smoke", [*tiny[1:], "--train.sample-every", "5", "--out", "run"])
    chosen = within(config, BUDGET, Path("run"))
    assert chosen.train.budget == BUDGET
    assert chosen.train.num_steps > 10_000  # a tiny network's step takes less than seconds
    assert chosen.train.sample_every == -(-chosen.train.num_steps // 8)
    assert not any(tmp_path.iterdir())

    begun = replace(chosen, train=replace(chosen.train, num_steps=3))
    train(begun, "run")
    assert within(config, BUDGET, Path("run")) == begun  # as it was chosen once
    with pytest.raises(ConfigError, match="--budget must be what the run in run began with: a budget of"):
        within(config, BUDGET + 1, Path("run"))


def test_what_a_budget_does_not_go_with(tiny: list[str], logsnr: Run) -> None:
    both = logsnr("train", *tiny, "--out", "run", "--budget", "10m")
    assert "--budget chooses the number of steps: leave --train.num-steps out." in both.message
    at = tiny.index("--train.num-steps")
    short = logsnr("train", *tiny[:at], *tiny[at + 2 :], "--out", "run", "--budget", "2s")
    assert "--budget must leave time for 50 steps at least" in short.message
    assert not Path("run").exists()
