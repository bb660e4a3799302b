"""The run folder: what a training run writes, and what the stages after it read.

RUN/config.json    the whole configuration, what the data were, and the network's own configuration
    checkpoints/   the newest few, to resume from
    model/         what the run made (see `logsnr.folders.model_folder`), and stock/, its form for stock diffusers
    metrics.json   what `logsnr evaluate` measured
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from logsnr.base.errors import CheckpointError
from logsnr.base.files import read_json
from logsnr.settings.run import RunConfig, from_record

CONFIG = "config.json"
"""What makes a folder a run folder."""


def is_run(folder: Path) -> bool:
    """Whether it is a run folder."""
    return (folder / CONFIG).is_file()


def require_run(folder: Path) -> None:
    """Raise CheckpointError unless it is a run folder, saying where one is near."""
    if is_run(folder):
        return
    above = folder.resolve().parent
    if is_run(above):
        raise CheckpointError(f"{folder} is a part of a run, not the run folder: use the folder above, {above}.")
    raise CheckpointError(
        f"{folder} is no run folder: there is no {CONFIG} in it."
        if folder.is_dir()
        else f"There is no folder {folder}. A run folder is what was given to `logsnr train` as --out."
    )


def read_run(folder: Path) -> tuple[dict[str, Any], RunConfig]:
    """What its config.json holds, and the configuration in it. Raises CheckpointError where there is none."""
    require_run(folder)
    record = read_json(folder / CONFIG)
    return record, from_record(record, str(folder / CONFIG))
