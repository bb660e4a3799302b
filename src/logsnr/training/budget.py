"""A time -> the number of steps that fit into it, everything else included.

A trial of some steps, with as many pictures and measurements as the run will have, tells what a step takes (the median)
and what comes on top of all steps: opening the data, pictures, held-out losses, checkpoints, the export. What is left
of the time then goes into steps. The choice is written into the run's config.json; whoever goes on with the run takes
it from there and measures nothing, so that a run is as reproducible as one whose number of steps was given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from logsnr.base.errors import ConfigError
from logsnr.folders.run_folder import is_run, read_run
from logsnr.settings.run import RunConfig, TrainConfig
from logsnr.training.train import train

_STEPS_A_LOOK, _UNSTEADY = 12, 3
"""Steps of the trial between two looks, and how many of them, the first, aren't counted."""
_FEWEST_STEPS = 50
_CHECKPOINT_SECONDS = 180
_CHOSEN = ("budget", "num_steps", "lr_warmup_steps", "checkpoint_every", "held_out_every", "sample_every")
"""Settings that a budget decides."""


def within(config: RunConfig, seconds: int, run: Path) -> RunConfig:
    """`config` with as many steps as fit into `seconds` from the start of this process on.

    A run that is there already keeps the number that was chosen when it began. Raises ConfigError where the time is too
    short, where the run was begun with another, or where several processes train together.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "--budget must be left to a single process, and several were started: give --train.num-steps."
        )
    if is_run(run):
        return _as_begun(config, seconds, run)
    looks = 2 if seconds < 3600 else 8
    print("A trial, to see what fits into the time:")
    step, rest = _trial(config, looks)
    left = seconds - (time.time() - psutil.Process().create_time()) - rest
    num_steps = int(left / step)
    if num_steps < _FEWEST_STEPS:
        least = seconds - left + _FEWEST_STEPS * step
        raise ConfigError(
            f"--budget must leave time for {_FEWEST_STEPS} steps at least, which take {step:.2g} s each here, and "
            f"{seconds - left:.0f} s go into the rest: give {least:.0f}s or more, or take a smaller network."
        )
    print(f"{num_steps} steps of {step:.2g} s, and {rest:.0f} s for pictures, measurements and the model.")
    options = _sized(config.train, num_steps, looks)
    every = max(1, min(options.checkpoint_every, int(_CHECKPOINT_SECONDS / step)))
    return dataclasses.replace(config, train=dataclasses.replace(options, budget=seconds, checkpoint_every=every))


def _as_begun(config: RunConfig, seconds: int, run: Path) -> RunConfig:
    _, begun = read_run(run)
    if begun.train.budget != seconds:
        how = f"a budget of {begun.train.budget} s" if begun.train.budget else "a number of steps"
        raise ConfigError(f"--budget must be what the run in {run} began with: {how}. Or name another --out.")
    chosen = {name: getattr(begun.train, name) for name in _CHOSEN}
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **chosen))


def _trial(config: RunConfig, looks: int) -> tuple[float, float]:
    """Seconds of a step, and of all the rest of a run with that many looks at it."""
    num_steps = looks * _STEPS_A_LOOK
    options = dataclasses.replace(_sized(config.train, num_steps, looks), log_every=1)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        start = time.monotonic()
        if not train(dataclasses.replace(config, train=options), Path(folder) / "trial").finished:
            raise KeyboardInterrupt
        total = time.monotonic() - start
        lines = (Path(folder) / "trial" / "logs" / "train.jsonl").read_text().splitlines()
    at = {line["step"]: line["seconds"] for line in map(json.loads, lines) if "seconds" in line}
    steady = [at[k] - at[k - 1] for k in range(2, num_steps + 1) if (k - 1) % _STEPS_A_LOOK >= _UNSTEADY]
    step = statistics.median(steady)
    return step, total - num_steps * step


def _sized(train_config: TrainConfig, num_steps: int, looks: int) -> TrainConfig:
    """The settings for a run of that length, which is looked at so many times, at last in the end."""
    every = -(-num_steps // looks)
    return dataclasses.replace(
        train_config,
        num_steps=num_steps,
        lr_warmup_steps=min(train_config.lr_warmup_steps, num_steps // 10),
        checkpoint_every=every,
        held_out_every=every if train_config.held_out_every else 0,
        sample_every=every if train_config.sample_every else 0,
    )
