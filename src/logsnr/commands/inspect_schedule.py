"""`logsnr inspect schedule NAME …`: noise schedules, drawn and checked; with kernels, those of states."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from logsnr.base.errors import ConfigError
from logsnr.commands.messages import writing
from logsnr.commands.parse import parse
from logsnr.settings.schedule import Kernel


@dataclass(frozen=True)
class InspectScheduleArguments:
    """Draw noise schedules, and say whether they do their job."""

    names: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")]]
    """linear, cosine, constant, sigmoid, laplace, even, learned (where it begins), another installed one, or your own
    as `package.module:Class`."""
    kernels: tuple[Kernel, ...] = ()
    """Of states, such as letters: kernels, each as --schedule.kernel of `logsnr train`. The schedules are then drawn as
    those of states, and the kernels as matrices."""
    out: Path = Path("schedules.png")
    """The picture: log-SNR, alpha-bar and beta; with kernels what survives, and the matrices."""
    num_train_timesteps: int = 1000
    """T, the length of the chain."""
    zero_terminal_snr: bool = False
    """Rescale so that x_T is pure noise; with kernels it always is."""
    shift: float = 0.0
    """Added to the log-SNR."""
    options: dict[str, float] = field(default_factory=dict)
    """Parameters of the formula, such as `beta_end 0.03`; the same for all schedules named."""
    dry_run: bool = False
    """Print the tables and draw nothing."""


def main(argv: list[str]) -> int:
    parsed = parse(InspectScheduleArguments, argv, prog="logsnr inspect schedule")
    values = vars(parsed) | {"names": list(parsed.names)}
    if values.pop("dry_run"):
        values["out"] = None
    with writing(parsed.out):
        print(_kernels(values) if values["kernels"] else _schedules(values))
    return 0


def _schedules(values: dict[str, Any]) -> str:
    from logsnr.studies.inspect_schedule import inspect_schedules

    del values["kernels"]
    return inspect_schedules(values.pop("names"), **values)


def _kernels(values: dict[str, Any]) -> str:
    from logsnr.studies.inspect_kernels import inspect_kernels

    if values.pop("zero_terminal_snr"):
        raise ConfigError("--zero-terminal-snr is of numbers: with --kernels nothing survives anyway. Leave it out.")
    return inspect_kernels(values.pop("names"), values.pop("kernels"), **values)
