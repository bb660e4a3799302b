"""Pictures of schedules, losses and samples. Every function is pure: data in, a figure or an image out.

Figures are made by matplotlib's object-oriented interface and drawn by Agg, so nothing here needs a display, touches
pyplot's global state or leaves a figure open. Colours are those of Okabe and Ito ("Color Universal Design", 2008),
which stay apart under the common kinds of colour blindness; a curve has its own line style as well. A built-in
schedule has the same colour in every figure.

matplotlib takes half a second to import, so only who draws a figure imports it: who trains or samples may never.
"""

from __future__ import annotations

import itertools
import math
import os
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont, features
from torch import Tensor

from logsnr.media.spectrum import Spectrum, hidden
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.schedulers.scheduling_transition import TransitionScheduler

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREEN, _PURPLE, _RED, _SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
INK, FRAME, _GRID = "#222222", "#999999", "#E4E4E4"

Line: TypeAlias = tuple[str, str | tuple[int, tuple[int, ...]]]
"""Colour and matplotlib's line style."""
_SCHEDULES: dict[str, Line] = {
    "linear": (_BLUE, "-"),
    "cosine": (_ORANGE, "-"),
    "constant": (_GREEN, (0, (6, 2))),
    "sigmoid": (_PURPLE, (0, (6, 2, 1, 2))),
    "laplace": (_RED, (0, (3, 1))),
    "learned": (INK, (0, (8, 1))),
}
_OTHERS: list[Line] = [  # broken lines, so that a curve under them shows through
    (_SKY, (0, (4, 2))),
    (INK, (0, (1, 1))),
    *((color, (0, (8, 2, 1, 2, 1, 2))) for color in (_BLUE, _ORANGE, _GREEN, _PURPLE, _RED, _SKY, INK)),
]

_SMALLEST_CELL = 64
"""Images with a shorter side than this are enlarged, so that a person can see their pixels."""
_LABEL_SIZE, _LABEL_LENGTH = 15, 24
"""Height in pixels and the most letters of a word beside images."""
_FEW_STEPS: list[Line] = [
    (_RED, "-"),
    (_RED, (0, (1, 1))),
    (_BLUE, (0, (6, 2))),
    (_GREEN, (0, (6, 2, 1, 2))),
    (INK, (0, (3, 2))),
]
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CHECKS = (238, 196)
"""The two grays behind transparent pixels."""


# -- images -----------------------------------------------------------------------------------------------------------


def image_grid(images: torch.Tensor | Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Images of one size side by side, row by row, as one image; a checkerboard shows through where they do.

    Args:
        images: (n, c, height, width) in [0, 1] with 1, 3 or 4 channels, or PIL images. Values outside are clipped.
        columns: images a row; about a square when not given.
    """
    cells = to_pil(images) if isinstance(images, torch.Tensor) else list(images)
    if not cells:
        raise ValueError("`images` must hold at least one image, and is empty.")
    if columns is not None and columns < 1:
        raise ValueError(f"`columns` must be at least 1, and is {columns}.")
    sizes = {cell.size for cell in cells}
    if len(sizes) > 1:
        raise ValueError(
            f"`images` must all have one size, and have {', '.join(f'{w}x{h}' for w, h in sorted(sizes))}."
        )

    width, height, padding = cell_size(cells[0].size)
    columns = min(columns or math.ceil(math.sqrt(len(cells))), len(cells))
    rows = math.ceil(len(cells) / columns)
    gray = all(cell.mode in ("1", "L") for cell in cells)
    size = (columns * (width + padding) + padding, rows * (height + padding) + padding)
    grid = Image.new("L" if gray else "RGB", size, 255 if gray else "white")
    for k, cell in enumerate(cells):
        row, column = divmod(k, columns)
        opaque = _over_checkerboard(cell.resize((width, height), Image.Resampling.NEAREST))
        grid.paste(
            opaque.convert(grid.mode), (padding + column * (width + padding), padding + row * (height + padding))
        )
    return grid


def columns_of(num: int, turn: int) -> int | None:
    """Columns of a picture of `num` samples, about a square, in which each of `turn` choices has its own; None where
    they are too many for that."""
    side = math.sqrt(num)
    return turn * max(1, round(side / turn)) if 1 < turn <= 3 * side else None


def side_by_side(
    rows: Sequence[Sequence[Image.Image]], row_labels: Sequence[str], column_labels: Sequence[str], corner: str = ""
) -> Image.Image:
    """Pictures of one size in rows, with a word beside each row and above each column, as `labelled_grid` has them."""
    pictures = [[picture.convert("RGB") for picture in row] for row in rows]
    return labelled_grid(pictures, row_labels, column_labels, corner)


def labelled_grid(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str],
    column_labels: Sequence[str] = (),
    corner: str = "",
) -> Image.Image:
    """Rows of images as `image_grid` lays them out, with a word beside each row and above each column.

    The word in the corner says what those above the columns are.

    A word with letters that the font lacks, which would be boxes, is its row's or column's number instead, from 0.
    """
    from matplotlib.font_manager import findfont

    cells = [cell for row in rows for cell in row]
    columns = len(rows[0])
    grid = image_grid(cells, columns=columns)
    width, height, padding = cell_size(cells[0].size)
    font = ImageFont.truetype(findfont("DejaVu Sans"), _LABEL_SIZE)
    row_labels, column_labels = readable(row_labels), readable(column_labels)
    lines = max(1, height // (_LABEL_SIZE + 4))
    words = [textwrap.wrap(label, _LABEL_LENGTH, max_lines=lines, placeholder="…") or [""] for label in row_labels]
    left = _LABEL_SIZE + math.ceil(max(font.getlength(line) for line in [corner, *itertools.chain(*words)]))
    top = 2 * _LABEL_SIZE if column_labels else 0
    picture = Image.new(grid.mode, (left + grid.width, top + grid.height), "white")
    picture.paste(grid, (left, top))
    draw = ImageDraw.Draw(picture)
    if corner:
        draw.text((left - _LABEL_SIZE // 2, top // 2), corner, fill=INK, font=font, anchor="rm")
    for k, word in enumerate(words):
        middle = top + padding + k * (height + padding) + height // 2
        place = (left - _LABEL_SIZE // 2, middle)
        if len(word) == 1:
            draw.text(place, word[0], fill=INK, font=font, anchor="rm")
        else:
            draw.multiline_text(place, "\n".join(word), fill=INK, font=font, anchor="rm", align="right")
    for k, label in enumerate(column_labels):
        middle = left + padding + k * (width + padding) + width // 2
        draw.text((middle, top // 2), label, fill=INK, font=font, anchor="mm")
    return picture


def readable(labels: Sequence[str]) -> list[str]:
    """Labels as they can be drawn: in composed letters, and by their places, from 0, where the font lacks letters.

    Joined and right-to-left letters need Raqm; a Pillow without it would draw them apart and backwards.
    """
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    known = FT2Font(findfont("DejaVu Sans")).get_charmap()
    composed = [unicodedata.normalize("NFC", label) for label in labels]
    shaped = features.check("raqm")
    return [
        label if all(ord(c) in known and (shaped or not _needs_shaping(c)) for c in label) else str(k)
        for k, label in enumerate(composed)
    ]


def _needs_shaping(character: str) -> bool:
    return unicodedata.bidirectional(character) in ("R", "AL", "AN", "NSM")


class Cell(NamedTuple):
    """Width and height of an image in a grid, and the space around it, in pixels."""

    width: int
    height: int
    padding: int


def cell_size(size: tuple[int, int]) -> Cell:
    """The cell of images of this width and height: they are enlarged by a whole number where they are small."""
    factor = math.ceil(_SMALLEST_CELL / min(size))
    width, height = (side * factor for side in size)
    return Cell(width, height, max(2, min(width, height) // 32))


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    if images.ndim != 4 or images.shape[1] not in _MODES:
        raise ValueError(
            f"`images` must have shape (n, channels, height, width) with 1, 3 or 4 channels, and has "
            f"{tuple(images.shape)}."
        )
    pixels = images.detach().float().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in pixels]


def _over_checkerboard(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    square = max(4, min(image.size) // 8)
    y, x = np.indices((image.height, image.width)) // square
    checks = Image.fromarray(np.where((y + x) % 2 == 0, *_CHECKS).astype(np.uint8)).convert("RGBA")
    return Image.alpha_composite(checks, image.convert("RGBA")).convert("RGB")


# -- curves -----------------------------------------------------------------------------------------------------------


def schedule_figure(schedulers: Mapping[str, BetaScheduler | TransitionScheduler]) -> Figure:
    """log-SNR, alpha_bar and beta of some schedules against t/T, which compares chains of different lengths.

    A log-SNR of -inf, at zero terminal SNR, has no place on the axis: its curve falls to the foot, where an arrow
    marks it.
    """
    if not schedulers:
        raise ValueError("`schedulers` must hold at least one schedule, and is empty.")
    figure = new_figure(13, 4.2)
    log_snr_axes, alpha_bar_axes, beta_axes = figure.subplots(1, 3)
    log_snr = {name: s.log_snr(torch.arange(len(s))).numpy() for name, s in schedulers.items()}
    foot = min(float(values[np.isfinite(values)].min()) for values in log_snr.values()) - 1
    for (name, scheduler), (color, style) in zip(schedulers.items(), lines_of(schedulers), strict=True):
        total = len(scheduler)
        # t counts from 0, and after its step the share (t + 1)/T of the chain is done
        time = np.arange(1, total + 1) / total
        for axes, values in (
            (log_snr_axes, log_snr[name].clip(min=foot)),
            (alpha_bar_axes, scheduler.alphas_cumprod.numpy()),
            (beta_axes, scheduler.betas.numpy()),
        ):
            axes.plot(time, values, color=color, linestyle=style, linewidth=1.8, label=name)

    log_snr_axes.axhline(0, color=FRAME, linewidth=0.8, zorder=1)
    log_snr_axes.set_ylim(bottom=foot)
    falling = [name for name, values in log_snr.items() if values[-1] == -np.inf]
    if falling:
        log_snr_axes.plot(1, foot, marker="v", markersize=7, color=INK, clip_on=False, zorder=5)
        who = "all of them" if len(falling) == len(log_snr) else "\n".join(falling)
        log_snr_axes.annotate(
            f"zero terminal SNR (λ → −∞):\n{who}", (0.04, 0.05), xycoords="axes fraction", color=INK, fontsize=9
        )
    beta_axes.set_yscale("log")
    alpha_bar_axes.set_ylim(-0.03, 1.03)
    label_axes(log_snr_axes, "log-SNR", "log-SNR λ (natural logarithm)")
    label_axes(alpha_bar_axes, "Signal left", "ᾱ (share of the variance, 0 to 1)")
    label_axes(beta_axes, "Noise added by a step", "β (variance a step, log scale)")
    for axes in (log_snr_axes, alpha_bar_axes, beta_axes):
        axes.set_xlabel("t/T (share of the chain)")
        axes.set_xlim(-0.015, 1.015)  # the ends are steep: keep them off the frame
    figure.legend(
        *log_snr_axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(schedulers), 6),
        frameon=False,
    )
    return figure


def loss_by_log_snr_figure(edges: ArrayLike, curves: Mapping[str, ArrayLike]) -> Figure:
    """Losses in bins of log-SNR as steps. A bin without a value is NaN, and its step is left out.

    Args:
        edges: (bins + 1,), ascending log-SNR.
        curves: a name each, with a loss for each bin (bins,).
    """
    borders = np.asarray(edges, dtype=float)
    if borders.ndim != 1 or len(borders) < 2 or not (np.diff(borders) > 0).all():
        raise ValueError(f"`edges` must be at least two ascending values, and is {borders.tolist()}.")
    if not curves:
        raise ValueError("`curves` must hold at least one curve, and is empty.")
    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    largest = 0.0
    for (name, values), (color, style) in zip(curves.items(), lines_of(curves), strict=True):
        heights: NDArray[np.float64] = np.asarray(values, dtype=float)
        if heights.shape != (len(borders) - 1,):
            raise ValueError(
                f"`curves` must hold one loss for each of the {len(borders) - 1} bins, and {name!r} has shape "
                f"{heights.shape}."
            )
        axes.stairs(heights, borders, baseline=None, color=color, linestyle=style, linewidth=2, label=name)
        if len(curves) == 1:
            axes.stairs(heights, borders, fill=True, color=color, alpha=0.15)
        largest = float(np.max(heights, initial=largest, where=np.isfinite(heights)))
    axes.set_xlim(borders[0], borders[-1])
    axes.set_ylim(0, 1.08 * largest if largest > 0 else 1)
    axes.set_xlabel("log-SNR λ (natural logarithm): ← noise · data →")
    label_axes(
        axes,
        "Loss by noise level" if len(curves) > 1 else f"Loss by noise level: {next(iter(curves))}",
        "error of the network's output, not weighted",
    )
    if len(curves) > 1:
        axes.legend(frameon=False)
    return figure


def bits_by_log_snr_figure(edges: ArrayLike, bits: ArrayLike, ends: Mapping[str, float], unit: str) -> Figure:
    """What the KL divergences of the variational bound cost in bins of log-SNR, and all of them from the noise on.

    Args:
        edges: (bins + 1,), ascending log-SNR.
        bits: in each bin, (bins,).
        ends: the terms that belong to no noise level, named beside the curves.
        unit: what the bits are counted in, such as bits per dimension.
    """
    borders, heights = np.asarray(edges, dtype=float), np.asarray(bits, dtype=float)
    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    axes.stairs(heights, borders, fill=True, color=_BLUE, alpha=0.4, label="in each bin")
    axes.plot(borders, np.concatenate([[0.0], heights.cumsum()]), color=_ORANGE, linewidth=1.8, label="up to here")
    axes.set_xlim(borders[0], borders[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("log-SNR λ (natural logarithm): ← noise · data →")
    label_axes(axes, "Where the bits of the ELBO are spent", unit)
    if ends:
        beside = "\n".join(f"{name}: {value:.3g}" for name, value in ends.items())
        axes.annotate(f"beside these\n{beside}", (0.02, 0.7), xycoords="axes fraction", color=INK, fontsize=9)
    axes.legend(frameon=False, loc="upper left")
    return figure


class Compared(NamedTuple):
    """What `compare_figure` draws of one schedule; figures come with the ends of their intervals."""

    terms: dict[str, float]
    """Terms of the ELBO in bits per dimension; empty where it wasn't measured."""
    standard_error: float
    """Standard error of the sum of the terms."""
    figures: dict[str, tuple[float, float, float]]
    kid_by_steps: dict[int, tuple[float, float, float]]


def compare_figure(schedules: Mapping[str, Compared]) -> Figure:
    """ELBO by term, KID, FID and KID against sampling steps, a colour each schedule."""
    figure = new_figure(15, 4.2)
    elbo_axes, kid_axes, fid_axes, steps_axes = figure.subplots(1, 4)
    places = np.arange(len(schedules))
    floor = np.zeros(len(schedules))
    for term, shade in (("decoder", _GREEN), ("kl", _SKY), ("prior", _ORANGE)):
        heights = np.array([each.terms.get(term, 0.0) for each in schedules.values()])
        elbo_axes.bar(places, heights, bottom=floor, color=shade, label=term)
        floor += heights
    errors = [each.standard_error for each in schedules.values()]
    elbo_axes.errorbar(places, floor, errors, fmt="none", ecolor=INK, capsize=4)
    elbo_axes.set_ylim(0, 1.2 * max(float(floor.max()), 1e-3))  # the legend goes above the bars
    elbo_axes.legend(frameon=False, fontsize=8, loc="upper center", ncols=3)
    label_axes(elbo_axes, "ELBO by term, ± one standard error", "bits per dimension")
    for place, (name, (color, style)) in enumerate(zip(schedules, lines_of(schedules), strict=True)):
        each = schedules[name]
        for axes, key in ((kid_axes, "kid"), (fid_axes, "fid")):
            value, low, high = each.figures[key]
            axes.errorbar([place], [value], [[value - low], [high - value]], color=color, marker="o", capsize=4)
        values, lows, highs = zip(*each.kid_by_steps.values(), strict=True)
        steps_axes.plot(list(each.kid_by_steps), values, color=color, linestyle=style, marker="o", label=name)
        steps_axes.fill_between(list(each.kid_by_steps), lows, highs, color=color, alpha=0.15, linewidth=0)
    for axes in (elbo_axes, kid_axes, fid_axes):
        axes.set_xticks(places, list(schedules), rotation=30, ha="right")
        axes.set_xlim(-0.6, len(schedules) - 0.4)
    label_axes(kid_axes, "KID, 95 % intervals", "KID (less is better)")
    label_axes(fid_axes, "FID, 95 % intervals", "FID (less is better)")
    steps_axes.set_xscale("log")
    shown = sorted({steps for each in schedules.values() for steps in each.kid_by_steps})
    steps_axes.set_xticks(shown, [str(steps) for steps in shown])
    steps_axes.set_xticks([], minor=True)
    steps_axes.set_xlabel("steps of the sampler")
    for axes in (kid_axes, fid_axes, steps_axes):
        if axes.dataLim.y0 > 0:  # an interval of KID, which has no bias, may reach below 0
            axes.set_yscale("log")
    label_axes(steps_axes, "Quality against steps", "KID (less is better)")
    steps_axes.legend(frameon=False, fontsize=8)
    return figure


def spectrum_figure(found: Spectrum, reference: Tensor) -> Figure:
    """The power of images against noise, and how much of them each noise level hides; beside `reference`'s power."""
    figure = new_figure(11, 4.2)
    power_axes, hidden_axes = figure.subplots(1, 2)
    frequencies, power = found.by_frequency()
    power_axes.loglog(frequencies, power, color=_ORANGE, linewidth=1.8, label="these images")
    low, high = power_axes.get_ylim()
    for log_snr in range(-12, 13, 3):
        if low < math.exp(-log_snr) < high:
            power_axes.axhline(math.exp(-log_snr), color=FRAME, linewidth=0.8, linestyle=(0, (2, 2)))
            power_axes.annotate(
                f"noise at λ = {log_snr}", (0.99, math.exp(-log_snr)), xycoords=("axes fraction", "data"), fontsize=8,
                ha="right", va="bottom", color=INK,
            )  # fmt: skip
    log_snrs = np.linspace(-12, 12, 200)
    for name, values, (color, style) in (
        ("photographs of 64 pixels", reference, (_BLUE, (0, (4, 2)))),
        ("these images", found.power, (_ORANGE, "-")),
    ):
        shares = [hidden(values, float(value)) for value in log_snrs]
        hidden_axes.plot(log_snrs, shares, color=color, linestyle=style, linewidth=1.8, label=name)
    power_axes.set_xlabel("frequency (cycles an image)")
    label_axes(power_axes, "Power spectrum", "variance of a mode (log scale)")
    hidden_axes.set_xlabel("log-SNR λ (natural logarithm): ← noise · image →")
    hidden_axes.set_ylim(-0.03, 1.03)
    label_axes(hidden_axes, "Coarse structure hidden by noise", "share of the variance")
    hidden_axes.legend(frameon=False)
    return figure


def few_steps_figure(panels: Mapping[str, Mapping[str, Mapping[int, float]]]) -> Figure:
    """Distance to the converged images by number of network evaluations: a panel for each guidance, a line for each
    sampler, the first of them bold."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = new_figure(1.5 + 4.8 * len(panels), 4.2)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, lines) in zip(all_axes, panels.items(), strict=True):
        for k, ((name, points), (color, style)) in enumerate(zip(lines.items(), _FEW_STEPS, strict=False)):
            look = {"color": color, "linestyle": style, "linewidth": 1.6 if k else 3.2, "zorder": 3 if k else 4}
            axes.plot(list(points), list(points.values()), marker="o", markersize=4.5, label=name, **look)
        shown = sorted({n for points in lines.values() for n in points})
        axes.set_yscale("log")
        axes.set_xticks(shown, [str(n) for n in shown])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("network evaluations")
        label_axes(axes, title, "RMSE to the converged images (log scale)" if axes is all_axes[0] else "")
        axes.grid(which="minor", axis="y", color=_GRID, linewidth=0.4)
    legend = figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    legend.get_texts()[0].set_fontweight("bold")
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty one, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def label_axes(axes: Axes, title: str, ylabel: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_ylabel(ylabel)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FRAME)
    axes.tick_params(color=FRAME, labelcolor=INK)


def lines_of(names: Iterable[str]) -> list[Line]:
    """A line for each name: a built-in schedule's own, and for the others those that are left, in order."""
    names = list(names)
    others = [name for name in names if name not in _SCHEDULES]
    return [_SCHEDULES[name] if name in _SCHEDULES else _OTHERS[others.index(name) % len(_OTHERS)] for name in names]


# -- files ------------------------------------------------------------------------------------------------------------


def as_image(figure: Figure) -> Image.Image:
    """A figure as the picture that it is drawn as."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]


def save_png(picture: Figure | Image.Image, path: str | Path) -> Path:
    """Write a figure or an image as PNG; at any moment `path` holds the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            if isinstance(picture, Image.Image):
                picture.save(file, format="PNG")
            else:
                picture.savefig(file, format="png", dpi=150)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
