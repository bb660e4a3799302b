"""The images that a model is judged by: image k from seed `seed + k`, kept in the run folder.

    RUN/evaluation/samples-<hash>/00000.safetensors    images 0 to 255, the next file the next 256, and so on

The hash is of all that decides an image: weights, schedule, sampler, steps, guidance, labels and seed, and not how many
there are. A drawing that was stopped goes on where it was, and one of more images begins with those that are there.

What is asked for comes in the proportions of the data that they are compared with: sample k is asked for what the
example is conditioned on at the point frac(k / golden ratio) of all, sorted, so that any number of samples has nearly
those proportions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from logsnr.base.files import digest_of, replacing_file
from logsnr.data.seeded import SeededData, Split
from logsnr.sampling.guidance import guidance_in_words, guiding
from logsnr.sampling.sample import Request, choose_scheduler, draw, sampler_in_words, steps_of
from logsnr.settings.options import EvaluateOptions
from logsnr.tasks.parts import Parts, parts_of_pipeline

_SHARD = 256
_GOLDEN = 0.6180339887498949


def examples_asked_for(data: SeededData[Any], split: Split, num: int) -> NDArray[np.int64]:
    """Which example of that part the samples 0..num-1 are asked to be like, by the rule above: its place in the part,
    (num,)."""
    keys = [[np.asarray(value).tolist() for value in condition.values()] for condition in data.conditions(split)]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    points = (np.arange(num) + 0.5) * _GOLDEN % 1
    chosen: NDArray[np.int64] = order[(points * len(order)).astype(np.int64)]
    return chosen


def asked_like_the_data(parts: Parts, data: SeededData[Any], split: Split, num: int) -> Mapping[str, list[Any]]:
    """Arguments of the pipeline for the samples 0..num-1, by the rule above; none where the data have no conditions."""
    conditions = list(data.conditions(split))
    if not conditions[0]:
        return {}
    return parts.asked([conditions[row] for row in examples_asked_for(data, split, num).tolist()], data)


def generate(
    pipeline: Any, folder: Path, model: str, data: SeededData[Any], options: EvaluateOptions, num: int
) -> Tensor:
    """`num` samples as the pipeline's `output_type="pt"` has them, of the depth of the data, float32, on the CPU.

    `model` is the model's digest. Those that are in `folder` are taken from there; the others are drawn, with a
    progress bar, after a swap to the scheduler of the options. Raises ModelError where they can't be drawn as asked.
    """
    choose_scheduler(pipeline, options)
    bits = data.examples.bits
    parts = parts_of_pipeline(pipeline)
    arguments, manner = asked_like_the_data(parts, data, options.reference, num), parts.manner(options)
    guided = arguments or options.guidance_scale != 1  # a model without conditions is told nothing of guidance
    guidance = guiding(pipeline, options.guidance_scale, options.guidance) if guided else {}
    words = guidance_in_words(options.guidance_scale, options.guidance)
    steps = steps_of(pipeline, options.steps)
    request = Request(steps, guidance, options.eta, options.batch_size, manner)
    decisive = (
        *(model, sampler_in_words(pipeline.scheduler, options.eta), request.steps, words),
        *(options.seed, data.fingerprint, bits, options.reference if arguments else ""),
        *sorted(manner.items()),
    )
    own = folder / f"samples-{digest_of(repr(decisive).encode())}"
    starts = range(0, num, _SHARD)
    sizes = {start: min(_SHARD, num - start) for start in starts}
    paths = {start: own / f"{start:05}.safetensors" for start in starts}
    shards = {start: _shard(paths[start], sizes[start]) for start in starts}
    missing = [start for start in starts if shards[start] is None]
    total = sum(request.evaluations(sizes[start]) for start in missing)
    with tqdm(desc=f"Drawing {data.examples.noun}s", total=total, unit="step", leave=False, delay=2) as bar:
        for start in missing:
            rows = slice(start, start + sizes[start])
            seeds = range(options.seed, options.seed + num)[rows]
            drawn = draw(pipeline, request, seeds, {name: values[rows] for name, values in arguments.items()}, bar)
            if bits is not None:
                drawn = drawn.mul((1 << bits) - 1).round().to(torch.uint8 if bits == 8 else torch.uint16)
            with replacing_file(paths[start]) as path:
                save_file({"samples": drawn}, path)
            shards[start] = drawn
    samples = torch.cat([shard for shard in shards.values() if shard is not None])
    return samples if bits is None else samples.float().div((1 << bits) - 1)


def _shard(path: Path, size: int) -> Tensor | None:
    """The first `size` samples of a file, if it is there and has as many."""
    if not path.exists():
        return None
    samples = load_file(path)["samples"]
    return samples[:size] if len(samples) >= size else None
