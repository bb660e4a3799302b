"""Pictures of models of states, such as texts, and of their noise. Every function is pure: data in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from logsnr.media.plots import FRAME, INK, label_axes, lines_of, new_figure
from logsnr.schedulers.scheduling_transition import TransitionScheduler

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class ComparedStates(NamedTuple):
    """What `compared_states_figure` draws of one run; figures come with their standard errors."""

    bound: tuple[float, float] | None
    """Bits a token; None where it wasn't measured."""
    limit: tuple[float, float] | None
    """The bound in continuous time, where there is one."""
    by_log_snr: Sequence[float]
    """Bits a token in each bin; empty where the bound wasn't measured."""
    words: Mapping[int, tuple[float, float]]
    """The share of words in a list by sampling steps; empty where there are no words."""
    entropy: Mapping[int, float]
    """The unigram entropy by sampling steps."""


def compared_states_figure(
    runs: Mapping[str, ComparedStates],
    edges: Sequence[float],
    real: tuple[float | None, float],
    token: str,
) -> Figure:
    """The bound, where it is spent, and against sampling steps the share of words beside the unigram entropy.

    Args:
        runs: by name.
        edges: of the bins of log-SNR, (bins + 1,).
        real: the share of words, where there is one, and the unigram entropy of real text.
        token: what to call one.
    """
    with_bound, with_words = (any(getattr(run, name) for run in runs.values()) for name in ("bound", "words"))
    panels = 2 * with_bound + with_words + 1
    figure = new_figure(0.6 + 4 * panels, 4.4)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    lines = dict(zip(runs, lines_of(runs), strict=True))
    if with_bound:
        _bounds(axes.pop(0), runs, token)
        spent = axes.pop(0)
        for name, (color, style) in lines.items():
            spent.stairs(runs[name].by_log_snr, edges, baseline=None, color=color, linestyle=style, linewidth=1.8)
        spent.set_xlabel("log-SNR λ (natural logarithm): ← noise · data →")
        label_axes(spent, "Where the bits are spent", f"bits a {token} in each bin")
    if with_words:
        known = axes.pop(0)
        for name, (color, style) in lines.items():
            values, errors = zip(*runs[name].words.values(), strict=True)
            known.errorbar(list(runs[name].words), values, errors, color=color, linestyle=style, marker="o", capsize=3)
        _against_steps(known, runs, real[0])
        label_axes(known, "Share of words, ± one standard error", "of the words drawn")
    (varied,) = axes
    for name, (color, style) in lines.items():
        entropy = runs[name].entropy
        varied.plot(list(entropy), list(entropy.values()), color=color, linestyle=style, marker="o", label=name)
    _against_steps(varied, runs, real[1])
    label_axes(varied, "Unigram entropy", f"bits a {token}")
    figure.legend(*varied.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _bounds(axes: Axes, runs: Mapping[str, ComparedStates], token: str) -> None:
    for label, marker, shift in (("bound", "o", -0.1), ("limit", "D", 0.1)):
        found = {place: value for place, run in enumerate(runs.values()) if (value := getattr(run, label)) is not None}
        if found:
            values, errors = zip(*found.values(), strict=True)
            name = "of the chain" if label == "bound" else "in continuous time"
            fill = INK if label == "bound" else "white"
            places = [place + shift for place in found]
            axes.errorbar(places, values, errors, fmt=marker, color=INK, markerfacecolor=fill, capsize=4, label=name)
    axes.set_xticks(range(len(runs)), list(runs), rotation=30, ha="right")
    axes.set_xlim(-0.6, len(runs) - 0.4)
    axes.margins(y=0.2)
    axes.legend(frameon=False, fontsize=8)
    label_axes(axes, "Bound, ± one standard error", f"bits a {token} (less is better)")


def _against_steps(axes: Axes, runs: Mapping[str, ComparedStates], real: float | None) -> None:
    if real is not None:
        axes.axhline(real, color=INK, linewidth=1, linestyle=(0, (2, 2)), label="real text")
    axes.set_xscale("log")
    shown = sorted({steps for run in runs.values() for steps in run.entropy})
    axes.set_xticks(shown, [str(steps) for steps in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("steps of the sampler")


def kernels_figure(
    schedules: Mapping[str, TransitionScheduler],
    matrices: Mapping[str, Sequence[Tensor]],
    titles: Sequence[str],
    states: Mapping[str, Sequence[str]],
) -> Figure:
    """What survives of states along some schedules, and below for each kernel where states are after some steps.

    Args:
        schedules: by name; their kernel plays no part.
        matrices: of each kernel, (K, K) for each of the titles, rows from and columns to.
        titles: above the columns of matrices.
        states: of each kernel, what to call its states.
    """
    figure = new_figure(13, 4.2 + 3 * len(matrices))
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[4.2, 3 * len(matrices)])[:, 0]
    survival_axes, log_snr_axes, lost_axes = top.subplots(1, 3)
    for (name, schedule), (color, style) in zip(schedules.items(), lines_of(schedules), strict=True):
        survival = schedule.alphas_cumprod.numpy()
        time = np.arange(1, len(survival) + 1) / len(survival)
        lost = -np.diff(survival, prepend=1.0) * len(survival)
        log_snr = np.log(survival[:-1]) - np.log1p(-survival[:-1])  # at the last it is -inf
        for axes, x, values in (
            (survival_axes, time, survival),
            (log_snr_axes, time[:-1], log_snr),
            (lost_axes, time, lost),
        ):
            axes.plot(x, values, color=color, linestyle=style, linewidth=1.8, label=name)
    label_axes(survival_axes, "What has survived", "ᾱ (share of the states)")
    label_axes(log_snr_axes, "log-SNR", "λ = log(ᾱ / (1 − ᾱ))")
    label_axes(lost_axes, "What each step takes", "T (ᾱ before − ᾱ after)")
    for axes in (survival_axes, log_snr_axes, lost_axes):
        axes.set_xlabel("t/T (share of the chain)")
    top.legend(*survival_axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)

    grid = bottom.subplots(len(matrices), len(titles), squeeze=False)
    for row, (kernel, shown) in zip(grid, matrices.items(), strict=True):
        for axes, matrix, title in zip(row, shown, titles, strict=True):
            picture = axes.imshow(matrix.numpy(), cmap="Blues", vmin=0, vmax=1)
            places = range(len(matrix))
            axes.set_xticks(places, states[kernel])
            axes.set_yticks(places, states[kernel])
            axes.tick_params(color=FRAME, labelcolor=INK, labelsize=8)
            if axes in grid[0]:
                axes.set_title(title, fontsize=10, color=INK)
            if axes in grid[-1]:
                axes.set_xlabel("to")
        row[0].set_ylabel(f"{kernel}\nfrom", color=INK)
    bottom.colorbar(picture, ax=grid.ravel().tolist(), shrink=0.6, label="chance")
    return figure
