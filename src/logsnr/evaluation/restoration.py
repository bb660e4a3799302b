"""How well a model repairs: held-out images are damaged, repaired several times each, and compared with what they were.

Beside the model stand two that know less: the Gaussian that fits the training images best, whose draws are exact
where damage is linear (`logsnr.evaluation.wiener`), and what one does without any model. Of each:

- PSNR and SSIM of one draw and of the mean of all (`logsnr.evaluation.fidelity`);
- feature distance of one draw: the mean of |f(x) - f(x')|^2 over the originals x and their repairs x', over that of
  pairs of different originals. 0 is alike to the network f that sees them, 1 as unlike as two images of the data.
  (Distances between sets, FID and KID, need hundreds of images; this one is of pairs, as LPIPS is.)
- coverage of intervals between draws (`logsnr.evaluation.coverage`), of hidden pixels and of projections.

Where coverage is wrong, either the method is or the network. To tell, the method is tried where there is no network to
be wrong: on images drawn from that Gaussian, whose network is known in closed form (`logsnr.models.gaussian`).

No class is given to a model that has classes: who repairs an image doesn't know what it shows.

RUN/evaluation/restoration-….png   some originals, what was left of them, and what was made of it
               coverage-….png      coverage at every level
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from PIL import Image
from torch import Tensor

from logsnr.base.columns import aligned
from logsnr.base.errors import ConfigError, ModelError
from logsnr.evaluation.coverage import Ranks, pixel_ranks, projection_ranks
from logsnr.evaluation.distribution import extractor_for, features_name
from logsnr.evaluation.extractors import FeatureExtractor, features_of_images, find_extractor
from logsnr.evaluation.fidelity import psnr, ssim
from logsnr.evaluation.repaired import (
    Case,
    Repairs,
    by_gaussian,
    by_network,
    damaged,
    exact_network,
    folder_name,
    gaussian_of,
    kept,
    of_gaussian,
)
from logsnr.evaluation.subject import Subject
from logsnr.evaluation.wiener import plain
from logsnr.media.coverage import Calibration, calibration_figure
from logsnr.media.plots import save_png, side_by_side, to_pil
from logsnr.models.gaussian import gaussian_schedule
from logsnr.pipelines.pipeline_restoration import RestorationPipeline, sources
from logsnr.pipelines.restoration_methods import make_method
from logsnr.settings.damage import Damage, read_damage
from logsnr.settings.objective import ConsistencyConfig
from logsnr.settings.options import EvaluateOptions

METHOD = "moment"
_SHOWN = 6
"""Images in the picture."""
_BATCH, _MEAN_OF = 128, 2_000
_NAMES = {"model": "the model", "gaussian": "exact draws of a Gaussian", "method": "the method on a Gaussian"}


@dataclass(frozen=True, eq=False)
class Asked:
    """What is to be measured."""

    damage: Damage
    method: str
    cases: list[Case]
    pipeline: Any

    @property
    def text(self) -> str:
        """The damage in words, always the same for the same damage: the key in metrics.json."""
        return str(self.damage)


def asked(subject: Subject, options: EvaluateOptions) -> Asked:
    """The images, damaged, and what would repair them. Raises ConfigError, DataError or ModelError where it can't."""
    assert options.restore is not None
    if not isinstance(subject.task.network, UNet2DModel):
        raise ModelError(
            f"restore is for models of images, and {subject.run} draws {subject.task.parts.noun}s. Leave it out."
        )
    if isinstance(subject.config.objective, ConsistencyConfig):
        raise ModelError(
            f"restore needs the mean of all that is possible, and {subject.run} is distilled: it predicts one sample. "
            "Measure the model that it was distilled from."
        )
    if subject.data.num_held_out < 2:
        raise ConfigError(
            f"restore needs two held-out images or more, and {subject.run} has {subject.data.num_held_out}."
        )
    pipeline = RestorationPipeline(subject.task.network, subject.schedule)
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    method = options.restore_method or METHOD
    if method not in pipeline.methods:
        raise ConfigError(f"restore_method must be one of {', '.join(pipeline.methods)}, and is {method!r}.")
    find_extractor(features_name(options, subject.task.parts, subject.data) or "")
    damage = read_damage(options.restore)
    cases = damaged(subject.data, damage, options.restore_images, options.seed)
    if make_method(method).requires == "linear" and not cases[0].operator.linear:
        raise ConfigError(f"restore_method must be diffpir, dps or gibbs where damage isn't linear, and is {method!r}.")
    return Asked(damage, method, cases, pipeline)


def plan(subject: Subject, options: EvaluateOptions) -> str:
    """What `restoration` would do, in words."""
    what = asked(subject, options)
    evaluations = what.pipeline.evaluations(what.method, options.restore_steps)
    total = evaluations * options.restore_draws * len(what.cases)
    return (
        f'Would damage {len(what.cases)} held-out images by "{what.text}" and repair each {options.restore_draws} '
        f"times by {what.method} (at most {evaluations:,.0f} evaluations of the network for each, gradients counted; "
        f"{total:,.0f} in all)."
    )


def restoration(subject: Subject, options: EvaluateOptions) -> tuple[str, dict[str, Any], str]:
    """Measure it: the damage in words, the figures as they stand in metrics.json, and in words.

    What was drawn before is reused; two pictures are drawn into the run's evaluation folder. Raises what `asked` does,
    and ModelError where the method can't repair such damage.
    """
    what = asked(subject, options)
    extractor = extractor_for(subject, options)
    model = _by_model(subject, what, options)
    gaussians = _Gaussians(subject, what, options)
    originals = torch.stack([case.original for case in what.cases])
    name, filled = _without_model(subject, what.cases)
    seen = _Seen(extractor, subject.folder, originals)
    bits, seed = subject.data.examples.bits, options.seed
    figures: dict[str, Any] = {"model": _figures(model, what.cases, seen, bits, seed)}
    if what.cases[0].operator.linear:
        figures["gaussian"] = _figures(gaussians.exact(), what.cases, seen, bits, seed)
    figures["method"] = {"coverage": gaussians.coverage_of_method()}
    figures["plain"] = {"name": name, **_fidelity(filled, originals), "feature_distance": seen.distance(filled)}
    figures["protocol"] = _protocol(subject, what, options, extractor)
    slug = re.sub(r"[^a-z0-9.]+", "-", what.text)
    paths = [subject.folder / f"{kind}-{slug}.png" for kind in ("restoration", "coverage")]
    save_png(_picture(what.cases, filled, model), paths[0])
    if panels := _curves(figures):
        save_png(calibration_figure(panels, f"Coverage of intervals between draws: {what.text}"), paths[1])
    return what.text, figures, _in_words(figures, paths)


def _by_model(subject: Subject, what: Asked, options: EvaluateOptions) -> Repairs:
    decisive = (subject.digest, subject.data.fingerprint, what.text, options.seed)
    return _drawn(subject, what.pipeline, what, options, decisive, what.cases)


def _drawn(
    subject: Subject, pipeline: Any, what: Asked, options: EvaluateOptions, decisive: Any, cases: list[Case]
) -> Repairs:
    """Draws by the method, made once for what is `decisive` beside it."""
    draws, steps = options.restore_draws, options.restore_steps
    folder = subject.folder / folder_name(decisive, what.method, steps, draws, sorted(sources()))
    repair = by_network(pipeline, what.method, steps, draws)
    try:
        return kept(folder, subject.data.examples.bits, cases, repair, f"Repairing by {what.method}")
    except ValueError as error:
        raise ModelError(f"restore {what.text!r} by {what.method}: {error}") from error


class _Gaussians:
    """The Gaussian that fits the training images, what it makes of the cases, and what the method makes of its own."""

    def __init__(self, subject: Subject, what: Asked, options: EvaluateOptions) -> None:
        self._subject, self._what, self._options = subject, what, options
        self._gaussian = gaussian_of(subject.data)

    def exact(self) -> Repairs:
        """Exact draws of its posterior, where damage is linear."""
        subject, draws = self._subject, self._options.restore_draws
        decisive = ("gaussian", subject.data.fingerprint, self._what.text, draws, self._options.seed)
        repair = by_gaussian(self._gaussian, draws)
        folder = subject.folder / folder_name(*decisive)
        return kept(folder, subject.data.examples.bits, self._what.cases, repair, "Repairing by a Gaussian")

    def coverage_of_method(self) -> dict[str, Any]:
        """Of images of the Gaussian, by the method with the exact network; both are cut off at 0 and 1."""
        subject, seed = self._subject, self._options.seed
        cases = of_gaussian(self._what.cases, self._gaussian, seed)
        network = exact_network(self._gaussian, subject.schedule).to(subject.task.network.device)
        pipeline = RestorationPipeline(network, gaussian_schedule(subject.schedule))
        pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
        decisive = ("exact network", subject.data.fingerprint, self._what.text, seed)
        repairs = _drawn(subject, pipeline, self._what, self._options, decisive, cases)
        originals = torch.stack([case.original for case in cases]).clamp(0, 1)
        return _coverages(originals, repairs, cases, subject.data.examples.bits, seed)


def _without_model(subject: Subject, cases: list[Case]) -> tuple[str, Tensor]:
    batches = subject.data.in_order("train", _BATCH, _MEAN_OF)
    mean = torch.cat([batch.clean for batch in batches]).mean(0).add(1).div(2)
    found = [plain(case.operator, case.measurement, mean) for case in cases]
    return found[0][0], torch.cat([image for _, image in found])


class _Seen:
    """Originals as a network sees them, for the feature distance of what was made of them."""

    def __init__(self, extractor: FeatureExtractor, folder: Path, originals: Tensor) -> None:
        self._extractor, self._folder = extractor, folder
        self._features = self._of(originals)
        n = len(originals)
        self._unlike = 2 * float(self._features.var(0, unbiased=True).sum()) if n > 1 else math.nan

    def distance(self, images: Tensor) -> dict[str, float]:
        """Of images beside their originals; its mean and standard error."""
        square = (self._of(images) - self._features).square().sum(1) / self._unlike
        return _mean(square)

    def _of(self, images: Tensor) -> Tensor:
        return features_of_images(self._extractor, images.contiguous(), self._folder).features.double()


def _figures(repairs: Repairs, cases: list[Case], seen: _Seen, bits: int | None, seed: int) -> dict[str, Any]:
    originals = torch.stack([case.original for case in cases])
    first = repairs.draws[:, 0]
    return {
        "draw": _fidelity(first, originals),
        "mean": _fidelity(repairs.means, originals),
        "feature_distance": seen.distance(first),
        "fit": float(repairs.fit.mean()) if bool(repairs.fit.isfinite().all()) else None,
        "coverage": _coverages(originals, repairs, cases, bits, seed),
    }


def _coverages(
    originals: Tensor, repairs: Repairs, cases: list[Case], bits: int | None, seed: int
) -> dict[str, dict[str, Any] | None]:
    hidden = torch.stack([case.hidden for case in cases])
    ranks = {
        "pixels": pixel_ranks(originals, repairs.draws, hidden, bits=bits, seed=seed),
        "projections": projection_ranks(originals, repairs.draws, hidden, seed=seed),
    }
    return {name: _coverage(each) for name, each in ranks.items()}


def _fidelity(images: Tensor, originals: Tensor) -> dict[str, Any]:
    return {"psnr": _mean(psnr(images, originals)), "ssim": _mean(ssim(images, originals))}


def _mean(values: Tensor) -> dict[str, float]:
    """Over images, with its standard error."""
    return {"value": float(values.mean()), "standard_error": float(values.std() / math.sqrt(len(values)))}


def _coverage(ranks: Ranks) -> dict[str, Any] | None:
    """At the widest interval, and at all; None where there is nothing to be sure of or not."""
    if ranks.numbers == 0:
        return None
    return {
        "nominal": ranks.nominal[0],
        "value": ranks.coverage[0],
        "standard_error": ranks.errors[0],
        "numbers": ranks.numbers,
        "levels": {"nominal": ranks.nominal, "coverage": ranks.coverage, "standard_error": ranks.errors},
        "ranks": ranks.shares,
    }


def _protocol(subject: Subject, what: Asked, options: EvaluateOptions, extractor: FeatureExtractor) -> dict[str, str]:
    steps = options.restore_steps or make_method(what.method).steps
    labels = ", without a class" if subject.data.examples.condition(0) else ""
    return {
        "images": f"{len(what.cases)} held-out images, {options.restore_draws} draws of each",
        "method": f"{what.method}, {steps} steps{labels}",
        "noise": f"standard deviation {what.damage.noise_std:g} on [0, 1]",
        "seed": str(options.seed),
        "features": extractor.name,
        "features_hash": extractor.digest,
        "model_hash": subject.digest,
    }


# -- For people ----------------------------------------------------------------------------------------------------


def _curves(figures: dict[str, Any]) -> dict[str, dict[str, Calibration]]:
    """A panel for pixels, one for projections."""
    panels: dict[str, dict[str, Calibration]] = {}
    for who, name in _NAMES.items():
        for what, found in figures.get(who, {}).get("coverage", {}).items():
            if found is not None:
                levels = found["levels"]
                curve = Calibration(levels["nominal"], levels["coverage"], levels["standard_error"])
                panels.setdefault(what, {})[name] = curve
    return panels


def _picture(cases: list[Case], filled: Tensor, repairs: Repairs) -> Image.Image:
    """A row for each of some images, by its place: what it was, its measurement turned back (`pinv`), what one does
    without a model, a draw, the mean of all, and their standard deviation, white at its most, 0.5."""
    rows, shown = [], cases[:_SHOWN]
    for k, case in enumerate(shown):
        measured = case.operator.pinv(case.measurement)[0].clamp(0, 1)
        spread = repairs.draws[k].std(0).mul(2)
        rows.append([case.original, measured, filled[k], repairs.draws[k, 0], repairs.means[k], spread])
    columns = ["original", "measured", "filled", "draw", "mean", "std × 2"]
    return side_by_side(
        [to_pil(torch.stack(row)) for row in rows], [str(case.place) for case in cases[:_SHOWN]], columns
    )


def _in_words(figures: dict[str, Any], paths: list[Path]) -> str:
    protocol = figures["protocol"]
    head = ("", "PSNR of the mean", "of a draw", "SSIM of the mean", "of a draw", "feature distance", *_COVERED)
    rows = [head, *(_row(_NAMES[who], figures[who]) for who in ("model", "gaussian") if who in figures)]
    found = figures["plain"]
    alone = [_two(found[key], digits) for key, digits in (("psnr", 2), ("ssim", 3))]
    rows.append((found["name"], "", alone[0], "", alone[1], _two(found["feature_distance"], 3), "", ""))
    rows.append((_NAMES["method"], *[""] * 5, *_covered(figures["method"])))
    nominal = next((c["nominal"] for c in figures["model"]["coverage"].values() if c is not None), math.nan)
    fit = figures["model"]["fit"]
    lines = [
        f"Repair: {protocol['images']}; {protocol['method']}; noise of {protocol['noise']}; seed {protocol['seed']}.",
        f"Features: {protocol['features']}, hash {protocol['features_hash']}",
        aligned(rows),
        f"Coverage should be {100 * nominal:.0f} %. ± is one standard error, over images.",
    ]
    if fit is not None:
        cause = ": too few steps, or a method or a model that doesn't explain them" if fit > 1.3 else ""
        lines.append(f"The model's draws miss their measurements by {fit:.2f} of the noise; 1 is right{cause}.")
    return "\n".join([*lines, f"Look at {paths[0]} and {paths[1]}."])


_COVERED = ("coverage of pixels", "of projections")


def _row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    fidelity = [
        _two(found[part][key], digits) for key, digits in (("psnr", 2), ("ssim", 3)) for part in ("mean", "draw")
    ]
    return (name, *fidelity, _two(found["feature_distance"], 3), *_covered(found))


def _covered(found: dict[str, Any]) -> list[str]:
    return [
        "–" if each is None else f"{100 * each['value']:.1f} ± {100 * each['standard_error']:.1f} %"
        for each in found["coverage"].values()
    ]


def _two(found: dict[str, float], digits: int) -> str:
    return f"{found['value']:.{digits}f} ± {found['standard_error']:.{digits}f}"
