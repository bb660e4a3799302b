"""`logsnr distill RUN`: a run that makes of another's model one for few network evaluations."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from logsnr.base.errors import ConfigError
from logsnr.commands.configure import configured, require_objective
from logsnr.commands.parse import parse
from logsnr.commands.training_run import run_training
from logsnr.folders.run_folder import require_run
from logsnr.settings.condition import ClassLabelConfig, ConditionConfig
from logsnr.settings.objective import ConsistencyConfig
from logsnr.settings.run import RunConfig, TrainConfig


@dataclass(frozen=True)
class DistillArguments:
    """Make of a run's model one that draws in two network evaluations, by the same trainer; the same command again
    resumes. Data, schedule and network are the run's."""

    out: Path
    """The folder of the new run."""
    dry_run: bool = False
    """Show the data and the configuration, check them, and stop."""
    objective: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    condition: ConditionConfig = field(default_factory=ClassLabelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


_USAGE = """usage: logsnr distill RUN --out DIR [--SECTION.SETTING VALUE …]

Make of a run's model one that draws in two network evaluations (multistep consistency distillation), by the same
trainer and by default in a tenth of its steps, each more than twice as long. The same command again resumes. Then:
logsnr sample DIR

`logsnr distill RUN --help` shows every setting with its value for that run. See what would be done: --dry-run"""


def main(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        help_wanted = argv[:1] in (["-h"], ["--help"])
        problem = "" if help_wanted or not argv else f"logsnr distill: the run comes first, before {argv[0]}.\n\n"
        print(f"{problem}{_USAGE}", file=sys.stderr if problem else sys.stdout)
        return 0 if help_wanted else 2
    run = Path(argv[0])
    require_run(run)
    from logsnr.training.distill import distilled, require_other

    config, arguments = parse_distill(distilled(run), run, argv[1:])
    require_other(run, arguments.out)
    status = run_training(config, arguments.out, arguments.dry_run)
    if arguments.dry_run:
        objective = arguments.objective
        evaluations = f"{objective.steps} network evaluation{'' if objective.steps == 1 else 's'}"
        print(f"It would make of {run}, trained for {objective.base_steps} steps, a model that draws in {evaluations}.")
    return status


def parse_distill(base: RunConfig, run: Path, argv: list[str]) -> tuple[RunConfig, DistillArguments]:
    """What `logsnr distill RUN` is to do: the defaults for that run (`base`), and what is said otherwise."""
    assert isinstance(base.objective, ConsistencyConfig)
    require_objective(argv, "distill", base.schedule)
    arguments = parse(
        DistillArguments,
        argv,
        prog=f"logsnr distill {run}",
        default=DistillArguments(tyro.MISSING, False, base.objective, base.condition, base.train),
    )
    if arguments.objective.name != base.objective.name or arguments.condition.name != base.condition.name:
        raise ConfigError(
            "logsnr distill keeps the condition of RUN, and its objective is consistency: leave --….name out."
        )
    return configured(base, arguments), arguments
