"""The images that a model is judged by: image k from seed `seed + k`, kept in the run folder.

    RUN/evaluation/samples-<hash>/00000.safetensors    images 0 to 255, the next file the next 256, and so on

The hash is of all that decides an image: weights, schedule, sampler, steps, guidance, labels and seed, and not how many
there are. A drawing that was stopped goes on where it was, and one of more images begins with those that are there.

Labels come in the proportions of the training images: label k is where the point frac(k / golden ratio) falls among
the cumulative shares of the classes, so that any number of images has nearly those proportions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from logsnr.base.errors import ModelError
from logsnr.base.files import digest_of, replacing_file
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.sampling.sample import require_steps, steps_of, swap
from logsnr.settings.options import EvaluateOptions

_SHARD = 256
_GOLDEN = 0.6180339887498949


def draw_labels(class_counts: list[int], num: int) -> list[int]:
    """The label of each of the images 0..num-1, by the rule of the module's text."""
    shares = np.cumsum(class_counts) / np.sum(class_counts)
    points = (np.arange(num) + 0.5) * _GOLDEN % 1
    labels: list[int] = np.searchsorted(shares, points, side="right").tolist()
    return labels


def prepare(pipeline: PixelDiffusionPipeline, options: EvaluateOptions) -> None:
    """Swap to the scheduler of the options. Raises ModelError where it doesn't fit the model, or the steps don't."""
    try:
        if options.scheduler is not None:
            swap(pipeline, options.scheduler)
        require_steps(pipeline, steps_of(pipeline, options.steps))
    except ValueError as error:
        raise ModelError(str(error)) from error


def generate(
    pipeline: PixelDiffusionPipeline,
    folder: Path,
    model: str,
    options: EvaluateOptions,
    num: int,
    class_counts: list[int] | None,
    bits: int,
) -> Tensor:
    """`num` images in [0, 1] of the depth of the data, (num, channels, height, width), float32, on the CPU.

    `model` is the model's digest. Those that are in `folder` are taken from there; the others are drawn, with a
    progress bar, after a swap to the scheduler of the options. Raises ModelError where they can't be drawn as asked.
    """
    prepare(pipeline, options)
    steps = steps_of(pipeline, options.steps)
    try:
        decisive = (
            *(model, type(pipeline.scheduler).__name__, steps, options.eta, options.guidance_scale),
            *(options.seed, class_counts, bits),
        )
        own = folder / f"samples-{digest_of(repr(decisive).encode())}"
        labels = None if class_counts is None else draw_labels(class_counts, num)
        starts = range(0, num, _SHARD)
        sizes = {start: min(_SHARD, num - start) for start in starts}
        paths = {start: own / f"{start:05}.safetensors" for start in starts}
        shards = {start: _shard(paths[start], sizes[start]) for start in starts}
        missing = [start for start in starts if shards[start] is None]
        batches = sum(-(-sizes[start] // options.batch_size) for start in missing)
        with tqdm(desc="Drawing images", total=batches * steps, unit="step", leave=False, delay=2) as bar:
            for start in missing:
                numbers = range(start, start + sizes[start])
                pixels = torch.cat(
                    [
                        _draw(pipeline, options, numbers[first : first + options.batch_size], labels, bar)
                        for first in range(0, len(numbers), options.batch_size)
                    ]
                )
                deep = pixels.mul((1 << bits) - 1).round().to(torch.uint8 if bits == 8 else torch.uint16)
                with replacing_file(paths[start]) as path:
                    save_file({"images": deep}, path)
                shards[start] = deep
    except ValueError as error:
        raise ModelError(str(error)) from error
    images = torch.cat([shard for shard in shards.values() if shard is not None])
    return images.float().div((1 << bits) - 1)


def _shard(path: Path, size: int) -> Tensor | None:
    """The first `size` images of a file, if it is there and has as many."""
    if not path.exists():
        return None
    images = load_file(path)["images"]
    return images[:size] if len(images) >= size else None


def _draw(
    pipeline: PixelDiffusionPipeline, options: EvaluateOptions, numbers: range, labels: list[int] | None, bar: tqdm[Any]
) -> Tensor:
    """The images of these numbers, in [0, 1]."""

    def advance(_: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        bar.update()
        return kept

    chosen: list[int | str] | None = None if labels is None else [labels[k] for k in numbers]
    seeds: list[int | torch.Generator] = [options.seed + k for k in numbers]
    (made,) = pipeline(
        batch_size=len(numbers),
        class_labels=chosen,
        num_inference_steps=steps_of(pipeline, options.steps),
        guidance_scale=options.guidance_scale,
        generator=seeds,
        eta=options.eta,
        output_type="pt",
        callback_on_step_end=advance,
        return_dict=False,
    )
    images: Tensor = made.float().cpu()
    return images
