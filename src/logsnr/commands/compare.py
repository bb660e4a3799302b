"""`logsnr compare PRESET`: a run for each of several kinds of noise, and what comes of them.

`logsnr compare guidance RUN`, of one model, is in a file of its own.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from logsnr.base.errors import ConfigError
from logsnr.commands.configure import RunSections, configured, no_preset, require_objective, sections
from logsnr.commands.messages import interruptible, naming, writing
from logsnr.commands.parse import parse
from logsnr.settings.options import EvaluateOptions
from logsnr.settings.presets import presets
from logsnr.settings.schedule import Kernel


@dataclass(frozen=True)
class CompareArguments(RunSections):
    """Train the same network on the same data with several noise schedules, and compare what comes of it."""

    schedules: tuple[str, ...]
    """Two or more noise schedules, each as --schedule.name of `logsnr train`."""
    out: Path
    """The folder: a run for each schedule, compare.json and compare.png."""
    kernels: tuple[Kernel, ...] = ()
    """Of states, such as letters: kernels, each as --schedule.kernel of `logsnr train`. There is a run for each of them
    with each schedule."""
    at_steps: tuple[int, ...] = (5, 10, 20, 50)
    """Steps of the sampler at which quality is measured, beside --evaluate.steps."""
    dry_run: bool = False
    """Say what would be done, and stop."""
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)

    def __post_init__(self) -> None:
        if self.evaluate.attributes:
            raise ConfigError("attributes is for logsnr evaluate: schedules aren't compared by them. Leave it out.")


_USAGE = """usage: logsnr compare PRESET --schedules NAME NAME … --out DIR [--SECTION.SETTING VALUE …]
       logsnr compare PRESET --schedules NAME … --kernels NAME … --out DIR [--SECTION.SETTING VALUE …]
       logsnr compare guidance RUN

Train the same network on the same data with several noise schedules, of texts with several kernels too, and compare
what comes of it. Or draw with one trained model with more and more guidance, in several ways: `logsnr compare guidance
--help`. The presets are those of `logsnr train`:

{choices}

`logsnr compare smoke --help` shows every setting with its value. See what would be done: --dry-run"""


def main(argv: list[str]) -> int:
    if argv[:1] == ["guidance"]:
        from logsnr.commands import compare_guidance

        return compare_guidance.main(argv[1:])
    status = no_preset(argv, "logsnr compare", _USAGE)
    if status is not None:
        return status
    preset, *rest = argv
    base = presets()[preset]
    with naming(EvaluateOptions, "evaluate."):
        require_objective(rest, "train", base.config.schedule)
        arguments = parse(
            CompareArguments,
            rest,
            prog=f"logsnr compare {preset}",
            description=f"{CompareArguments.__doc__} The preset: {base.text}.",
            default=CompareArguments(tyro.MISSING, tyro.MISSING, **sections(base.config)),
        )
    config = configured(base.config, arguments)
    from logsnr.studies.compare import compare, plan

    compared = (arguments.schedules, arguments.kernels)
    more = (*compared, arguments.out, arguments.evaluate, arguments.at_steps)
    with naming(EvaluateOptions, "evaluate."), interruptible():
        if arguments.dry_run:
            print(plan(config, *more))
            return 0
        with writing(arguments.out):
            result = compare(config, *more)
    if result.stopped is not None:
        print(f"{result.text} The same command goes on from there.")
        return 128 + (result.stopped.stopped_by or signal.SIGINT)
    print(result.text)
    return 0
