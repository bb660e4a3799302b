"""`logsnr train PRESET`: a preset, and what is said otherwise, becomes a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from logsnr.commands.configure import RunSections, configured, no_preset, require_objective, sections
from logsnr.commands.parse import parse
from logsnr.commands.training_run import run_training
from logsnr.settings.presets import presets
from logsnr.settings.run import RunConfig


@dataclass(frozen=True)
class TrainArguments(RunSections):
    """Train a model, or go on with one: the same command again resumes."""

    out: Path
    """The run folder: configuration, checkpoints, logs, samples, and in the end the model."""
    dry_run: bool = False
    """Show the data and the configuration, check them, and stop."""


_USAGE = """usage: logsnr train PRESET --out DIR [--SECTION.SETTING VALUE …]

Train a model, or go on with one: the same command again resumes. A preset is a complete configuration:

{choices}

`logsnr train PRESET --help` shows every setting with its value. See what would be done: --dry-run"""


def main(argv: list[str]) -> int:
    status = no_preset(argv, "logsnr train", _USAGE)
    if status is not None:
        return status
    config, arguments = parse_train(argv[0], argv[1:])
    return run_training(config, arguments.out, arguments.dry_run)


def parse_train(preset: str, argv: list[str]) -> tuple[RunConfig, TrainArguments]:
    """What `logsnr train PRESET` is to do: the preset, and what is said otherwise."""
    chosen_preset = presets()[preset]
    require_objective(argv, "train")
    arguments = parse(
        TrainArguments,
        argv,
        prog=f"logsnr train {preset}",
        description="Train a model, or go on with one: the same command again resumes. The preset: "
        f"{chosen_preset.text}.",
        default=TrainArguments(tyro.MISSING, **sections(chosen_preset.config)),
    )
    return configured(chosen_preset.config, arguments), arguments
