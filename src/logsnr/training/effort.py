"""What a run cost: machines, hours and images, for whoever reads of the model later. RUN/training.json

Each call of `train` is a session. It is written down with the steps that it did whenever these are saved, and a
session that resumes from an earlier step takes those back that are done again. `model_step` is the step whose averaged
weights are in RUN/model. Nothing that decides the weights reads this file.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from logsnr.base.files import read_json, write_atomically
from logsnr.models.precision import precision_in_words


@dataclass(frozen=True)
class Session:
    """One call of `train`: the steps after `from_step`, up to `to_step`."""

    from_step: int
    to_step: int
    seconds: float
    """Wall time of the loop, with logging, pictures and checkpoints."""
    images_per_step: int
    processes: int
    device: str
    precision: str
    versions: dict[str, str]

    @property
    def images(self) -> int:
        """Training images seen, an image counted each time."""
        return (self.to_step - self.from_step) * self.images_per_step


@dataclass(frozen=True)
class Effort:
    """All sessions of a run, the first first, and the step that was made a model of."""

    sessions: list[Session]
    model_step: int | None


class Clock:
    """Times a session of the run in `run` that begins after step `done`."""

    def __init__(self, run: Path, done: int, images_per_step: int, accelerator: Accelerator) -> None:
        effort = read_effort(run)
        self.run = run
        self.earlier = [
            dataclasses.replace(s, from_step=min(s.from_step, done), to_step=min(s.to_step, done))
            for s in effort.sessions
        ]
        self.model_step = effort.model_step
        self.session = Session(
            from_step=done,
            to_step=done,
            seconds=0.0,
            images_per_step=images_per_step,
            processes=accelerator.num_processes,
            device=device_in_words(accelerator.device),
            precision=precision_in_words(accelerator.mixed_precision),
            versions={name: importlib.metadata.version(name) for name in ("logsnr", "torch", "diffusers")},
        )
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the session has been going."""
        return round(time.monotonic() - self.start, 3)

    def reached(self, step: int) -> None:
        """Write down that the session has come to `step`."""
        session = dataclasses.replace(self.session, to_step=step, seconds=self.seconds)
        _write(self.run, Effort([*self.earlier, session], self.model_step))


def read_effort(run: Path) -> Effort:
    """What is known of a run; nothing of one that is older than this record."""
    path = run / "training.json"
    if not path.is_file():
        return Effort([], None)
    record = read_json(path)
    return Effort([Session(**values) for values in record["sessions"]], record["model_step"])


def note_model_step(run: Path, step: int) -> None:
    """Write down that RUN/model has been made of the weights after `step`."""
    _write(run, dataclasses.replace(read_effort(run), model_step=step))


def _write(run: Path, effort: Effort) -> None:
    write_atomically(run / "training.json", json.dumps(dataclasses.asdict(effort), indent=2) + "\n")


def device_in_words(device: torch.device) -> str:
    """The GPU's name, or how many cores of the CPU compute: no more is said of a machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type.upper()
    cores = min(torch.get_num_threads(), os.cpu_count() or 1)
    return f"{cores} CPU core{'s' if cores > 1 else ''}"
