"""`logsnr evaluate RUN`: the figures of a run's model, into its metrics.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from logsnr.commands.messages import interruptible, naming
from logsnr.commands.parse import parse
from logsnr.folders.run_folder import require_run
from logsnr.settings.options import EvaluateOptions


@dataclass(frozen=True)
class EvaluateArguments:
    """Measure how good a run's model is, into RUN/metrics.json. What was drawn and measured before is reused."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The run folder."""
    source: str | None = None
    """Where the run's images are now, if they moved: as --data.source of `logsnr train`."""
    options: Annotated[EvaluateOptions, tyro.conf.arg(name="")] = field(default_factory=EvaluateOptions)
    dry_run: bool = False
    """Load model and data, say what would be done, and stop."""

    def __post_init__(self) -> None:
        require_run(self.run)


def main(argv: list[str]) -> int:
    with naming(EvaluateOptions):
        return _main(argv)


def _main(argv: list[str]) -> int:
    arguments = parse(EvaluateArguments, argv, prog="logsnr evaluate")
    from logsnr.evaluation.report import evaluate, plan

    with interruptible():
        if arguments.dry_run:
            print(plan(arguments.run, arguments.options, arguments.source))
            return 0
        figures = arguments.run / "metrics.json"
        before = figures.exists()
        evaluate(arguments.run, arguments.options, arguments.source)
    print(f"The figures are in {figures}.")
    if before and arguments.options.restore is None:
        print("They replace those of before, which the same options as then bring back at once.")
    return 0
