"""`logsnr degrade IN… --operator TEXT --out DIR`: damaged copies of clean pictures."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from logsnr.base.errors import ConfigError
from logsnr.commands.messages import interruptible, naming, refusals, writing
from logsnr.commands.parse import parse
from logsnr.settings.restore import DegradeOptions


@dataclass(frozen=True)
class DegradeArguments:
    """Damage clean pictures in a stated way, to try `logsnr restore` on them: PNGs of 8 or 16 bits under their names in
    another folder. The same command again goes on where it was cut off."""

    inputs: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IN…", help_behavior_hint="")]]
    """Picture files, and folders, in which pictures are found at any depth."""
    options: Annotated[DegradeOptions, tyro.conf.arg(name="")]
    out: Path
    """A folder for the results, apart from that of the pictures."""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ConfigError("IN must be files or folders of pictures, at least one, and there is none.")


def main(argv: list[str]) -> int:
    with naming(DegradeOptions):
        arguments = parse(DegradeArguments, argv, prog="logsnr degrade")
        from logsnr.repair.degrade import degrade

        with writing(arguments.out), interruptible():
            done, refused = degrade(arguments.inputs, arguments.options, arguments.out)
    options = arguments.options
    if done:
        print(f"{done} picture{'' if done == 1 else 's'} in {arguments.out}, damaged by {options.damage}.")
        same = ["--mask", str(options.mask)] if options.mask else []
        same += ["--seed", str(options.seed)] if options.damage.random else []
        words = ["MODEL", str(arguments.out), "--operator", str(options.damage), *same, "--out", "DIR"]
        print(f"To restore: logsnr restore {shlex.join(words)}")
    return refusals(refused)
