"""How much work a restoration is: evaluations of the network, memory, and time by one evaluation."""

from __future__ import annotations

import math
import time

import torch

from logsnr.base.errors import ConfigError, DataError
from logsnr.base.words import listed
from logsnr.pipelines.restoration_methods import make_method
from logsnr.repair.plan import Restoration
from logsnr.repair.restore import draws_at_once


def effort(restoration: Restoration) -> str:
    """What would be done, in words; nothing is written. Raises DataError where nothing can be."""
    pipeline, options = restoration.pipeline, restoration.options
    refused, tiles, sizes = [], 0, []
    largest: tuple[int, ...] = pipeline.image_shape
    for name in restoration.files:
        try:
            shape = restoration.job(name).operator.shape
        except (DataError, ConfigError) as error:
            refused.append(f"  {error}")
            continue
        largest = max(largest, shape, key=math.prod)
        tiles += pipeline.num_tiles(shape)
        sizes.append(f"{shape[2]}x{shape[1]}")
    at_once = draws_at_once(pipeline, options, largest)
    if not sizes:
        raise DataError("\n".join([f"none of {len(refused)} files can be restored:", *refused]))
    drawn = tiles * options.samples
    seconds = drawn * restoration.evaluations * seconds_each(restoration, min(at_once, drawn))
    lines = [
        f"Would restore {len(sizes)} of {len(restoration.files)} files ({listed(dict.fromkeys(sizes))}) into "
        f"{restoration.out}, by {options.method} from {options.damage}.",
        f"{restoration.work(drawn)}.",
        f"About {in_words(seconds)}, by one evaluation on {pipeline.unet.device.type}, and "
        f"{at_once * pipeline.memory(options.method) / 2**20:,.0f} MiB of memory for {at_once} at once.",
    ]
    return "\n".join([*lines, *(["Can't be done:", *refused] if refused else [])])


def seconds_each(restoration: Restoration, batch: int) -> float:
    """Seconds of an evaluation of one picture among `batch`, or of half an evaluation with its gradient, where the
    method takes gradients: the shortest of three, after one that isn't counted."""
    unet, gradients = restoration.pipeline.unet, make_method(restoration.options.method).gradients
    sample = torch.zeros(batch, *restoration.pipeline.image_shape, dtype=unet.dtype, device=unet.device)
    embeds = unet.config["num_class_embeds"]
    labels = None if embeds is None else torch.zeros(batch, dtype=torch.long, device=unet.device)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        with torch.set_grad_enabled(gradients):
            at = sample.requires_grad_(gradients)
            total = unet(at, 0, class_labels=labels).sample.sum()
            if gradients:
                (total,) = torch.autograd.grad(total, at)
        float(total.sum())  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:]) / batch / (2 if gradients else 1)


def in_words(seconds: float) -> str:
    """A time of one or two digits in its unit."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
