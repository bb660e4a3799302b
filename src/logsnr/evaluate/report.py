"""`logsnr evaluate RUN`: every figure with its protocol, into RUN/metrics.json.

    RUN/metrics.json                       the figures of the last evaluation, and how they came about
    RUN/evaluation/samples-…/              the images that were drawn, see `logsnr.evaluate.generated`
                   features-…, figures-…   what was made of them, by the hash of what it was made of
                   nearest_neighbours.png  generated images beside their nearest training images

A figure of n generated images is compared with that of real ones in their place: the reference images are divided at
random, and m = min(n, half of them) are measured against the others as if they had been generated, and so are the first
m generated ones. A model can't be expected to do better than the real images: fid is biased, and this is its floor.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from logsnr.checkpoint import read_json, write_atomically
from logsnr.config import EvaluateOptions, RunConfig, from_json
from logsnr.data import ImageData, open_data
from logsnr.errors import CheckpointError, DataError
from logsnr.evaluate.distances import Figures, deviations, measure
from logsnr.evaluate.extractors import (
    FeatureExtractor,
    Features,
    digest_of,
    features_of_data,
    features_of_images,
    make_extractor,
)
from logsnr.evaluate.generated import digest_of_model, generate
from logsnr.evaluate.memorisation import closest_pairs, memorisation, picture_of_pairs
from logsnr.hub import load
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.plots import save_png
from logsnr.sample import choose_device
from logsnr.tables import aligned

ENOUGH = 10_000
"""With fewer generated images than this, fid is mostly its bias."""
_FEWEST = 8


@dataclass(frozen=True)
class Subject:
    """A trained model with its data."""

    run: Path
    config: RunConfig
    data: ImageData
    pipeline: PixelDiffusionPipeline
    digest: str
    """Of the model's weights and schedule."""


def open_subject(run: Path) -> Subject:
    """Load the model of a run folder, and its data. Raises CheckpointError where these aren't what it was made of."""
    if not (run / "config.json").is_file():
        raise CheckpointError(f"{run} is no run folder: there is no config.json in it.")
    record = read_json(run / "config.json")
    config = from_json(json.dumps(record["config"]))
    pipeline = load(run).to(choose_device())
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    data = open_data(config.data)
    if data.fingerprint != record["data"]["fingerprint"]:
        raise CheckpointError(
            f"{run} was trained on other images: then {record['data']['description']}; now {data.description} (pixels "
            f"or labels differ). Put the images back as they were in {config.data.source}."
        )
    return Subject(run, config, data, pipeline, digest_of_model(run))


def plan(subject: Subject, options: EvaluateOptions) -> str:
    """What `evaluate` would do, in words."""
    num = _number(options, subject.data)
    return (
        f"{subject.data.description}\n"
        f"Would draw {num:,} images ({num * options.steps:,} evaluations of the network"
        f"{', twice with guidance' if options.guidance_scale not in (0, 1) else ''}) with "
        f"{options.scheduler or type(subject.pipeline.scheduler).__name__} in {options.steps} steps, and compare them "
        f"with the {_split(options)} images by the features of {_features(options, subject.data)}.\n"
        f"Figures would go to {subject.run / 'metrics.json'}; nothing was written."
    )


def evaluate(subject: Subject, options: EvaluateOptions, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure the model, say the figures, write them to RUN/metrics.json and return what was written."""
    data, folder = subject.data, subject.run / "evaluation"
    say(data.description)
    extractor = make_extractor(_features(options, data), data, subject.config.data, choose_device())
    say(f"Features: {extractor.name}, hash {extractor.digest}")
    real = features_of_data(extractor, data, options.reference)
    if len(real.features) < _FEWEST:
        raise DataError(
            f"There are {len(real.features)} {_split(options)} images, and {_FEWEST} are needed to compare."
        )

    num = _number(options, data)
    images = generate(subject.pipeline, subject.run, subject.digest, options, num, data.class_counts, data.bits)
    generated = features_of_images(extractor, images, folder)
    found = _figures(generated, real, folder)
    metrics = _entries(found, num) | {"protocol": _protocol(subject, options, extractor, found, num)}
    say(_table(metrics, found, num))

    if data.num_held_out:
        train = features_of_data(extractor, data, "train")
        held_out = features_of_data(extractor, data, "held_out")
        metrics["memorisation"] = dataclasses.asdict(
            memorisation(generated.features, train.features, held_out.features)
        )
        pairs = closest_pairs(generated.features, train.features)
        picture = save_png(picture_of_pairs(pairs, images, data), folder / "nearest_neighbours.png")
        say(_memorisation_text(metrics["memorisation"], pairs, options, picture))
    write_atomically(subject.run / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    return metrics


def _number(options: EvaluateOptions, data: ImageData) -> int:
    return min(ENOUGH, max(20, len(data) // 2)) if options.num is None else options.num


def _features(options: EvaluateOptions, data: ImageData) -> str:
    return options.features or ("efficientnet-lite0" if data.class_names is None else "classifier")


def _split(options: EvaluateOptions) -> str:
    return {"train": "training", "held_out": "held-out"}[options.reference]


# Figures


def _figures(generated: Features, real: Features, folder: Path) -> dict[str, Any]:
    """The figures, their deviations, and those of real images in the place of generated ones; kept by content."""
    content = digest_of(generated.features.numpy().tobytes(), real.features.numpy().tobytes())
    return kept_json(folder / f"figures-{content}.json", lambda: _measured(generated, real))


def _measured(generated: Features, real: Features) -> dict[str, Any]:
    real = _rows(real, torch.randperm(len(real.features), generator=torch.Generator().manual_seed(0)))
    m = min(len(generated.features), len(real.features) // 2)
    stand_in, others = _rows(real, slice(m)), _rows(real, slice(m, None))
    as_dict = dataclasses.asdict
    return {
        "reference_images": len(real.features),
        "figures": as_dict(measure(generated, real)),
        "deviations": as_dict(deviations(generated, real)),
        "same_n": m,
        "same_n_real": as_dict(measure(stand_in, others)),
        "same_n_generated": as_dict(measure(_rows(generated, slice(m)), others)),
    }


def _rows(features: Features, rows: slice | Tensor) -> Features:
    return Features(features.features[rows], None if features.logits is None else features.logits[rows])


def kept_json(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the file at `path` holds; if there is none, it is made first."""
    if not path.exists():
        text = json.dumps(make(), indent=2) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    kept: dict[str, Any] = read_json(path)
    return kept


def _entries(found: dict[str, Any], num: int) -> dict[str, Any]:
    """The figures as they stand in metrics.json, kid first where there are few images."""
    keys = [field.name for field in dataclasses.fields(Figures)]
    if num >= ENOUGH:
        keys[:2] = ["fid", "kid"]
    entries = {}
    for key in keys:
        value, deviation = found["figures"][key], found["deviations"][key]
        if value is None:
            continue
        low, high = value - 1.96 * deviation, value + 1.96 * deviation
        if key in ("precision", "recall"):
            low, high = max(low, 0.0), min(high, 1.0)
        entries[key] = {
            "value": value,
            "interval": [low, high],
            "same_n": {"n": found["same_n"], **{who: found[f"same_n_{who}"][key] for who in ("generated", "real")}},
        }
    return entries


def _protocol(
    subject: Subject, options: EvaluateOptions, extractor: FeatureExtractor, found: dict[str, Any], num: int
) -> dict[str, str]:
    labels = "none" if subject.data.class_counts is None else "in the proportions of the training images"
    return {
        "images": f"{num} generated, {found['reference_images']} {_split(options)} images",
        "labels": labels,
        "guidance_scale": f"{options.guidance_scale:g}",
        "scheduler": f"{type(subject.pipeline.scheduler).__name__}, {options.steps} steps, eta {options.eta:g}",
        "seeds": f"{options.seed} to {options.seed + num - 1}",
        "features": extractor.name,
        "features_hash": extractor.digest,
        "resize": extractor.resize,
        "intervals": "95 %, bootstrap",
        "model_hash": subject.digest,
    }


# Words


def _table(metrics: dict[str, Any], found: dict[str, Any], num: int) -> str:
    protocol, m = metrics["protocol"], found["same_n"]
    rows = [("", "figure", "95 % interval", f"at n = {m}: generated", "real")]
    for key, entry in metrics.items():
        if key in found["figures"]:
            low, high = entry["interval"]
            same = entry["same_n"]
            interval = f"{_number_text(low)} to {_number_text(high)}"
            value, generated, real = map(_number_text, (entry["value"], same["generated"], same["real"]))
            rows.append((key, value, interval, generated, real))
    said = [
        f"{protocol['images']}; labels {protocol['labels']}, guidance {protocol['guidance_scale']}; "
        f"{protocol['scheduler']}; resized: {protocol['resize']}",
        aligned(rows),
        f"The last column is what {m} real images get in the place of generated ones: no model can do better there.",
    ]
    if num < ENOUGH:
        said.append(
            f"warning: of {num:,} images, fewer than {ENOUGH:,}, fid is mostly its bias: read kid, which has none, "
            "and compare fid at the same n only."
        )
    return "\n".join(said)


def _number_text(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _memorisation_text(
    found: dict[str, float], pairs: list[tuple[float, int, int]], options: EvaluateOptions, picture: Path
) -> str:
    distance, k, place = pairs[0]
    return (
        f"Memorisation: the nearest training image is at {found['median_to_train']:.3g} from a generated one and at "
        f"{found['median_of_held_out_to_train']:.3g} from a held-out one (medians); a generated image is the nearer of "
        f"the two in {found['copying']:.0%} of cases ({found['copying_z']:+.1f} standard deviations from 50 %). Among "
        f"as many training as held-out images, the nearest is a training image for {found['nearer_to_train']:.0%}. "
        f"The closest pair, seed {options.seed + k} and training image {place} at {distance:.3g}, begins {picture}."
    )
