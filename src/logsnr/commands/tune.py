"""`logsnr tune MODEL`: tables with which a model draws in few network evaluations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from logsnr.base.words import listed
from logsnr.commands.messages import interruptible, naming
from logsnr.commands.parse import parse
from logsnr.settings.options import TuneOptions


@dataclass(frozen=True)
class TuneArguments:
    """Find timesteps and coefficients with which a trained model draws in few network evaluations, for
    `logsnr sample --scheduler few-step --steps N`. From noise alone, no data are needed; it takes about the time of
    2,000 training steps. A table is kept where it comes nearer to the exact solution of the sampling equation than the
    untuned sampler does, on noise that it didn't learn from; stock schedulers are measured beside it. The same command
    again goes on where it was cut off, and more --steps are added to those that are there."""

    model: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
    """A run folder or a model folder: the tables are written into it, and `logsnr publish` sends them along. Or a
    repo of the Hub, with --out."""
    out: Path | None = None
    """Copy the model into this new folder, a model folder, and tune it there."""
    dry_run: bool = False
    """Say how much work it is, and stop."""
    options: Annotated[TuneOptions, tyro.conf.arg(name="")] = field(default_factory=TuneOptions)


def main(argv: list[str]) -> int:
    with naming(TuneOptions):
        return _main(argv)


def _main(argv: list[str]) -> int:
    arguments = parse(TuneArguments, argv, prog="logsnr tune")
    from logsnr.sampling.tune import curve, plan, tune

    options, out = arguments.options, arguments.out
    if arguments.dry_run:
        print(plan(arguments.model, options, out))
        return 0
    with interruptible():
        results = tune(arguments.model, options, out)
    print(f"RMSE to the converged images, on held-out noise (less is better):\n{curve(results, options).table()}")
    if dropped := [t.steps for t in results if not t.kept]:
        print(f"Not kept, as the tuned table was not nearer than the untuned one everywhere: {listed(dropped)}.")
    if kept := [t.steps for t in results if t.kept]:
        where = arguments.model if out is None else out
        print(
            f"The tables are with the model in {where}. "
            f"Try: logsnr sample {where} --scheduler few-step --steps {kept[0]}"
        )
    return 0
