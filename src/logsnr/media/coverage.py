"""Calibration in a picture: how often intervals between draws hold the truth, at every level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from logsnr.media.plots import FRAME, INK, label_axes, lines_of, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Calibration(NamedTuple):
    """What is drawn of one kind of number, in [0, 1]: the coverage of intervals, from wide to narrow."""

    nominal: Sequence[float]
    """What it should be."""
    coverage: Sequence[float]
    errors: Sequence[float]
    """Standard errors of the coverage."""


def calibration_figure(panels: Mapping[str, Mapping[str, Calibration]], title: str) -> Figure:
    """Coverage against what it should be, with bands of 95 %: a panel for each kind of number, a line for each of what
    is compared, the first of them bold. All panels have the same lines."""
    figure = new_figure(5 * len(panels) + 0.5, 5)
    figure.suptitle(title, fontsize=11)
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, curves) in zip(all_axes, panels.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=FRAME, linewidth=1, zorder=1)
        for k, ((who, each), (color, style)) in enumerate(zip(curves.items(), lines_of(curves), strict=True)):
            nominal, found, reach = np.array(each.nominal), np.array(each.coverage), 1.96 * np.array(each.errors)
            axes.plot(
                nominal, found, color=color, linestyle=style, linewidth=1.6 if k else 3.2, marker="o", markersize=4,
                label=who,
            )  # fmt: skip
            axes.fill_between(nominal, found - reach, found + reach, color=color, alpha=0.15, linewidth=0)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.annotate("surer than it may be", (0.97, 0.04), ha="right", color=INK, fontsize=9)
        axes.annotate("less sure than it might be", (0.03, 0.94), color=INK, fontsize=9)
        axes.set_xlabel("coverage that the interval should have")
        label_axes(axes, name, "originals in the interval (share)")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure
