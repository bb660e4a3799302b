"""The pictures of a model card: what the model draws, how an image comes out of noise, the noise schedule, the loss.

Pixels are enlarged by whole numbers and pictures kept to about `_WIDE` pixels, so that they are sharp on a page and
small in bytes; the larger the images, the fewer there are of them.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from logsnr.media.film import Frame, record
from logsnr.media.plots import cell_size, image_grid, labelled_grid, loss_by_log_snr_figure, to_pil
from logsnr.models.schedules import usual_steps
from logsnr.objectives.held_out import LOG_SNR_EDGES
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.sampling.sample import DEFAULT_GUIDANCE, DEFAULT_STEPS, sample
from logsnr.settings.options import SampleOptions
from logsnr.training.monitor import HeldOutLoss

_WIDE, _MOST_COLUMNS, _MOST_ROWS = 1000, 8, 10
_FILM_FRAMES = 9


@dataclass(frozen=True)
class Samples:
    """A grid of samples, and the options that make the same images anew."""

    picture: Image.Image
    options: SampleOptions
    shown_classes: list[str] | None
    """The classes in the picture, a row each; None without classes."""


def draw_samples(pipeline: PixelDiffusionPipeline) -> Samples:
    """A row a class, named beside it (the first ten classes), or a square of images where there are no classes."""
    size, steps = pipeline.unet.config["sample_size"], _steps(pipeline)
    across = math.ceil(_WIDE / cell_size((size, size)).width)
    columns, rows = min(_MOST_COLUMNS, max(2, across)), min(_MOST_ROWS, max(2, across))
    if pipeline.num_classes is None:
        images = sample(pipeline, options := SampleOptions(num=columns * min(rows, columns), steps=steps))
        return Samples(image_grid(images, columns), options, None)
    names = pipeline.id2label or {}
    classes = [names.get(index, str(index)) for index in range(min(pipeline.num_classes, rows))]
    options = SampleOptions(
        num=columns * len(classes), steps=steps, class_labels=tuple(classes), guidance_scale=DEFAULT_GUIDANCE
    )
    images = sample(pipeline, options)
    return Samples(labelled_grid([images[k :: len(classes)] for k in range(len(classes))], classes), options, classes)


def draw_film(pipeline: PixelDiffusionPipeline) -> Image.Image:
    """Two images, the seeds 0 and 1, on their way out of noise: two rows each, x_t and the clean image seen in it."""
    return film_strip(sample_film(pipeline))


def sample_film(pipeline: PixelDiffusionPipeline) -> list[Frame]:
    """The frames of `draw_film`."""
    alone = PixelDiffusionPipeline(pipeline.unet, copy.deepcopy(pipeline.scheduler))  # whose steps are recorded
    alone.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    classes, steps = alone.num_classes, _steps(alone)
    with torch.no_grad(), tqdm(total=steps, unit="step", delay=2, dynamic_ncols=True) as bar:

        def advance(done: int, total: int) -> None:
            bar.update()

        frames = record(alone.scheduler, _FILM_FRAMES, advance)
        if classes is None:
            alone(batch_size=2, num_inference_steps=steps, generator=0)
        else:
            labels: list[int | str] = [classes // 5, classes // 2]
            alone(class_labels=labels, num_inference_steps=steps, generator=0, guidance_scale=DEFAULT_GUIDANCE)
    return frames


def _steps(pipeline: PixelDiffusionPipeline) -> int:
    """As many as `logsnr sample` takes, or all that there are; of a distilled model a few."""
    return usual_steps(pipeline.scheduler, DEFAULT_STEPS)


def film_strip(frames: list[Frame]) -> Image.Image:
    """Frames from left to right under their shares of noise, two rows for each of their images."""
    samples, predicted = (torch.stack([getattr(f, name) for f in frames], 1) for name in ("sample", "predicted"))
    rows = [to_pil(row / 2 + 0.5) for pair in zip(samples, predicted, strict=True) for row in pair]
    shares = [100 * frame.noise for frame in frames]
    above = [f"{share:.0f} %" if share >= 1 else f"{share:.1f} %" for share in shares]
    return labelled_grid(rows, ["seen xₜ", "foreseen x₀"] * len(samples), above)


def draw_held_out_loss(losses: list[HeldOutLoss]) -> Figure:
    """The first and the last measurement by log-SNR."""
    chosen = [losses[0], losses[-1]] if len(losses) > 1 else losses
    return loss_by_log_snr_figure(LOG_SNR_EDGES, {f"step {loss.step:,}": loss.by_log_snr for loss in chosen})
