"""`logsnr export RUN`: a model folder of a run's last checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from logsnr.commands.parse import parse
from logsnr.folders.run_folder import require_run


@dataclass(frozen=True)
class ExportArguments:
    """Make a model folder of a run's last checkpoint, finished or not."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The run folder."""
    class_label: str | None = None
    """One class by name or number: a plain stock model of that class alone, which is the folder --out itself."""
    out: Path | None = None
    """A folder that is given the sub-folder model (and stock, where there are classes); RUN when not given. With
    --class-label it becomes the model itself."""

    def __post_init__(self) -> None:
        require_run(self.run)


def main(argv: list[str]) -> int:
    arguments = parse(ExportArguments, argv, prog="logsnr export")
    from logsnr.training.runs import export

    for folder in export(arguments.run, arguments.out, arguments.class_label):
        print(f"{folder} is done.")
    return 0
