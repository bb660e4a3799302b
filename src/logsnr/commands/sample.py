"""`logsnr sample MODEL`: samples of a trained model, in files."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from logsnr.base.errors import ConfigError
from logsnr.base.files import strangers
from logsnr.base.words import listed
from logsnr.commands.messages import naming, writing
from logsnr.commands.parse import parse
from logsnr.settings.options import SampleOptions

_GRID = Path("samples.png")
_DRAWN = re.compile(r"seed-\d{6,}\.")
"""How the names of single samples begin."""


@dataclass(frozen=True)
class SampleArguments:
    """Make images, or texts, with a trained model."""

    model: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
    """A run folder, a model folder, or a repo of the Hub."""
    options: Annotated[SampleOptions, tyro.conf.arg(name="")] = field(default_factory=SampleOptions)
    out: Path | None = None
    """A name that ends in .png gets one grid, of texts one that ends in .txt all of them; any other is a folder of
    single images or texts, which holds nothing else. When not given samples.png, and texts are printed."""
    dry_run: bool = False
    """Load the model, say what would be made, and stop."""

    def __post_init__(self) -> None:
        out = self.out or _GRID
        if out.suffix.lower() in (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".pdf"):
            raise ConfigError(
                f"--out must end in .png, for one grid, or name a folder, and is {out}. Images are written as "
                f"PNG: take {out.with_suffix('.png')}."
            )
        ending = out.suffix.lower()
        # a grid is drawn anew; a file of texts may be what the model was trained on
        if (out.is_dir() and ending in (".png", ".txt")) or (out.is_file() and ending != ".png"):
            raise ConfigError(
                f"--out {out} is a {'folder' if out.is_dir() else 'file'} already. A name that ends in .png is one "
                "grid, one in .txt a new file of all texts, any other a folder of single images or texts. Name another."
            )
        if foreign := strangers(out, lambda path: _DRAWN.match(path.name) is not None):
            raise ConfigError(
                f"--out {out} exists and is no folder of drawn samples, which are called seed-000000 and so on; "
                f"it holds {listed(foreign)}. Name another --out."
            )


def main(argv: list[str]) -> int:
    with naming(SampleOptions):
        return _main(argv)


def _main(argv: list[str]) -> int:
    arguments = parse(SampleArguments, argv, prog="logsnr sample")
    from logsnr.models.schedules import resolve_scheduler_class
    from logsnr.sampling.sample import (
        choose_device,
        prepare,
        require_words,
        sample,
        sampler_in_words,
        steps_of,
        write,
    )
    from logsnr.tasks.load import load
    from logsnr.tasks.parts import CHOICES, parts_of_pipeline
    from logsnr.training.runs import size_in_words

    options = arguments.options
    if options.scheduler is not None and ":" in options.scheduler:
        resolve_scheduler_class(options.scheduler)  # imports it: a model that was made with it is then loaded with it
    pipeline = load(arguments.model).to(choose_device())
    parts = parts_of_pipeline(pipeline)
    prepare(pipeline, options)
    medium = parts.medium_of(pipeline)
    out = arguments.out or (None if medium.in_words else _GRID)
    if out is not None:
        require_words(out, pipeline)
    if arguments.dry_run:
        predicted = pipeline.scheduler.config.get("prediction_type")
        said = "" if predicted is None else f"predicts {predicted}, "
        print(f"{parts.describe(pipeline)}, {said}{size_in_words(parts.network_of(pipeline))}")
    choices = parts.choices(pipeline)
    given = getattr(options, parts.option)
    if choices and given is None:
        print(
            f"{CHOICES[parts.option][0]}, in turn: {listed(choices[: options.num])} (or give "
            f"--{parts.option.replace('_', '-')})"
        )
    if arguments.dry_run:
        print(
            f"Would make {options.num} {parts.noun}s of seeds from {options.seed}{f' in {out}' if out else ''}, in "
            f"{steps_of(pipeline, options.steps)} steps of {sampler_in_words(pipeline.scheduler, options.eta)}."
        )
        return 0
    samples = sample(pipeline, options)
    if out is None:
        print(medium.sheet(samples, shutil.get_terminal_size().columns))
        return 0
    turn = len(given or choices)
    with writing(out):
        print(write(samples, out, options.seed, pipeline, turn))
    return 0
