"""A trained model and seeds -> images. Image k has seed `seed + k`, whatever the batch it is made in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from logsnr.config import SampleOptions
from logsnr.errors import ModelError
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.plots import image_grid, save_png

DEFAULT_GUIDANCE = 2.0


def sample(pipeline: PixelDiffusionPipeline, options: SampleOptions) -> list[Image.Image]:
    """The images of `options`, in order, with a progress bar over batches. Raises ModelError if they can't be made."""
    try:
        if options.scheduler is not None:
            pipeline.swap_scheduler(options.scheduler)
        labels = _labels(pipeline, options)
        pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
        images: list[Image.Image] = []
        batches = -(-options.num // options.batch_size)
        with tqdm(total=batches * options.steps, unit="step", delay=2, dynamic_ncols=True) as bar:

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
                    num_inference_steps=options.steps,
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


def _labels(pipeline: PixelDiffusionPipeline, options: SampleOptions) -> list[int | str] | None:
    classes = pipeline.unet.config["num_class_embeds"]
    if options.class_labels is None:
        chosen: list[int | str] = [] if classes is None else list(range(classes - 1))
    else:
        names = set((pipeline.config.get("id2label") or {}).values())
        chosen = [label if label in names or not label.isdigit() else int(label) for label in options.class_labels]
    return [chosen[k % len(chosen)] for k in range(options.num)] if chosen else None


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
