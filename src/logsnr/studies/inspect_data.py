"""What `logsnr inspect data` says: what the images are, and from that a schedule and a weighting to begin with.

The suggestion is what is known to work on photographs of 64 pixels, the cosine schedule and min-SNR weights of gamma 5,
moved along the log-SNR by as much as the spectrum of these images asks for (see `logsnr.media.spectrum`): `shift` moves
the schedule, and gamma, a signal-to-noise ratio, is multiplied by e^shift.
"""

from __future__ import annotations

import math
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from logsnr.base.errors import ConfigError, DataError
from logsnr.data.images import ImageData, open_images
from logsnr.data.source import OpenedSource, read_image
from logsnr.data.sources import open_source
from logsnr.media.plots import save_png, spectrum_figure
from logsnr.media.spectrum import Spectrum, photographs, spectrum
from logsnr.models.schedules import make_scheduler
from logsnr.settings.image import DataConfig
from logsnr.settings.schedule import ScheduleConfig

_WIDTH = 100
_MOST_IMAGES, _BATCH_VALUES = 5000, 2**20
_LARGEST, _LARGEST_WITHOUT_GPU = 64, 32
"""The most pixels a side that are suggested unasked."""
_GAMMA = 5.0
_FEW = 1000
_NOTHING = 1e-7
"""Less power than this beside the zero frequency is round-off."""
_NAMED = 3
"""The most unreadable files that are named."""
_BEGINNING = "A beginning: "
_FARTHEST = 6.0
"""Shifts beyond this (either way) say that the values are wrong, not the schedule."""
_SEEN = 0.01
"""A mode whose signal-to-noise ratio is above this at the last step shines through the noise."""


@dataclass
class _Files:
    """What one reading of the images as they are found."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(width, height)."""
    kinds: Counter[str] = field(default_factory=Counter)
    colored: int = 0
    """Images whose colours differ from gray."""
    transparent: int = 0
    """Images with a pixel that can be seen through."""
    unreadable: list[str] = field(default_factory=list)
    """Names of those that can't be read."""


def inspect_data(
    source: str,
    *,
    resolution: int | None = None,
    channels: Literal[1, 3, 4] | None = None,
    out: Path | None = Path("data.png"),
) -> str:
    """Read the images, draw their spectrum into `out` (None draws nothing), and return what there is to say of them.

    Args:
        source: as in `DataConfig`.
        resolution, channels: what they would be trained at; chosen by what the images are when not given.

    Raises DataError where there are no images, ConfigError for a wrong argument.
    """
    if out is not None and out.suffix.lower() != ".png":
        raise ConfigError(f"--out must be a file that ends in .png, and is {out}.")
    opened = open_source(DataConfig(source=source), labelled=True)
    files = _read(opened)
    if not files.sizes:
        raise DataError(f"None of the {len(opened.images)} images of {source} can be read.")
    side = resolution or _resolution(files)
    config = DataConfig(
        source=source,
        resolution=side,
        channels=channels or _channels(files),
        held_out_fraction=0,
        skip_unreadable=True,
    )
    data = open_images(config)
    found = _spectrum_of(data)
    if float(found.power.flatten(1)[:, 1:].sum()) < _NOTHING:
        raise DataError(
            f"There is nothing to learn from the {len(data)} images of {source}: each is of one colour, or all are the "
            "same."
        )
    shift = round(2 * found.offset) / 2
    paragraphs = [_images(opened, files), *map(_sentence, data.examples.remarks), _pixels(data, found)]
    paragraphs += [_too_far(found)] if abs(shift) > _FARTHEST else _suggestion(config, data, found, shift, files)
    if out is not None:
        save_png(spectrum_figure(found, photographs()), out)
        paragraphs.append(f"The spectrum is in {out}.")
    return "\n\n".join(
        text  # a command stays on its line, to be copied
        if text.startswith(_BEGINNING)
        else textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
        for text in paragraphs
    )


def _read(opened: OpenedSource) -> _Files:
    files = _Files()
    images = opened.images
    for index in tqdm(range(len(images)), "Reading images", leave=False, unit=" images", delay=2):
        try:
            pixels = read_image(images, index).pixels
        except DataError:
            raise
        except Exception:  # damaged files make Pillow raise anything
            files.unreadable.append(images.name(index))
            continue
        height, width, channels = pixels.shape
        files.sizes[width, height] += 1
        name = {1: "gray", 2: "gray with transparency", 3: "RGB", 4: "RGBA"}[channels]
        files.kinds[f"{name}, {8 * pixels.itemsize} bit"] += 1
        files.colored += channels >= 3 and bool((pixels[..., :1] != pixels[..., :3]).any())
        files.transparent += channels in (2, 4) and bool((pixels[..., -1] < np.iinfo(pixels.dtype).max).any())
    return files


def _resolution(files: _Files) -> int:
    """The short side of most images, at most `_LARGEST`, as a multiple of four: a U-Net halves it twice."""
    sides = sorted(min(size) for size, count in files.sizes.items() for _ in range(count))
    largest = _LARGEST if torch.cuda.is_available() else _LARGEST_WITHOUT_GPU
    return max(4, min(largest, sides[len(sides) // 2]) // 4 * 4)


def _channels(files: _Files) -> Literal[1, 3, 4]:
    if 2 * files.transparent > files.sizes.total():
        return 4
    return 3 if files.colored else 1


def _spectrum_of(data: ImageData) -> Spectrum:
    """Spectrum of the images, or of as many of them, chosen at random, as are enough."""
    count = min(len(data), _MOST_IMAGES)
    size = max(1, _BATCH_VALUES // math.prod(data.examples.shape))  # large images in small batches
    steps = -(-count // size)

    def batches() -> Iterator[torch.Tensor]:
        shown = data.batches(seed=0, batch_size=size, start_step=0, num_steps=steps)
        for step, batch in enumerate(tqdm(shown, "Spectrum", steps, leave=False, delay=2)):
            yield batch.clean[: count - step * size]

    return spectrum(batches)


def _images(opened: OpenedSource, files: _Files) -> str:
    def counted(counter: Counter[str]) -> str:
        shown = ", ".join(f"{name} ({count:,})" for name, count in counter.most_common(3))
        return shown + (f" and {len(counter) - 3} more" if len(counter) > 3 else "")

    sizes = Counter({f"{width}x{height}": count for (width, height), count in files.sizes.items()})
    said = [f"{files.sizes.total():,} images", f"sizes {counted(sizes)}", counted(files.kinds)]
    labels = opened.labels
    said.append("no classes" if labels is None else f"{len(labels.names)} classes")
    if files.kinds and not files.colored and not all(kind.startswith("gray") for kind in files.kinds):
        said.append("gray all the same")
    if files.transparent:
        said.append(f"{files.transparent:,} transparent in places, which 4 channels keep and fewer lay over white")
    if files.unreadable:
        names, more = files.unreadable[:_NAMED], len(files.unreadable) - _NAMED
        which = ", ".join(names) + (f" and {more:,} more" if more > 0 else "")
        said.append(f"{len(files.unreadable):,} can't be read: {which}")
    return "; ".join(said) + "."


def _pixels(data: ImageData, found: Spectrum) -> str:
    side, channels = data.examples.resolution, data.examples.channels
    frequencies, power = (values.double() for values in found.by_frequency())
    slope = ""
    if len(frequencies) >= 4:
        x, y = frequencies.log(), power.clamp(min=1e-12).log()
        fall = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
        slope = f" The spectrum falls as 1/f^{-fall:.1f} (photographs: 1/f^2)."
    return (
        f"At {side}x{side} with {channels} channel{'s' if channels > 1 else ''}, "
        f"in [-1, 1]: mean {found.mean:.3f}, standard deviation {found.std:.3f} (sigma_data of the weighting "
        f"edm).{slope} Noise hides half of their coarse structure at a log-SNR {abs(found.offset):.1f} "
        f"{'above' if found.offset > 0 else 'below'} that of photographs of 64 pixels."
    )


def _sentence(line: str) -> str:
    return f"{line[0].upper()}{line[1:]}."


def _too_far(found: Spectrum) -> str:
    return (
        f"No schedule is suggested: with a standard deviation of {found.std:.2g}, where photographs have 0.5, noise "
        "hides these images almost at once. Bring their values to the whole range first, black to white."
    )


def _suggestion(config: DataConfig, data: ImageData, found: Spectrum, shift: float, files: _Files) -> list[str]:
    scheduler = make_scheduler(ScheduleConfig(shift=shift))
    last = float(scheduler.log_snr(torch.tensor(len(scheduler) - 1)))
    shines = math.exp(last) * float(found.power.max()) > _SEEN
    gamma = _GAMMA * math.exp(shift)
    command = (
        f"logsnr train images-{32 if config.resolution <= 32 else 64} --data.source {shlex.quote(config.source)} "
        f"--data.resolution {config.resolution} --data.channels {config.channels} --schedule.name cosine "
        f"--schedule.shift {shift:g} {'--schedule.zero-terminal-snr ' if shines else ''}"
        f"--objective.weighting.name min_snr --objective.weighting.gamma {gamma:.2g} "
        f"{'--data.skip-unreadable ' if files.unreadable else ''}--out RUN"
    )
    rule = 2 * math.log(64 / config.resolution)
    reasons = [
        f"Why: on photographs of 64 pixels the cosine schedule and min-SNR weights with gamma 5 are known to work. "
        f"Moved by {shift:+g} of log-SNR (to the nearest half), noise hides about as much of your images at each step "
        "as it does of those; "
        f"gamma is a signal-to-noise ratio and moves with it. (Size alone, 2 ln(64 / {config.resolution}), would say "
        f"{rule:+.1f}; the spectrum also counts contrast and smoothness.)",
    ]
    if shines:
        reasons.append(
            "At the last step the coarsest structure would still shine through the noise, which sampling never has: "
            "hence zero terminal SNR."
        )
    if config.resolution > 32 and not torch.cuda.is_available():
        reasons.append(
            f"Without a GPU, as here, that takes days. For one that takes less: logsnr inspect data "
            f"{shlex.quote(config.source)} --resolution {_LARGEST_WITHOUT_GPU}"
        )
    if files.sizes.total() < _FEW:
        reasons.append(
            f"{files.sizes.total():,} images are few: begin with a model (--init-from), keep some dropout, and let "
            "`logsnr evaluate` say whether training images are drawn again."
        )
    return [f"{_BEGINNING}{command}", *reasons]
