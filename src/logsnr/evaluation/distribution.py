"""How far what a model draws is from its data: the figures, what real images get in their place, and the protocol.

A figure of n generated images is compared with that of real ones in their place: the reference images are divided at
random, and m = min(n, half of them) are measured against the others as if they had been generated, and so are the first
m generated ones. That is what a perfect model would get, in one draw of it: fid is biased, and this is about its floor.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from logsnr.base.errors import ConfigError, DataError
from logsnr.base.files import digest_of
from logsnr.data.seeded import SeededData
from logsnr.evaluation.distances import Figures, deviations, measure
from logsnr.evaluation.extractors import (
    FeatureExtractor,
    Features,
    features_of_data,
    features_of_images,
    make_extractor,
)
from logsnr.evaluation.generated import generate
from logsnr.evaluation.subject import Subject, kept_json
from logsnr.sampling.guidance import guidance_in_words
from logsnr.sampling.sample import choose_device, sampler_in_words, steps_of
from logsnr.settings.options import EvaluateOptions
from logsnr.tasks.parts import Parts

ENOUGH = 10_000
"""With fewer generated images than this, fid is mostly its bias."""
_FEWEST = 8
_RANGES = {"fid": (0.0, math.inf), "precision": (0.0, 1.0), "recall": (0.0, 1.0)}


@dataclass(frozen=True)
class Comparison:
    """Figures of generated images, and of others to read them beside."""

    reference_images: int
    figures: Figures
    deviations: Figures
    """Standard deviations of the figures."""
    same_n: int
    """How many images the generated and the real ones are compared at."""
    same_n_generated: Figures
    same_n_real: Figures

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The figure ± 1.96 standard deviations, 95 %, for each that there is, cut off where it can't be: fid below 0,
        shares outside [0, 1]. (kid, which has no bias, may be below 0.)"""
        found = {}
        for key, value in dataclasses.asdict(self.figures).items():
            if value is not None:
                reach = 1.96 * getattr(self.deviations, key)
                least, most = _RANGES.get(key, (-math.inf, math.inf))
                found[key] = (max(value - reach, least), min(value + reach, most))
        return found


@dataclass(frozen=True, eq=False)
class Distribution:
    """What came of a comparison, and of what."""

    comparison: Comparison
    protocol: dict[str, str]
    images: Tensor
    """The generated images in [0, 1]."""
    features: Features
    """Those of the generated images."""


def number_of_images(options: EvaluateOptions, data: SeededData[Any]) -> int:
    """How many images are drawn."""
    return min(ENOUGH, max(20, len(data) // 2)) if options.num is None else options.num


def features_name(options: EvaluateOptions, parts: Parts, data: SeededData[Any]) -> str | None:
    """The network that sees them; None where none is named and the kind of data has none of its own."""
    return options.features or parts.features(data)


def extractor_for(subject: Subject, options: EvaluateOptions) -> FeatureExtractor:
    """The network of the options. Raises ConfigError where it can't be had."""
    name = features_name(options, subject.task.parts, subject.data)
    if name is None:
        raise ConfigError(f"features must name a network for {subject.data.examples.noun}s, which have none yet.")
    return make_extractor(name, subject.data, subject.config.data, choose_device())


def require_enough(options: EvaluateOptions, data: SeededData[Any]) -> None:
    """Raise DataError if there is too little to compare with."""
    count = len(data) if options.reference == "train" else data.num_held_out
    if count < _FEWEST:
        raise DataError(
            f"There are {count} {part_name(options)} {data.examples.noun}s, and {_FEWEST} are needed to compare what "
            "is drawn with."
        )


def distribution(subject: Subject, extractor: FeatureExtractor, options: EvaluateOptions) -> Distribution:
    """Draw images, or take those that are there, and compare them with the data."""
    data = subject.data
    real = features_of_data(extractor, data, options.reference)
    num = number_of_images(options, data)
    drawing = subject.pipeline()
    images = generate(drawing, subject.folder, subject.digest, data, options, num)
    generated = features_of_images(extractor, images, subject.folder)
    comparison = _compared(generated, real, subject.folder)
    steps = steps_of(drawing, options.steps)
    protocol = {
        "images": f"{num} generated, {len(real.features)} {part_name(options)} images",
        "labels": "none"
        if not next(data.conditions("train"))
        else f"in the proportions of the {part_name(options)} images",
        "guidance_scale": guidance_in_words(options.guidance_scale, options.guidance),
        "scheduler": f"{sampler_in_words(drawing.scheduler, options.eta)}, {steps} steps",
        "seeds": f"{options.seed} to {options.seed + num - 1}",
        "features": extractor.name,
        "features_hash": extractor.digest,
        "resize": extractor.resize,
        "intervals": "95 %, bootstrap",
        "model_hash": subject.digest,
    }
    return Distribution(comparison, protocol, images, generated)


def part_name(options: EvaluateOptions) -> str:
    """The part of the data to compare with, in words."""
    return {"train": "training", "held_out": "held-out"}[options.reference]


def _compared(generated: Features, real: Features, folder: Path) -> Comparison:
    """The comparison, made once for each content."""
    content = digest_of(generated.features.numpy().tobytes(), real.features.numpy().tobytes())
    path = folder / f"figures-{content}.json"
    kept: dict[str, Any] = kept_json(path, lambda: dataclasses.asdict(compare(generated, real)))
    values: dict[str, Any] = {key: Figures(**v) if isinstance(v, dict) else v for key, v in kept.items()}
    return Comparison(**values)


def compare(generated: Features, real: Features) -> Comparison:
    """Generated images beside real ones: figures, their intervals, and what as many real images get."""
    real = _rows(real, torch.randperm(len(real.features), generator=torch.Generator().manual_seed(0)))
    m = min(len(generated.features), len(real.features) // 2)
    others = _rows(real, slice(m, None))
    return Comparison(
        reference_images=len(real.features),
        figures=measure(generated, real),
        deviations=deviations(generated, real),
        same_n=m,
        same_n_generated=measure(_rows(generated, slice(m)), others),
        same_n_real=measure(_rows(real, slice(m)), others),
    )


def _rows(features: Features, rows: slice | Tensor) -> Features:
    return Features(features.features[rows], None if features.logits is None else features.logits[rows])
