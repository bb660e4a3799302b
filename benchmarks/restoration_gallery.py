"""A before-after picture of each operator of repair, with trained models.

    python benchmarks/restoration_gallery.py RUN [RUN of RGB pictures] --out docs/repair

A file a model: a row for each operator, with a held-out picture, what was measured of it, two draws, the mean of 16
draws and their standard deviation. Pictures are taken by chance from the quarter with the most edges. By `moment` in 20
steps; of what isn't linear JPEG by `diffpir` in 50, and clipping by `dps` in 100. Some minutes for each model on two
cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

matplotlib.use("Agg")
from matplotlib import pyplot
from tqdm import tqdm

import logsnr
from logsnr.evaluation.subject import open_subject
from logsnr.pipelines.pipeline_restoration import RestorationPipeline
from logsnr.repair.operators import make_operator
from logsnr.settings.damage import read_damage

DAMAGES = [
    *("noise 0.2", "missing 0.6", "box 0.5", "blur 1.5", "motion 7 30", "down 2", "down 4", "bicubic 4"),
    *("gray", "projections 0.15", "fourier 4", "radon 12", "jpeg 5", "clip 0.3 0.6", "gray + down 2 + missing 0.3"),
]
COLUMNS = ("original", "measured", "a draw", "another", "mean of 16", "deviation")


def main(run: Path, out: Path) -> None:
    subject = open_subject(run)
    drawing: Any = logsnr.load(run)
    pipe = RestorationPipeline(drawing.unet, drawing.scheduler, id2label=drawing.id2label)
    pipe.set_progress_bar_config(disable=True)
    channels = pipe.image_shape[0]
    damages = [damage for damage in DAMAGES if channels == 3 or "gray" not in damage]
    clean = held_out(subject, len(damages))
    figure, axes = pyplot.subplots(len(damages), 7, figsize=(8.2, 1.12 * len(damages)), width_ratios=[1.5, *[1] * 6])
    for row, (damage, line) in enumerate(zip(tqdm(damages), axes, strict=True)):
        words = damage if damage.startswith("noise") else f"{damage} + noise 0.02"
        operator = make_operator(read_damage(words), pipe.image_shape, seed=1)
        original = clean[row : row + 1]
        measurement = operator.measure(original, 5)
        how: dict[str, Any] = {"num_samples": 16, "generator": 0, "output_type": "pt"}
        if "clip" in damage:  # its gradient is zero where it cut, and diffpir stays with what was measured
            made = pipe(measurement, operator, "dps", num_inference_steps=100, **how)
        elif not operator.linear:
            made = pipe(measurement, operator, "diffpir", num_inference_steps=50, **how)
        else:
            made = pipe(measurement, operator, **how)
        is_picture = measurement.ndim == 4 and not any(word in damage for word in ("fourier", "radon"))
        before = measurement if is_picture else operator.pinv(measurement)
        pictures = [original[0], before[0], made.images[0, 0], made.images[0, 1], made.mean[0]]
        line[0].text(1, 0.5, words.replace(" + ", "\n+ "), ha="right", va="center", fontsize=7)
        for place, picture in zip(line[1:], pictures, strict=False):
            show(place, picture)
        line[6].imshow(made.std[0].mean(0), cmap="magma", vmin=0, vmax=0.3)
        for place in line:
            place.axis("off")
    for place, title in zip(axes[0][1:], COLUMNS, strict=True):
        place.set_title(title, fontsize=8)
    figure.subplots_adjust(0, 0, 1, 0.97, 0.05, 0.05)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{run.name}.png", dpi=110)


def held_out(subject: Any, count: int) -> Tensor:
    """Held-out pictures, (count, channels, height, width) in [0, 1], of the quarter with the most edges."""
    clean: Tensor = next(iter(subject.data.in_order("held_out", 1000))).clean / 2 + 0.5
    edges = clean.diff(dim=2).abs().mean((1, 2, 3)) + clean.diff(dim=3).abs().mean((1, 2, 3))
    rich = edges.argsort(descending=True)[: len(edges) // 4]
    return clean[rich[torch.randperm(len(rich), generator=torch.Generator().manual_seed(0))[:count]]]


def show(place: Any, picture: Tensor) -> None:
    shown = picture.clamp(0, 1).movedim(0, -1).numpy()
    place.imshow(shown[..., 0] if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    with torch.no_grad():
        for each in asked.runs:
            main(each, asked.out)
