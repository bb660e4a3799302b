"""What is asked of a trained model: samples, tables for few evaluations, an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from logsnr.base.errors import ConfigError
from logsnr.settings.damage import WHERE, read_damage
from logsnr.settings.guidance import PLAIN, GuidanceOptions
from logsnr.settings.rules import require, require_seed

TUNABLE = range(2, 21)
"""The numbers of network evaluations that can have a table."""
Reference = Literal["train", "held_out"]
Order = Literal["random", "confidence", "entropy"]


@dataclass(frozen=True)
class SampleOptions:
    """What to sample, and how."""

    num: int = 64
    """Number of images, or texts."""
    steps: int | None = None
    """Network evaluations an image (twice that with guidance); when not given 20, of texts 64, or those that the model
    was distilled for."""
    scheduler: str | None = None
    """sde (second-order steps that add noise again: DPMSolverMultistepScheduler as sde-dpmsolver++), few-step (made for
    20 steps or fewer, see `logsnr tune`), a diffusers scheduler by class name, such as UniPCMultistepScheduler, or your
    own schedule as `package.module:Class`. When not given, sde; the model's own where it is distilled, or stock's
    solver can't draw it."""
    seed: int = 0
    """Image k has seed `seed + k`."""
    class_labels: Sequence[str | int] | None = None
    """Names or numbers of classes, taken in turn; all of them when not given."""
    prompts: Sequence[str] | None = None
    """What to draw, in words, taken in turn; of a model that is told a text. Some held-out captions when not given. Of
    a model that writes texts: how each begins."""
    infill: Sequence[str] | None = None
    """Of a model that writes texts: texts with blanks, "the [blank] of the [blank:12]", taken in turn. A blank with a
    number is so many tokens long, the others share what is left."""
    temperature: float | None = None
    """Of a model that writes texts: below 1 likelier and less various, 0 the likeliest alone; 1 when not given."""
    guidance_scale: float | None = None
    """1 is the plain conditional model, more is nearer to the class or text; 2 when not given. Needs a model with
    classes or texts."""
    guidance: GuidanceOptions = PLAIN
    eta: float | None = None
    """Noise added again in each first-order step of the model's own scheduler, which is taken when this is given: 0
    deterministic (DDIM), 1 ancestral (DDPM)."""
    batch_size: int = 64
    """Images made at once; doesn't change them."""
    image: Path | None = None
    """A picture that is changed, to the class or text asked for. Its middle is taken, and brought to the model's
    size."""
    mask_image: Path | None = None
    """White where the picture is drawn anew, black where it is kept; of the picture's size. When not given, all of it
    is changed."""
    strength: float | None = None
    """The share of the steps that are run, from the picture with as much noise as there is then: 1 keeps nothing of
    what is changed. When not given 0.7, and 1 with a mask."""

    def __post_init__(self) -> None:
        for name in ("num", "steps", "batch_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, "at least 1", value)
        _require_drawable(self)
        strength = self.strength
        require(strength is None or 0 < strength <= 1, "strength", "above 0 and at most 1", strength)
        for name in ("strength", "mask_image"):
            if self.image is None and getattr(self, name) is not None:
                raise ConfigError(f"{name} is for a picture that is changed, and there is no image. Give one.")
        if self.class_labels is not None:
            given, rule = self.class_labels, "a list of names or numbers, at least one"
            require(not isinstance(given, str) and len(given) > 0, "class_labels", rule, given)
            bad = [label for label in given if not isinstance(label, str | int)]
            require(not bad, "class_labels", rule, given)
            object.__setattr__(self, "class_labels", tuple(given))
        for name in ("prompts", "infill"):
            if (words := getattr(self, name)) is not None:
                texts = not isinstance(words, str) and all(isinstance(text, str) for text in words)
                require(texts and len(words) > 0, name, "a list of texts, at least one", words)
                object.__setattr__(self, name, tuple(words))
        if self.prompts is not None and self.infill is not None:
            raise ConfigError(
                "prompts can't stand beside infill, for both say how a text begins. Write the beginning before a "
                "[blank]."
            )
        require(
            self.temperature is None or 0 <= self.temperature < float("inf"),
            "temperature",
            "0 or more",
            self.temperature,
        )


@dataclass(frozen=True)
class TuneOptions:
    """What is tuned."""

    steps: tuple[int, ...] = (4, 5, 6, 8, 10)
    """Numbers of network evaluations (2 to 20), each of which gets a table."""
    guidance_scale: float = 2.0
    """Guidance, of a model with classes: the tables are made for it and for none (1) at once."""
    seed: int = 0
    """Seed of the noise."""

    def __post_init__(self) -> None:
        least, most = min(TUNABLE), max(TUNABLE)
        require(
            bool(self.steps) and set(self.steps) <= set(TUNABLE),
            "steps",
            f"whole numbers from {least} to {most}",
            self.steps,
        )
        require(self.guidance_scale > 1, "guidance_scale", "above 1", self.guidance_scale)
        require_seed(self.seed)


@dataclass(frozen=True)
class EvaluateOptions:
    """What a model is judged by. The same options again reuse what was drawn and measured."""

    num: int | None = None
    """Images to draw; when not given 10,000, or half as many as there are training images where that is fewer. Of texts
    512, or as many as are held out."""
    features: str | None = None
    """The network that sees them: classifier (trained on the data's own labels), efficientnet-lite0 or inception
    (from packages), or another installed one; when not given, classifier for data with classes, efficientnet-lite0
    for others."""
    reference: Reference = "train"
    """The images of the data to compare with."""
    attributes: Sequence[str] = ()
    """Columns beside the captions, such as colour: whether what is drawn has the value that stands there, in the eyes
    of a judge that is fitted on real images."""
    steps: int | None = None
    """Network evaluations an image (twice that with guidance); when not given 20, of texts 64, or those that the model
    was distilled for."""
    scheduler: str | None = None
    """sde (second-order steps that add noise again: DPMSolverMultistepScheduler as sde-dpmsolver++), few-step (made for
    20 steps or fewer, see `logsnr tune`), a diffusers scheduler by class name, such as UniPCMultistepScheduler, or your
    own schedule as `package.module:Class`. When not given, sde; the model's own where it is distilled, or stock's
    solver can't draw it."""
    guidance_scale: float = 1.0
    """1 is the plain model, whose figures say how near it is to the data. More needs classes."""
    guidance: GuidanceOptions = PLAIN
    eta: float | None = None
    """Noise added again in each first-order step of the model's own scheduler, which is taken when this is given: 0
    deterministic (DDIM), 1 ancestral (DDPM)."""
    seed: int = 0
    """Image k has seed `seed + k`."""
    batch_size: int = 64
    """Images made at once; doesn't change them."""
    temperature: float | None = None
    """Of texts: below 1 likelier and less various, 0 the likeliest alone; 1 when not given."""
    order: Order | None = None
    """Of texts, which masks are lifted first: random, confidence (where the likeliest token is likeliest) or entropy
    (where it is least); random when not given."""
    remask: float | None = None
    """Of texts: the chance of a lifted mask to come back in a step; 0 when not given."""
    words: Path | None = None
    """Of texts: a list of words, one a line. The share of drawn words that stand in it is measured; when not given, of
    those that stand in the training documents."""
    elbo_images: int = 250
    """Images, or sequences of texts, whose likelihood is bounded (ELBO): at most so many held-out ones, and so many
    training ones; 0 for none: metrics.json, which is of the last evaluation, then has no ELBO."""
    elbo_timesteps: int = 50
    """KL divergences evaluated an image, of one for each step of the chain; of texts, how often each sequence is
    noised."""
    respace: int | None = None
    """Length of a shorter chain for the ELBO, through evenly spaced timesteps."""
    ode_images: int = 0
    """Held-out images whose likelihood is computed by the probability-flow ODE: slow, so none unless asked for."""
    restore: str | None = None
    """Damage in words, as of `logsnr restore`, such as "missing 0.6 + noise 0.05". How well the model repairs held-out
    images that it is done to is then measured, and nothing else; other figures stay in metrics.json as they are."""
    restore_method: str | None = None
    """How they are repaired: moment, particles, diffpir, dps, gibbs or repaint; when not given, moment."""
    restore_steps: int | None = None
    """Steps of that method; when not given moment 20, particles 50, diffpir 20, dps 100, gibbs 200, repaint 20."""
    restore_images: int = 32
    """Held-out images that are damaged and repaired, at most."""
    restore_draws: int = 19
    """Repairs of each: the interval between the least and the greatest of m should hold (m - 1)/(m + 1) of what is
    true, of 19 90 %."""

    def __post_init__(self) -> None:
        for name in ("elbo_images", "ode_images"):
            value = getattr(self, name)
            require(value == 0 or value >= 2, name, "0 or at least 2", value)
        least_of = {"num": 20, "steps": 1, "batch_size": 1, "elbo_timesteps": 1, "respace": 2, "restore_steps": 1}
        for name, least in (*least_of.items(), ("restore_images", 2), ("restore_draws", 2)):
            value = getattr(self, name)
            require(value is None or value >= least, name, f"at least {least}", value)
        given, rule = self.attributes, "a list of names of columns"
        named = not isinstance(given, str) and all(isinstance(name, str) for name in given)
        require(named, "attributes", rule, given)
        object.__setattr__(self, "attributes", tuple(given))
        for name, allowed in (("reference", Reference), ("order", Order)):
            value, words = getattr(self, name), get_args(allowed)
            require(value is None or value in words, name, f"{', '.join(words[:-1])} or {words[-1]}", value)
        require(self.temperature is None or self.temperature >= 0, "temperature", "0 or more", self.temperature)
        require(self.remask is None or 0 <= self.remask <= 1, "remask", "in [0, 1]", self.remask)
        _require_drawable(self)
        _require_used(self)


OF_TEXTS = ("temperature", "order", "remask", "words")
"""What of EvaluateOptions says nothing of other samples than texts."""


def refuse_foreign(options: EvaluateOptions, names: Sequence[str], whom: str) -> None:
    """Raise ConfigError where one of these options, which are `whom`, such as "for images", is given."""
    for each in fields(options):
        if each.name in names and getattr(options, each.name) != each.default:
            value = getattr(options, each.name)
            raise ConfigError(
                f"{each.name} is {value}, and is {whom}, which aren't what is measured here. Leave it out."
            )


_REPAIR = ("restore", "restore_method", "restore_steps", "restore_images", "restore_draws")
_USED_BY_REPAIR = (*_REPAIR, "features", "seed")


def _require_used(options: EvaluateOptions) -> None:
    """Raise ConfigError for a setting that plays no part where repair is measured, or where it isn't."""
    changed = [each.name for each in fields(options) if getattr(options, each.name) != each.default]
    if options.restore is None:
        if repairing := [name for name in changed if name in _REPAIR]:
            raise ConfigError(f"{repairing[0]} is for repair, which isn't measured without restore. Say what is done.")
        return
    try:
        read_damage(options.restore)
    except ConfigError as error:
        raise ConfigError(str(error).replace(WHERE, "restore", 1)) from error
    if idle := [name for name in changed if name not in _USED_BY_REPAIR]:
        raise ConfigError(
            f"{idle[0]} plays no part in repair, and with restore nothing else is measured. Leave one of them out."
        )


def _require_drawable(options: SampleOptions | EvaluateOptions) -> None:
    """Raise ConfigError for what no model draws with."""
    guidance = options.guidance_scale
    require(guidance is None or guidance >= 0, "guidance_scale", "0 or more", guidance)
    if guidance == 1 and options.guidance != PLAIN:
        raise ConfigError("guidance_scale is 1, at which nothing is guided, however it is done. Take 2, or another.")
    require_seed(options.seed)
