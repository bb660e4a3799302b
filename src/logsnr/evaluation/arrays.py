"""What `logsnr evaluate` measures of a kind whose samples are arrays of numbers, such as images.

What it draws is compared with the data in the eyes of a feature network, where there is one for the kind; a bound, and
on demand the probability-flow ODE, say how likely it holds the data. They are in RUN/metrics.json:

    kid, fid, inception_score, precision, recall    each with its interval, and what real samples get
    asked           whether what is drawn is what was asked for
    memorisation    whether it copies
    elbo, ode       bits per dimension
    protocol        what was drawn and compared, and how
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logsnr.base.columns import aligned
from logsnr.base.errors import ConfigError
from logsnr.evaluation.asked import Question, plan_asked, question, what_was_asked
from logsnr.evaluation.bits import bound, flow, gap
from logsnr.evaluation.distribution import (
    ENOUGH,
    Comparison,
    Distribution,
    distribution,
    extractor_for,
    features_name,
    number_of_images,
    part_name,
    require_enough,
)
from logsnr.evaluation.extractors import FeatureExtractor, features_of_data, find_extractor
from logsnr.evaluation.memorisation import (
    COPIES,
    FEWEST_HELD_OUT,
    Memorisation,
    closest_pairs,
    memorisation,
    picture_of_pairs,
)
from logsnr.evaluation.subject import Subject
from logsnr.media.plots import save_png
from logsnr.sampling.sample import choose_scheduler, sampler_in_words, steps_of
from logsnr.settings.objective import ConsistencyConfig
from logsnr.settings.options import OF_TEXTS, EvaluateOptions, refuse_foreign

_ROUGH_BELOW = 1000
"""With fewer generated images than this, the intervals are rough."""
_NO_FEATURES = "Nothing is drawn and compared: {}s have no feature network yet, and --features names none."
_DISTILLED = (
    "No likelihood: a distilled model predicts one sample, and the bound needs the mean of all that are possible."
)
_ONE_HELD_OUT = (
    "No likelihood: its error can't be told from one held-out sample. Of ten samples or more two are held out."
)


def check(subject: Subject, options: EvaluateOptions) -> tuple[Any, Question | None]:
    """What would draw, and what can be judged of that; None where nothing is drawn.

    Raises at once what drawing and measuring would raise later: ModelError for scheduler and steps, ConfigError for the
    features, DataError for too few data; either of these for attributes that can't be judged.
    """
    name = features_name(options, subject.task.parts, subject.data)
    if name is not None:
        require_enough(options, subject.data)
        find_extractor(name)
    drawing = subject.pipeline()
    choose_scheduler(drawing, options)
    if name is None and options.attributes:
        raise ConfigError(
            f"attributes is {options.attributes[0]}, but {subject.data.examples.noun}s have no feature network yet, so "
            "nothing is judged. Leave it out."
        )
    return drawing, None if name is None else question(subject, options)


class ArrayMeasures:
    """Of arrays of numbers."""

    def refuse_foreign(self, options: EvaluateOptions) -> None:
        refuse_foreign(options, OF_TEXTS, "for texts")

    def plan(self, subject: Subject, options: EvaluateOptions) -> list[str]:
        drawing, judged = check(subject, options)
        num, noun = number_of_images(options, subject.data), subject.data.examples.noun
        steps = steps_of(drawing, options.steps)
        features = features_name(options, subject.task.parts, subject.data)
        lines = []
        if features is None:
            lines.append(_NO_FEATURES.format(noun))
        else:
            lines.append(
                f"Would draw {num:,} {noun}s ({num * steps:,} evaluations of the network"
                f"{', twice with guidance' if options.guidance_scale not in (0, 1) else ''}) with "
                f"{sampler_in_words(drawing.scheduler, options.eta)} in {steps} steps, and compare them "
                f"with the {part_name(options)} {noun}s by the features of {features}."
            )
        if judged is not None:
            lines += plan_asked(judged)
        distilled = isinstance(subject.config.objective, ConsistencyConfig)
        count = 0 if distilled else min(options.elbo_images, subject.data.num_held_out)
        if count == 1:
            lines.append(_ONE_HELD_OUT)
        elif count:
            trained = min(options.elbo_images, len(subject.data))
            lines.append(
                f"The likelihood would be bounded for {count} held-out and {trained} training {noun}s, by "
                f"{options.elbo_timesteps} KL divergences each."
            )
        return lines

    def measure(self, subject: Subject, options: EvaluateOptions, say: Callable[[str], None]) -> dict[str, Any]:
        _, judged = check(subject, options)
        say(subject.data.description)
        metrics = {}
        if judged is None:
            say(_NO_FEATURES.format(subject.data.examples.noun))
            metrics["protocol"] = {"model_hash": subject.digest}
        else:
            metrics = _distances(subject, judged, options, say)
        if subject.data.num_held_out == 1:
            say(_ONE_HELD_OUT)
        elif subject.data.num_held_out:
            bits, words = _likelihood(subject, options)
            metrics |= bits
            if words:
                say(words)
        return metrics


def _distances(
    subject: Subject, judged: Question, options: EvaluateOptions, say: Callable[[str], None]
) -> dict[str, Any]:
    """How far what it draws is from its data, whether it is what was asked for, and whether it copies them; said, and
    as it stands in metrics.json."""
    extractor = extractor_for(subject, options)
    say(f"Features: {extractor.name}, hash {extractor.digest}")
    found = distribution(subject, extractor, options)
    metrics = entries(found.comparison, len(found.images)) | {"protocol": found.protocol}
    say(_table(found))
    shares, words = what_was_asked(judged, subject, extractor, found.features, options)
    metrics |= {"asked": shares} if shares else {}
    if words:
        say(words)
    if subject.data.num_held_out:
        copies, words = _look_for_copies(subject, extractor, found, options)
        metrics["memorisation"] = dataclasses.asdict(copies)
        say(words)
    return metrics


def entries(comparison: Comparison, num: int) -> dict[str, Any]:
    """The figures as they stand in metrics.json: kid first where there are few images."""
    intervals = comparison.intervals()
    keys = ["fid", "kid", *list(intervals)[2:]] if num >= ENOUGH else list(intervals)
    return {
        key: {
            "value": getattr(comparison.figures, key),
            "interval": list(intervals[key]),
            "same_n": {
                "n": comparison.same_n,
                "generated": getattr(comparison.same_n_generated, key),
                "real": getattr(comparison.same_n_real, key),
            },
        }
        for key in keys
    }


def _table(found: Distribution) -> str:
    protocol, m, num = found.protocol, found.comparison.same_n, len(found.images)
    reference = found.comparison.reference_images
    rows = [("", "figure", "95 % interval", f"at n = {m}: generated", "real")]
    for key, entry in entries(found.comparison, num).items():
        values = (entry["value"], *entry["interval"], entry["same_n"]["generated"], entry["same_n"]["real"])
        value, low, high, generated, real = (f"{v:.4f}" if abs(v) < 10 else f"{v:.2f}" for v in values)
        rows.append((key, value, f"{low} to {high}", generated, real))
    said = [
        f"{protocol['images']}; labels {protocol['labels']}, guidance {protocol['guidance_scale']}; "
        f"{protocol['scheduler']}; resized: {protocol['resize']}",
        aligned(rows),
        f"The figure is of all {num:,} images against all {reference:,}. The last two columns measure {m:,} generated "
        f"and {m:,} real ones against the other {reference - m:,}: the last is what a perfect model would get, one "
        "draw of it.",
    ]
    if num < ENOUGH:
        said.append(
            f"warning: of {num:,} images, fewer than {ENOUGH:,}, fid is mostly its bias: read kid, which has none, "
            "and compare fid at the same n only, and so inception_score, which depends on n as well."
            + (
                f" Of fewer than {_ROUGH_BELOW:,}, intervals are rough: one of no width says nothing."
                if num < _ROUGH_BELOW
                else ""
            )
        )
    return "\n".join(said)


def _look_for_copies(
    subject: Subject, extractor: FeatureExtractor, found: Distribution, options: EvaluateOptions
) -> tuple[Memorisation, str]:
    """Draw the closest pairs into the run folder; the figures, and what there is to say of them."""
    train = features_of_data(extractor, subject.data, "train").features
    held_out = features_of_data(extractor, subject.data, "held_out").features
    copies = memorisation(found.features.features, train, held_out)
    pairs = closest_pairs(found.features.features, train)
    path: Path = subject.folder / "nearest_neighbours.png"
    save_png(picture_of_pairs(pairs, found.images, subject.data), path)
    distance, k, place = pairs[0]
    if len(held_out) < FEWEST_HELD_OUT:
        return copies, (
            f"Memorisation: {len(held_out)} are too few held-out images to tell whether it copies. Look yourself: "
            f"{path} begins with the closest pair, seed {options.seed + k} and training image {place}."
        )
    verdict = f"Signs of copying: look at {path}." if copies.copying_z > COPIES else "No sign of copying."
    return copies, (
        f"Memorisation: {verdict} The nearest training image is at {copies.median_to_train:.3g} from a generated one "
        f"and at {copies.median_of_held_out_to_train:.3g} from a held-out one (medians); a generated image is the "
        f"nearer of the two in {copies.copying:.0%} of cases ({copies.copying_z:+.1f} standard deviations from 50 %). "
        f"Among {len(held_out)} training and {len(held_out)} held-out images, the nearest to a generated one is a "
        f"training image in {copies.nearer_to_train:.0%} of cases. "
        f"The closest pair, seed {options.seed + k} and training image {place} at {distance:.3g}, begins {path}."
    )


def _likelihood(subject: Subject, options: EvaluateOptions) -> tuple[dict[str, Any], str]:
    """The likelihoods that were asked for, as they stand in metrics.json, and in words."""
    entries: dict[str, Any] = {}
    said, noun = [], subject.data.examples.noun
    if isinstance(subject.config.objective, ConsistencyConfig):
        return {}, _DISTILLED
    if options.elbo_images:
        held_out, train = bound(subject, options, "held_out"), bound(subject, options, "train")
        more, error = gap(held_out, train)
        knows = (
            f"the model knows its training {noun}s better than others" if more > 2 * error else "none beyond its error"
        )
        for part in (held_out, train):
            del part["bits_per_dim"]["kl_terms"]
        entries["elbo"] = held_out | {"train": train, "gap": more, "gap_standard_error": error}
        said.append(
            f"ELBO of {held_out['num_images']} held-out {noun}s: {_bits(held_out)}, at most; by term: "
            + ", ".join(f"{name} {held_out['bits_per_dim'][name]:.4f}" for name in ("prior", "kl", "decoder"))
            + f" ({held_out['decoder']}; {held_out['kl_evaluations']} of {held_out['chain_length'] - 1} KL divergences "
            f"each). Of "
            f"{train['num_images']} training {noun}s: {_bits(train)}. The gap is {more:.4f} ± {error:.4f}: {knows}. "
            "± is one standard error."
        )
    if options.ode_images:
        entries["ode"] = flow(subject, options, "held_out")
        found = entries["ode"]
        said.append(
            f"Likelihood of {found['num_images']} held-out {noun}s by the probability-flow ODE: {_bits(found)} "
            f"(dequantisation {found['dequantisation']}, solver error {found['bits_per_dim']['solver_error']:.1g})."
        )
    return entries, "\n".join(said)


def _bits(found: dict[str, Any]) -> str:
    return f"{found['bits_per_dim']['total']:.4f} ± {found['bits_per_dim']['standard_error']:.4f} bits per dimension"


ARRAYS = ArrayMeasures()
