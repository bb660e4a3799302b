"""The pictures of a model card: what the model draws, how an image comes out of noise, the noise schedule, the loss.

Pixels are enlarged by whole numbers and pictures kept to about `_WIDE` pixels, so that they are sharp on a page and
small in bytes; the larger the images, the fewer there are of them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from logsnr.media.film import Frame, record
from logsnr.media.plots import loss_by_log_snr_figure
from logsnr.objectives.held_out import LOG_SNR_EDGES
from logsnr.sampling.sample import DEFAULT_GUIDANCE, Request, draw, sample, steps_of
from logsnr.settings.options import SampleOptions
from logsnr.tasks.parts import parts_of_pipeline
from logsnr.training.monitor import HeldOutLoss

_WIDE, _MOST_COLUMNS, _MOST_ROWS = 1000, 8, 10
_FILM_FRAMES, _FILMED = 9, 2


@dataclass(frozen=True)
class Samples:
    """A grid of samples, and the options that make the same images anew."""

    picture: Image.Image
    options: SampleOptions
    shown: list[str] | None
    """The classes or prompts in the picture, a row each; None without any."""


def draw_samples(pipeline: Any) -> Samples:
    """A row a class, named beside it (the first ten classes), or a square of samples where there are no classes."""
    parts, steps = parts_of_pipeline(pipeline), _steps(pipeline)
    medium = parts.medium_of(pipeline)
    across = medium.across(parts.shape(pipeline), _WIDE)
    columns, rows = min(_MOST_COLUMNS, max(2, across)), min(_MOST_ROWS, max(2, across))
    classes = parts.choices(pipeline)[:rows]
    if not classes:
        samples = sample(pipeline, options := SampleOptions(num=columns * min(rows, columns), steps=steps))
        return Samples(medium.show(samples, columns), options, None)
    asked: dict[str, Any] = {parts.option: tuple(classes)}
    options = SampleOptions(num=columns * len(classes), steps=steps, guidance_scale=DEFAULT_GUIDANCE, **asked)
    samples = sample(pipeline, options)
    by_class = torch.cat([samples[k :: len(classes)] for k in range(len(classes))])
    return Samples(medium.show(by_class, columns, classes), options, classes)


def draw_film(pipeline: Any) -> Image.Image:
    """Two samples, the seeds 0 and 1, on their way out of noise: x_t, and the clean sample seen in it."""
    return parts_of_pipeline(pipeline).medium_of(pipeline).film(sample_film(pipeline))


def sample_film(pipeline: Any) -> list[Frame]:
    """The frames of `draw_film`."""
    parts = parts_of_pipeline(pipeline)
    alone = parts.again(pipeline, copy.deepcopy(pipeline.scheduler))
    classes = parts.choices(pipeline)
    chosen = (classes[len(classes) // 5], classes[len(classes) // 2]) if classes else None
    asked: dict[str, Any] = {parts.option: chosen}
    arguments = parts.arguments(pipeline, SampleOptions(num=_FILMED, **asked))
    steps = _steps(alone)
    eta = 0.0 if parts.numbers else None
    request = Request(steps, {"guidance_scale": DEFAULT_GUIDANCE} if arguments else {}, eta, _FILMED)
    with torch.no_grad(), tqdm(total=steps, unit="step", delay=2, dynamic_ncols=True) as bar:
        frames = record(alone.scheduler, _FILM_FRAMES)
        draw(alone, request, range(_FILMED), arguments, bar)
    return frames


def _steps(pipeline: Any) -> int:
    """As many as `logsnr sample` takes, or all that there are; of a distilled model a few."""
    return steps_of(pipeline, None)


def draw_held_out_loss(losses: list[HeldOutLoss]) -> Figure:
    """The first and the last measurement by log-SNR."""
    chosen = [losses[0], losses[-1]] if len(losses) > 1 else losses
    return loss_by_log_snr_figure(LOG_SNR_EDGES, {f"step {loss.step:,}": loss.by_log_snr for loss in chosen})
