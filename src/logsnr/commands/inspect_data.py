"""`logsnr inspect data SOURCE`: what images are, before training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from logsnr.commands.messages import writing
from logsnr.commands.parse import parse


@dataclass(frozen=True)
class InspectDataArguments:
    """Look at images before training: what they are, and a schedule and weighting to begin with."""

    source: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="SOURCE")]]
    """As --data.source of `logsnr train`: a folder, a data set id on the Hub or mnist-5k."""
    resolution: int | None = None
    """Height and width to train at; that of the images, up to 64 (32 without a GPU), when not given."""
    channels: Literal[1, 3, 4] | None = None
    """1 gray, 3 RGB, 4 RGBA; 1 where all images are gray and 3 elsewhere when not given."""
    out: Path = Path("data.png")
    """The picture: the spectrum, and what noise hides of it."""
    dry_run: bool = False
    """Print what there is to say and draw nothing."""


def main(argv: list[str]) -> int:
    parsed = parse(InspectDataArguments, argv, prog="logsnr inspect data")
    from logsnr.studies.inspect_data import inspect_data

    out = None if parsed.dry_run else parsed.out
    with writing(parsed.out):
        print(inspect_data(parsed.source, resolution=parsed.resolution, channels=parsed.channels, out=out))
    return 0
