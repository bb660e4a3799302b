"""What is asked of a trained model: samples, tables for few evaluations, an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from logsnr.base.errors import ConfigError


@dataclass(frozen=True)
class SampleOptions:
    """What to sample, and how."""

    num: int = 64
    """Number of images."""
    steps: int | None = None
    """Network evaluations an image (twice that with guidance); when not given 20, or those that the model was distilled
    for."""
    scheduler: str | None = None
    """few-step (made for 20 steps or fewer, see `logsnr tune`), a diffusers scheduler by class name, such as
    DPMSolverMultistepScheduler, or your own schedule as `package.module:Class`; the model's own when not given."""
    seed: int = 0
    """Image k has seed `seed + k`."""
    class_labels: tuple[str, ...] | None = None
    """Names or numbers of classes, taken in turn; all of them when not given."""
    guidance_scale: float | None = None
    """1 is the plain conditional model, more is nearer to the class; 2 when not given. Needs classes."""
    eta: float = 0.0
    """Noise added again in each step: 0 deterministic (DDIM), 1 ancestral (DDPM)."""
    batch_size: int = 64
    """Images made at once; doesn't change them."""

    def __post_init__(self) -> None:
        for name in ("num", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, and is {value}.")


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
        if not self.steps or any(not 2 <= n <= 20 for n in self.steps):
            raise ConfigError(f"--steps must be numbers in 2..20, and is {self.steps}.")
        if not self.guidance_scale > 1:
            raise ConfigError(f"--guidance-scale must be above 1, and is {self.guidance_scale:g}.")


@dataclass(frozen=True)
class EvaluateOptions:
    """What a model is judged by. The same options again reuse what was drawn and measured."""

    num: int | None = None
    """Images to draw; when not given 10,000, or half as many as there are training images where that is fewer."""
    features: str | None = None
    """The network that sees them: classifier (trained on the data's own labels), efficientnet-lite0 or inception
    (from packages), or another installed one; when not given, classifier for data with classes, efficientnet-lite0
    for others."""
    reference: Literal["train", "held_out"] = "train"
    """The images of the data to compare with."""
    steps: int | None = None
    """Network evaluations an image (twice that with guidance); when not given 20, or those that the model was distilled
    for."""
    scheduler: str | None = None
    """few-step (made for 20 steps or fewer, see `logsnr tune`), a diffusers scheduler by class name, such as
    DPMSolverMultistepScheduler, or your own schedule as `package.module:Class`; the model's own when not given."""
    guidance_scale: float = 1.0
    """1 is the plain model, whose figures say how near it is to the data. More needs classes."""
    eta: float = 0.0
    """Noise added again in each step: 0 deterministic (DDIM), 1 ancestral (DDPM)."""
    seed: int = 0
    """Image k has seed `seed + k`."""
    batch_size: int = 64
    """Images made at once; doesn't change them."""
    elbo_images: int = 250
    """Held-out images whose likelihood is bounded (ELBO), and training images as many; 0 for none: metrics.json, which
    is of the last evaluation, then has no ELBO."""
    elbo_timesteps: int = 50
    """KL divergences evaluated an image, of one for each step of the chain."""
    respace: int | None = None
    """Length of a shorter chain for the ELBO, through evenly spaced timesteps."""
    ode_images: int = 0
    """Held-out images whose likelihood is computed by the probability-flow ODE: slow, so none unless asked for."""

    def __post_init__(self) -> None:
        for name in ("elbo_images", "ode_images"):
            if getattr(self, name) != 0 and getattr(self, name) < 2:
                raise ConfigError(f"--{name.replace('_', '-')} must be 0 or at least 2, and is {getattr(self, name)}.")
        for name, least in (("num", 20), ("steps", 1), ("batch_size", 1), ("elbo_timesteps", 1), ("respace", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, and is {value}.")
