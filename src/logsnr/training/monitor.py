"""What is written while training: losses, the held-out loss by log-SNR, and pictures."""

from __future__ import annotations

import copy
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image

from logsnr.base.files import write_atomically
from logsnr.data.seeded import SeededData
from logsnr.media.plots import columns_of, loss_by_log_snr_figure, save_png
from logsnr.models.denoiser import Denoises
from logsnr.models.schedules import usual_steps
from logsnr.objectives.held_out import LOG_SNR_EDGES, binned_means, errors_by_timestep
from logsnr.objectives.objective import Objective
from logsnr.sampling.sample import choose_scheduler
from logsnr.settings.options import SampleOptions
from logsnr.tasks.task import Task

_BIN_NAMES = [f"held_out/log_snr_{low:+.0f}_to_{high:+.0f}" for low, high in itertools.pairwise(LOG_SNR_EDGES)]
_SAMPLE_STEPS, _SAMPLES, _SAMPLE_GUIDANCE = 25, 16, 2.0
_HELD_OUT_SAMPLES = 512


class Log:
    """Scalars and pictures: to the tracker, and the scalars also as lines of RUN/logs/train.jsonl."""

    def __init__(self, run: Path, accelerator: Accelerator, done: int) -> None:
        self.run, self.accelerator = run, accelerator
        self.path = run / "logs" / "train.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        (run / "samples").mkdir(exist_ok=True)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        # steps after the checkpoint we resume from are about to be done again; a killed process may leave half a line
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= done]
        write_atomically(self.path, "".join(f"{line}\n" for line in kept))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.accelerator.log(values, step=step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """To the tracker; each wants its own form."""
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({name: np.asarray(picture.convert("RGB"))[None]}, step=step, dataformats="NHWC")
            else:
                tracker.log_images({name: [picture]}, step=step)


@dataclass(frozen=True)
class HeldOutLoss:
    """One measurement of the loss on held-out images."""

    step: int
    loss: float
    by_log_snr: list[float]
    """Unweighted, in the bins of LOG_SNR_EDGES; NaN in an empty one."""


def read_held_out(run: Path) -> list[HeldOutLoss]:
    """The measurements in a run's log, the first first."""
    path = run / "logs" / "train.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    values = [json.loads(line) for line in lines if "held_out/loss" in line and line.endswith("}")]
    return [HeldOutLoss(v["step"], v["held_out/loss"], [v.get(name, math.nan) for name in _BIN_NAMES]) for v in values]


def log_held_out(log: Log, step: int, objective: Objective, denoiser: Denoises, data: SeededData[Any]) -> None:
    """Loss of the averaged weights on held-out samples, with the same noise every time, whole and by log-SNR."""
    if data.num_held_out == 0:
        return
    errors, t = errors_by_timestep(objective, denoiser, data, "held_out", _HELD_OUT_SAMPLES)
    values = binned_means(objective.schedule.log_snr(t), errors)
    bins = {name: value for name, value in zip(_BIN_NAMES, values, strict=True) if math.isfinite(value)}
    log.scalars(step, {"held_out/loss": float((errors * objective.weights[t]).mean()), **bins})
    figure = loss_by_log_snr_figure(LOG_SNR_EDGES, {f"held-out, step {step}": values})
    save_png(figure, log.run / "logs" / "held_out_loss_by_log_snr.png")


def log_samples(log: Log, step: int, task: Task) -> None:
    """A picture of samples from the same seeds each time, to RUN/samples and the tracker; and in words where they have
    any."""
    sampler = copy.deepcopy(task.objective.sampler)
    pipeline = task.pipeline(task.network, sampler)
    pipeline.set_progress_bar_config(desc="Samples", unit="step", delay=2, leave=False)
    steps = usual_steps(sampler, max(_SAMPLE_STEPS, task.parts.steps))
    options = SampleOptions(num=_SAMPLES, steps=steps, batch_size=_SAMPLES)
    choose_scheduler(pipeline, options)
    arguments = dict(task.parts.arguments(pipeline, options))
    guidance = {"guidance_scale": _SAMPLE_GUIDANCE} if arguments else {}
    samples, *_ = pipeline(
        batch_size=_SAMPLES,
        num_inference_steps=options.steps,
        generator=0,
        output_type=task.parts.output_type,
        return_dict=False,
        **arguments,
        **guidance,
    )
    medium = task.parts.medium_of(pipeline)
    picture = medium.show(samples, columns_of(_SAMPLES, len(task.parts.choices(pipeline))))
    save_png(picture, log.run / "samples" / f"step-{step:08d}.png")
    if medium.in_words:
        write_atomically(log.run / "samples" / f"step-{step:08d}.txt", f"{medium.sheet(samples)}\n")
    log.picture(step, "samples", picture)
