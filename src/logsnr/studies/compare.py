"""`logsnr compare`: the same data, seeds, budget and network under several kinds of noise, and what came of each.

    OUT/SCHEDULE/           a run of its own for each schedule, as `logsnr train` makes it
    OUT/KERNEL-SCHEDULE/    where kernels are named too: a run for each kernel with each schedule
    OUT/compare.json        the figures of all
    OUT/compare.png         a picture of them

To go on after an interruption, run the same command again: each run resumes as training does, and what was drawn and
measured is taken from where it is.

What is measured is a matter of the kind of data: see `logsnr.studies.comparison`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from logsnr.base.errors import ConfigError
from logsnr.base.files import write_atomically
from logsnr.evaluation.subject import open_subject
from logsnr.folders.run_folder import is_run
from logsnr.media.plots import save_png
from logsnr.models.schedules import make_scheduler, make_transition_scheduler
from logsnr.settings.choice import switched
from logsnr.settings.options import EvaluateOptions
from logsnr.settings.run import RunConfig
from logsnr.settings.schedule import ScheduleConfig, TransitionConfig
from logsnr.studies.comparison import Comparison, Row, comparison_of
from logsnr.tasks.task import parts_of
from logsnr.training.runs import require_place, require_same
from logsnr.training.train import TrainResult, train


@dataclass(frozen=True)
class CompareResult:
    """How a call of `compare` ended: `stopped` is the result of the training that a signal ended, if one did."""

    text: str
    stopped: TrainResult | None


def configurations(config: RunConfig, schedules: Sequence[str], kernels: Sequence[str] = ()) -> dict[str, RunConfig]:
    """The configuration of each run by its name: the schedule, after the kernel where kernels are named.

    Raises ConfigError where there is nothing to compare, or a schedule can't be made.
    """
    if len(set(schedules)) < len(schedules) or len(schedules) * max(1, len(kernels)) < 2:
        raise ConfigError(f"--schedules must name two or more different schedules, and is {' '.join(schedules)!r}.")
    if len(set(kernels)) < len(kernels):
        raise ConfigError(f"--kernels must name different kernels, and is {' '.join(kernels)!r}.")
    if kernels and not isinstance(config.schedule, TransitionConfig):
        raise ConfigError(
            f"--kernels is {' '.join(kernels)}, and a kernel says where a state goes, such as a letter. Of "
            f"{parts_of(config.kind).noun}s, which are numbers, compare --schedules alone."
        )
    found = {}
    for kernel in kernels or ("",):
        for name in schedules:
            schedule = switched(config.schedule, name, "schedule")
            if kernel:
                share = schedule.replace_share if kernel == "mask_and_replace" else None
                schedule = dataclasses.replace(schedule, kernel=kernel, replace_share=share)
            _require_made(schedule)
            found[f"{kernel} {name}".strip()] = dataclasses.replace(config, schedule=schedule)
    return found


def plan(
    config: RunConfig,
    schedules: Sequence[str],
    kernels: Sequence[str],
    out: Path,
    options: EvaluateOptions,
    at_steps: tuple[int, ...],
) -> str:
    """What `compare` would do, in words. Raises what it would raise for its schedules, options and folders."""
    configs, comparison = _required(config, schedules, kernels, out, options, at_steps)
    data = parts_of(config.kind).open_data(config)
    measuring = comparison.plan(config, data, options, at_steps)
    for name, each in configs.items():
        if is_run(_folder(out, name)):
            require_same(_folder(out, name), each, data)
    return (
        f"{data.description}\n"
        f"Would train {len(configs)} models, {config.train.num_steps} steps of {config.train.batch_size} "
        f"{data.examples.noun}s each, into {', '.join(str(_folder(out, name)) for name in configs)}. {measuring} The "
        f"table would go to {out / 'compare.json'}, the picture to {out / 'compare.png'}; nothing was written."
    )


def compare(
    config: RunConfig,
    schedules: Sequence[str],
    kernels: Sequence[str],
    out: Path,
    options: EvaluateOptions,
    at_steps: tuple[int, ...],
    say: Callable[[str], None] = print,
) -> CompareResult:
    """Train a model with each schedule and kernel, measure all, and write the table and the picture into `out`."""
    configs, comparison = _required(config, schedules, kernels, out, options, at_steps)
    for name, each in configs.items():
        folder = _folder(out, name)
        say(f"-- {name}: training in {folder}")
        result = train(each, folder)
        if not result.finished:
            return CompareResult(f"Stopped in the training of {name}.", result)
    rows: dict[str, Row] = {}
    for name in configs:
        say(f"-- {name}: measuring")
        rows[name] = comparison.measured(open_subject(_folder(out, name)), options, at_steps)
    write_atomically(out / "compare.json", json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    save_png(comparison.figure(rows), out / "compare.png")
    return CompareResult(f"{comparison.table(rows)}\nThe picture is {out / 'compare.png'}.", None)


def _required(
    config: RunConfig,
    schedules: Sequence[str],
    kernels: Sequence[str],
    out: Path,
    options: EvaluateOptions,
    at_steps: tuple[int, ...],
) -> tuple[dict[str, RunConfig], Comparison]:
    """The runs, and what is measured of them. Raises what can be known to be wrong before anything is done."""
    configs, comparison = configurations(config, schedules, kernels), comparison_of(config)
    _require_places(configs, out)
    comparison.require(config, options, at_steps)
    return configs, comparison


def _require_made(schedule: ScheduleConfig | TransitionConfig) -> None:
    """Raise ConfigError unless the schedule can be made."""
    if isinstance(schedule, TransitionConfig):
        make_transition_scheduler(schedule, num_states=2, mask_token_id=1)  # whatever there are, its betas are these
    else:
        make_scheduler(schedule)


def _require_places(configs: Mapping[str, RunConfig], out: Path) -> None:
    """Raise ConfigError unless the runs, the table and the picture can be made in `out`."""

    def ours(path: Path) -> bool:
        return path.name in ("compare.json", "compare.png") or is_run(path) or path in folders

    folders = [_folder(out, name) for name in configs]
    for folder, config in zip(folders, configs.values(), strict=True):
        require_place(out, config, ours)
        require_place(folder, config)


def _folder(out: Path, name: str) -> Path:
    return out / name.replace(":", ".").replace(" ", "-")
