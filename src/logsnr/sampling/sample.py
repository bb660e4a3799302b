"""A trained model and seeds -> images. Image k has seed `seed + k`, whatever the batch it is made in."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from logsnr.base.errors import ModelError
from logsnr.media.plots import image_grid, save_png
from logsnr.models.schedules import resolve_scheduler_class, usual_steps
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_few_step import FewStepScheduler
from logsnr.settings.options import SampleOptions

DEFAULT_GUIDANCE = 2.0
DEFAULT_STEPS = 20
FEW_STEP = "few-step"
"""The name of FewStepScheduler, with the tables of `logsnr tune`."""


def sample(pipeline: PixelDiffusionPipeline, options: SampleOptions) -> list[Image.Image]:
    """The images of `options`, in order, with a progress bar over batches. Raises ModelError if they can't be made."""
    labels = prepare(pipeline, options)
    steps = steps_of(pipeline, options.steps)
    try:
        pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
        images: list[Image.Image] = []
        batches = -(-options.num // options.batch_size)
        with tqdm(total=batches * steps, unit="step", delay=2, dynamic_ncols=True) as bar:

            def advance(_: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
                bar.update()
                return kept

            for start in range(0, options.num, options.batch_size):
                end = min(start + options.batch_size, options.num)
                extra: dict[str, Any] = {"batch_size": end - start}
                if labels is not None:
                    guidance = DEFAULT_GUIDANCE if options.guidance_scale is None else options.guidance_scale
                    extra = {"class_labels": labels[start:end], "guidance_scale": guidance}
                elif options.guidance_scale is not None:
                    extra["guidance_scale"] = options.guidance_scale
                seeds: list[int | torch.Generator] = list(range(options.seed + start, options.seed + end))
                (made, *_) = pipeline(
                    num_inference_steps=steps,
                    generator=seeds,
                    eta=options.eta,
                    callback_on_step_end=advance,
                    return_dict=False,
                    **extra,
                )
                images += made
    except ValueError as error:
        raise ModelError(str(error)) from error
    return images


def prepare(pipeline: PixelDiffusionPipeline, options: SampleOptions) -> list[int] | None:
    """Swap to the scheduler of `options`, and choose the class of each image (None for a model without classes).

    Raises ModelError for a scheduler that doesn't fit the model, steps that don't, or a class that it doesn't have.
    """
    chosen = list(range(pipeline.num_classes or 0))
    try:
        if options.scheduler is not None:
            swap(pipeline, options.scheduler)
        require_steps(pipeline, steps_of(pipeline, options.steps))
        if options.class_labels is not None:
            names = (pipeline.id2label or {}).values()
            chosen = pipeline.get_label_ids(
                [int(c) if c.isdigit() and c not in names else c for c in options.class_labels]
            )
    except ValueError as error:
        raise ModelError(str(error)) from error
    return [chosen[k % len(chosen)] for k in range(options.num)] if chosen else None


def steps_of(pipeline: PixelDiffusionPipeline, steps: int | None) -> int:
    """`steps`, or where not given what is usual for the model."""
    return usual_steps(pipeline.scheduler, DEFAULT_STEPS) if steps is None else steps


def require_steps(pipeline: PixelDiffusionPipeline, steps: int) -> None:
    """Raise ModelError or ValueError if the scheduler can't take so many."""
    total = pipeline.scheduler.config["num_train_timesteps"]
    if steps > total:
        raise ModelError(f"--steps must be at most {total}, the length of the model's chain, and is {steps}.")
    distilled = pipeline.scheduler.config.get("_consistency")
    if distilled is not None and steps != distilled:
        raise ModelError(f"--steps must be {distilled}, for which this model was distilled, and is {steps}.")
    pipeline.scheduler.set_timesteps(steps)
    if isinstance(pipeline.scheduler, FewStepScheduler) and steps not in pipeline.scheduler.tuned_steps:
        there = ", ".join(map(str, pipeline.scheduler.tuned_steps)) or "none"
        warnings.warn(f"no table is tuned for {steps} steps (there are: {there}): untuned.", stacklevel=2)


def swap(pipeline: PixelDiffusionPipeline, scheduler: str) -> None:
    """Sample with another scheduler: few-step, a class of diffusers by name, or one's own as package.module:Class."""
    if scheduler == FEW_STEP:
        if pipeline.scheduler.config.get("_consistency") is not None:
            raise ModelError("This model is distilled for few steps already: leave out --scheduler few-step.")
        pipeline.swap_scheduler(FewStepScheduler)
        return
    pipeline.swap_scheduler(resolve_scheduler_class(scheduler) if ":" in scheduler else scheduler)


def write(images: list[Image.Image], out: Path, seed: int) -> str:
    """One grid if `out` ends in .png, else a folder with one PNG an image. Returns a line that says where."""
    if out.suffix.lower() == ".png":
        out.parent.mkdir(parents=True, exist_ok=True)
        save_png(image_grid(images), out)
        return f"{len(images)} images in {out}"
    out.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(images):
        save_png(image, out / f"seed-{seed + k:06d}.png")
    return f"{len(images)} images in the folder {out}"


def choose_device() -> str:
    """The GPU where there is one."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
