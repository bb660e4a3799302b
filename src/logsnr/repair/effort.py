"""How much work a restoration is: evaluations of the network, memory, and time by one evaluation."""

from __future__ import annotations

import math
import time

import torch

from logsnr.base.errors import DataError
from logsnr.base.words import listed
from logsnr.pipelines.restoration_methods import make_method
from logsnr.repair.plan import Restoration
from logsnr.repair.restore import draws_at_once


def effort(restoration: Restoration) -> str:
    """What would be done, in words; nothing is written. Raises DataError where no file can be restored, and ConfigError
    where `out` holds what this can't be written beside."""
    pipeline, options, found = restoration.pipeline, restoration.options, restoration.find(restoration.made())
    refused = [f"  {line}" for line in found.refused]
    if not found.shapes:
        if not found.done:
            raise DataError("\n".join([f"none of {len(refused)} files can be restored:", *refused]))
        return "\n".join(
            [f"All {len(found.done)} were done before.", *(["Can't be done:", *refused] if refused else [])]
        )
    shapes = list(found.shapes.values())
    at_once = draws_at_once(pipeline, options, max(pipeline.image_shape, *shapes, key=math.prod))
    drawn = sum(map(pipeline.num_tiles, shapes)) * options.samples
    sizes = dict.fromkeys(f"{width}x{height}" for _, height, width in shapes)
    seconds = drawn * restoration.evaluations * seconds_each(restoration, min(at_once, drawn))
    lines = [
        f"Would restore {found.count} into {restoration.out}, {listed(sizes)}, by {options.method} from "
        f"{options.damage}.",
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
