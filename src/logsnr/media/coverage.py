"""Calibration in two pictures: how often intervals hold the truth, and the truth's rank among the draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from logsnr.media.plots import FRAME, INK, label_axes, lines_of, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Calibration(NamedTuple):
    """What is drawn of one method and kind of number; in [0, 1]."""

    nominal: Sequence[float]
    """The coverage that intervals should have."""
    coverage: Sequence[float]
    errors: Sequence[float]
    """Standard errors of the coverage."""
    ranks: Sequence[float]
    """Share of each rank of the truth among the draws, from below all to above all."""


def calibration_figure(curves: Mapping[str, Calibration], title: str) -> Figure:
    """Coverage against what it should be, with bands of 95 %, and shares of ranks; a colour for each of `curves`."""
    figure = new_figure(11, 4.6)
    figure.suptitle(title, fontsize=11)
    coverage_axes, rank_axes = figure.subplots(1, 2)
    coverage_axes.plot([0, 1], [0, 1], color=FRAME, linewidth=1, zorder=1)
    for (name, each), (color, style) in zip(curves.items(), lines_of(curves), strict=True):
        nominal, found, reach = np.array(each.nominal), np.array(each.coverage), 1.96 * np.array(each.errors)
        coverage_axes.plot(nominal, found, color=color, linestyle=style, linewidth=1.8, label=name)
        coverage_axes.fill_between(nominal, found - reach, found + reach, color=color, alpha=0.15, linewidth=0)
        shares = np.array(each.ranks) * len(each.ranks)
        rank_axes.stairs(shares, np.linspace(0, 1, len(shares) + 1), color=color, linestyle=style, linewidth=1.8)
    rank_axes.axhline(1, color=FRAME, linewidth=1, zorder=1)
    rank_axes.set_ylim(bottom=0)
    rank_axes.set_xlim(0, 1)
    coverage_axes.set_xlim(0, 1)
    coverage_axes.set_ylim(0, 1)
    coverage_axes.annotate("surer than it may be", (0.97, 0.04), ha="right", color=INK, fontsize=9)
    coverage_axes.annotate("less sure than it might be", (0.03, 0.94), color=INK, fontsize=9)
    coverage_axes.set_xlabel("coverage that the interval should have")
    rank_axes.set_xlabel("rank of the original among its draws (share of all)")
    label_axes(coverage_axes, "Coverage of intervals between draws", "originals in the interval (share)")
    label_axes(rank_axes, "Where the originals lie", "originals, over what is right")
    figure.legend(
        *coverage_axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(curves), 4), frameon=False
    )
    return figure
