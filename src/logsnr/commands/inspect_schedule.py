"""`logsnr inspect schedule NAME …`: noise schedules, drawn and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from logsnr.commands.messages import writing
from logsnr.commands.parse import parse


@dataclass(frozen=True)
class InspectScheduleArguments:
    """Draw noise schedules, and say whether they do their job."""

    names: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")]]
    """linear, cosine, constant, sigmoid, laplace, even, learned (where it begins), another installed one, or your own
    as `package.module:Class`."""
    out: Path = Path("schedules.png")
    """The picture: log-SNR, alpha-bar and beta."""
    num_train_timesteps: int = 1000
    """T, the length of the chain."""
    zero_terminal_snr: bool = False
    """Rescale so that x_T is pure noise."""
    shift: float = 0.0
    """Added to the log-SNR."""
    options: dict[str, float] = field(default_factory=dict)
    """Parameters of the formula, such as `beta_end 0.03`; the same for all schedules named."""
    dry_run: bool = False
    """Print the tables and draw nothing."""


def main(argv: list[str]) -> int:
    parsed = parse(InspectScheduleArguments, argv, prog="logsnr inspect schedule")
    from logsnr.studies.inspect_schedule import inspect_schedules

    values = vars(parsed) | {"names": list(parsed.names)}
    if values.pop("dry_run"):
        values["out"] = None
    with writing(parsed.out):
        print(inspect_schedules(values.pop("names"), **values))
    return 0
