"""`logsnr compare guidance`: one model, drawn with more and more guidance, in several ways.

    RUN/guidance.json    the figures
    RUN/guidance.png     FID, precision, recall, and how often what was asked for is drawn, against the scale

The ways: away from the model without its class or text (classifier-free), in all steps and in a part of them; that
projected; and away from a weaker model, where there is one (autoguidance). What was drawn and measured before is
reused, so the same command goes on after an interruption.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from logsnr.base.columns import aligned
from logsnr.base.errors import ConfigError
from logsnr.base.files import write_atomically
from logsnr.evaluation.arrays import check
from logsnr.evaluation.asked import Question, titled, what_was_asked
from logsnr.evaluation.distribution import distribution, extractor_for, number_of_images
from logsnr.evaluation.extractors import FeatureExtractor
from logsnr.evaluation.subject import Subject
from logsnr.folders.model_folder import GUIDE, is_model
from logsnr.media.plots import label_axes, lines_of, new_figure, save_png
from logsnr.sampling.sample import steps_of
from logsnr.settings.guidance import PLAIN, GuidanceOptions
from logsnr.settings.options import EvaluateOptions
from logsnr.tasks.parts import require_numbers

Interval = tuple[float, float]
Ways = dict[str, GuidanceOptions]
_SHOWN = {
    "fid": ("FID", "FID (less is better)"),
    "kid": ("KID", "KID (less is better)"),
    "precision": ("Precision", "share that looks like the data"),
    "recall": ("Recall", "share of the data that it reaches"),
}
"""Figures of the table and the picture, with title and axis."""


def ways(subject: Subject, intervals: Sequence[Interval], projected: bool, guide: str | None) -> Ways:
    """The ways to guide that are compared, by their names. Raises ConfigError where there is none for this model."""
    require_numbers(subject.task.parts, "logsnr compare guidance")
    found: Ways = {}
    if next(subject.data.conditions("train")):
        found["classifier-free"] = PLAIN
        found |= {"in {:g} to {:g}".format(*interval): GuidanceOptions(interval) for interval in intervals}
        if projected:
            found["projected"] = GuidanceOptions(projected=True)
    if guide is None and is_model(subject.run / GUIDE):
        guide = str(subject.run / GUIDE)
    if guide is not None:
        found["away from the guide"] = GuidanceOptions(guide=guide)
    if not found:
        raise ConfigError(
            f"{subject.run} is a model without classes or texts, which a weaker model alone can guide: give --guide, "
            "or train with --train.keep-guide 0.1."
        )
    return found


def plan(subject: Subject, scales: Sequence[float], how: Ways, options: EvaluateOptions) -> str:
    """What `compare` would do, in words. Raises what it would raise at once."""
    drawing, _ = check(subject, options)
    num = number_of_images(options, subject.data)
    count = len(list(_cells(scales, how)))
    return (
        f"{subject.data.description}\n"
        f"Would draw {num:,} {subject.data.examples.noun}s {count} times in {steps_of(drawing, options.steps)} steps: "
        f"without guidance, and with scale {', '.join(f'{scale:g}' for scale in scales)} {'; '.join(how)}. The table "
        f"would go to {subject.run / 'guidance.json'}, the picture to {subject.run / 'guidance.png'}; nothing was "
        "written."
    )


def compare(
    subject: Subject,
    scales: Sequence[float],
    how: Ways,
    options: EvaluateOptions,
    say: Callable[[str], None] = print,
) -> str:
    """Draw and measure in each way at each scale, and write the table and the picture; the table, in words."""
    _, judged = check(subject, options)
    extractor = extractor_for(subject, options)
    say(subject.data.description)
    rows = []
    for name, scale in _cells(scales, how):
        say(f"-- {name}, {scale:g}" if name else "-- without guidance")
        guided = dataclasses.replace(options, guidance_scale=scale, guidance=how[name] if name else PLAIN)
        rows.append({"way": name, "scale": scale} | _figures(subject, extractor, judged, guided))
    write_atomically(subject.run / "guidance.json", json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    save_png(_figure(rows, list(how)), subject.run / "guidance.png")
    return f"{_table(rows)}\n\n{_protocol(rows)}\nThe picture is {subject.run / 'guidance.png'}."


def _cells(scales: Sequence[float], how: Ways) -> list[tuple[str, float]]:
    """The way, empty for none, and the scale of each row."""
    return [("", 1.0), *((name, scale) for name in how for scale in scales)]


def _figures(
    subject: Subject, extractor: FeatureExtractor, judged: Question | None, options: EvaluateOptions
) -> dict[str, Any]:
    found = distribution(subject, extractor, options)
    intervals = found.comparison.intervals()
    figures = {
        key: {"value": getattr(found.comparison.figures, key), "interval": list(intervals[key])} for key in _SHOWN
    }
    assert judged is not None  # what has no features was refused
    shares, _ = what_was_asked(judged, subject, extractor, found.features, options)
    asked = {title: {key: entry["drawn"][key] for key in ("value", "interval")} for title, entry in titled(shares)}
    return {"figures": figures | asked, "protocol": found.protocol}


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    keys = list(rows[0]["figures"])
    lines: list[tuple[str, ...]] = [("guidance", "scale", *(word for key in keys for word in (key, "95 % interval")))]
    for row in rows:
        cells = [row["way"] or "none", f"{row['scale']:g}"]
        for key in keys:
            low, high = row["figures"][key]["interval"]
            cells += [f"{row['figures'][key]['value']:.4f}", f"{low:.4f} to {high:.4f}"]
        lines.append(tuple(cells))
    best = min(rows, key=lambda row: row["figures"]["fid"]["value"])
    said = f"{best['way']}, scale {best['scale']:g}" if best["way"] else "no guidance"
    return f"{aligned(lines)}\nLeast FID: {said}."


def _protocol(rows: Sequence[Mapping[str, Any]]) -> str:
    protocol = rows[0]["protocol"]
    return (
        f"{protocol['images']}; labels {protocol['labels']}; {protocol['scheduler']}; features: "
        f"{protocol['features']}, hash {protocol['features_hash']}."
    )


def _figure(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """A panel a figure, a line a way, from no guidance on."""
    keys = list(rows[0]["figures"])
    figure = new_figure(3.7 * len(keys), 4.2)
    panels = figure.subplots(1, len(keys))
    for axes, key in zip(panels, keys, strict=True):
        for name, (color, style) in zip(names, lines_of(names), strict=True):
            shown = sorted((row for row in rows if row["way"] in ("", name)), key=lambda row: row["scale"])
            scales, found = [row["scale"] for row in shown], [row["figures"][key] for row in shown]
            axes.plot(scales, [each["value"] for each in found], color=color, linestyle=style, marker="o", label=name)
            lows, highs = zip(*(each["interval"] for each in found), strict=True)
            axes.fill_between(scales, lows, highs, color=color, alpha=0.15, linewidth=0)
        if key == "fid":  # of much guidance it is a hundred times that of little
            axes.set_yscale("log", nonpositive="clip")
        axes.set_xlabel("guidance scale")
        title, unit = _SHOWN.get(key, (f"As asked: {key}", "share that shows it"))
        label_axes(axes, f"{title}, 95 % intervals", unit)
    panels[0].legend(frameon=False, fontsize=8)
    return figure
