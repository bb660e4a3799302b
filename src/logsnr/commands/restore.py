"""`logsnr restore MODEL IN… --operator TEXT --out DIR`: damaged pictures, mended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from logsnr.base.errors import ConfigError
from logsnr.commands.messages import interruptible, naming, refusals, writing
from logsnr.commands.parse import parse
from logsnr.settings.restore import RestoreOptions


@dataclass(frozen=True)
class RestoreArguments:
    """Mend damaged pictures with a model of undamaged ones of their kind: draws of what a picture may have been, given
    what is left of it. Size, depth and format are kept, pictures larger than the model's are restored whole, and the
    same command again goes on where it was cut off."""

    model: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
    """A run folder, a model folder, or a repo of the Hub."""
    inputs: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IN…", help_behavior_hint="")]]
    """Picture files, and folders, in which pictures are found at any depth."""
    options: Annotated[RestoreOptions, tyro.conf.arg(name="")]
    out: Path
    """A folder for the results, apart from that of the pictures."""
    dry_run: bool = False
    """Say how much work it is and how long it takes, by one evaluation of the network, and stop."""
    check: bool = False
    """Try operator and method on Gaussian pictures first, where the right answer is known, and say how far off they
    are."""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ConfigError("IN must be files or folders of pictures, at least one, and there is none.")


def main(argv: list[str]) -> int:
    with naming(RestoreOptions):
        return _main(parse(RestoreArguments, argv, prog="logsnr restore"))


def _main(arguments: RestoreArguments) -> int:
    from logsnr.repair.check import check
    from logsnr.repair.effort import effort
    from logsnr.repair.plan import plan
    from logsnr.repair.restore import restore
    from logsnr.sampling.sample import choose_device
    from logsnr.tasks.load import load

    options, out = arguments.options, arguments.out
    restoration = plan(load(arguments.model).to(choose_device()), arguments.inputs, options, out)
    if arguments.check:
        print(check(restoration))
    if arguments.dry_run:
        print(effort(restoration))
        return 0
    with writing(out), interruptible():
        done, refused = restore(restoration)
    if done:
        print(f"{done} picture{'' if done == 1 else 's'} in {out}, restored by {options.method} from {options.damage}.")
    return refusals(refused)
