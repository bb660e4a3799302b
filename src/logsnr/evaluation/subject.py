"""What is evaluated: the model of a run folder, and the data it was made of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logsnr.base.errors import CheckpointError, DataError, ModelError
from logsnr.base.files import read_json, write_atomically
from logsnr.data.seeded import SeededData
from logsnr.folders.model_folder import find_model, model_digest
from logsnr.folders.run_folder import read_run
from logsnr.models.schedules import noise_schedule, resolve_scheduler_class
from logsnr.sampling.sample import choose_device
from logsnr.settings.run import RunConfig
from logsnr.tasks.load import load
from logsnr.tasks.task import Task, parts_of, trained_task


@dataclass(frozen=True)
class Subject:
    """A trained model with its data."""

    run: Path
    task: Task
    """The run's task, with the trained network in it."""
    sampler: Any
    """What the model is sampled with: its noise schedule, or of a distilled model its own."""
    digest: str
    """Hash of the model; figures that are measured of it carry it as `model_hash`."""

    @property
    def config(self) -> RunConfig:
        return self.task.config

    @property
    def data(self) -> SeededData[Any]:
        return self.task.data

    @property
    def denoiser(self) -> Any:
        """The network under its noise schedule."""
        return self.task.denoiser

    @property
    def schedule(self) -> Any:
        """The noise schedule."""
        return self.task.schedule

    def pipeline(self) -> Any:
        """What draws, a new one: its scheduler may be swapped."""
        return self.task.pipeline(self.task.network, self.sampler)

    @property
    def folder(self) -> Path:
        """Where what was drawn and measured is kept."""
        return self.run / "evaluation"


def open_subject(run: Path, source: str | None = None) -> Subject:
    """Load the model of a run folder, and its data: from `source` if they moved.

    Raises CheckpointError where these aren't what it was made of, DataError where they aren't there.
    """
    record, config = read_run(run)
    was_folder = "data.source" in record.get("local", ())
    if source is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=source))
    if was_folder and not Path(config.data.source).expanduser().exists():
        raise DataError(
            f"The data of {run} aren't in {config.data.source}: there is no such file or folder (a relative path is "
            f"relative to the present folder, {Path.cwd()}). Say where they are now: --source PATH."
        )
    if ":" in config.schedule.name:
        resolve_scheduler_class(config.schedule.name)  # imports it: the model is then loaded with it
    pipeline = load(run).to(choose_device())
    schedule = noise_schedule(pipeline.scheduler)
    if schedule is None:
        raise ModelError(f"{run} was trained with the schedule {config.schedule.name}, which isn't known here.")
    parts = parts_of(config.kind)
    data = parts.open_data(config)
    if data.fingerprint != record["data"]["fingerprint"]:
        raise CheckpointError(
            f"{run} was trained on other data: then {record['data']['description']}; now {data.description} (contents "
            "or labels differ). Put the data back as they were, or say where they are: --source PATH."
        )
    task = trained_task(config, data, parts.network_of(pipeline), schedule)
    return Subject(run, task, pipeline.scheduler, model_digest(find_model(run)))


def kept_json(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the file at `path` holds; if there is none, it is made first."""
    if not path.exists():
        write_atomically(path, json.dumps(make(), indent=2) + "\n")
    kept: dict[str, Any] = read_json(path)
    return kept
