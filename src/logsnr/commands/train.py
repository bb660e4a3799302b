"""`logsnr train PRESET`: a preset, and what is said otherwise, becomes a run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import tyro

from logsnr.base.errors import ConfigError
from logsnr.commands.configure import RunSections, configured, no_preset, require_objective, sections
from logsnr.commands.parse import parse
from logsnr.commands.training_run import run_training
from logsnr.settings.flags import given
from logsnr.settings.presets import presets
from logsnr.settings.run import RunConfig


@dataclass(frozen=True)
class TrainArguments(RunSections):
    """Train a model, or go on with one: the same command again resumes."""

    out: Path
    """The run folder: configuration, checkpoints, logs, samples, and in the end the model."""
    budget: str | None = None
    """A time, such as 30m or 8h, in the place of --train.num-steps: as many steps as fit into it, all else included. A
    short trial finds out how many; the run keeps that number when it is resumed."""
    dry_run: bool = False
    """Show the data and the configuration, check them, and stop."""


_USAGE = """usage: logsnr train PRESET --out DIR [--SECTION.SETTING VALUE …]

Train a model, or go on with one: the same command again resumes. A preset is a complete configuration:

{choices}

Given a time, --budget 30m, it takes as many steps as fit into it.
`logsnr train PRESET --help` shows every setting with its value. See what would be done: --dry-run"""


def main(argv: list[str]) -> int:
    status = no_preset(argv, "logsnr train", _USAGE)
    if status is not None:
        return status
    config, arguments = parse_train(argv[0], argv[1:])
    if arguments.budget is not None:
        if "train.num_steps" in given(argv):
            raise ConfigError("--budget chooses the number of steps: leave --train.num-steps out.")
        seconds = seconds_in(arguments.budget)
        from logsnr.training.budget import within
        from logsnr.training.runs import require_place

        require_place(arguments.out, config)
        config = within(config, seconds, arguments.out)
    return run_training(config, arguments.out, arguments.dry_run)


def parse_train(preset: str, argv: list[str]) -> tuple[RunConfig, TrainArguments]:
    """What `logsnr train PRESET` is to do: the preset, and what is said otherwise."""
    chosen_preset = presets()[preset]
    require_objective(argv, "train", chosen_preset.config.schedule)
    arguments = parse(
        TrainArguments,
        argv,
        prog=f"logsnr train {preset}",
        description="Train a model, or go on with one: the same command again resumes. The preset: "
        f"{chosen_preset.text}.",
        default=TrainArguments(tyro.MISSING, **sections(chosen_preset.config)),
    )
    return configured(chosen_preset.config, arguments), arguments


def seconds_in(budget: str) -> int:
    """The seconds in a time such as 90s, 30m, 8h or 1h30m."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", budget.replace(" ", ""))
    if found is None or not any(found.groups()):
        raise ConfigError(f"--budget must be a time such as 90s, 30m, 8h or 1h30m, and is {budget!r}.")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds
