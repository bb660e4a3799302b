"""What is minimised: the losses, each with its own settings, and the weightings of the squared error.

A loss of another package is a subclass of `ObjectiveConfig` with a `name`, declared by an entry point of that name in
the group `logsnr.objectives`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import tyro

from logsnr.base.errors import ConfigError
from logsnr.settings.choice import Choice, Name, installed
from logsnr.settings.rules import require
from logsnr.settings.schedule import CurveConfig, LearnedSchedule, ScheduleConfig, TransitionConfig, VarianceType

# Weightings


@dataclass(frozen=True)
class WeightingConfig(Choice):
    """Weight of each noise level, as a function of the log-SNR (see logsnr.objectives.weightings)."""

    name: Name = field(init=False)
    """simple, snr, truncated_snr, min_snr, p2, sigmoid, edm or elbo."""
    integral: ClassVar[bool] = False
    """Whether the weighted loss is an integral over log-SNR, whose mean depends on the ends of the schedule alone."""

    @classmethod
    def members(cls) -> dict[str, type[WeightingConfig]]:
        return {member().name: member for member in WEIGHTINGS}


@dataclass(frozen=True)
class SimpleWeighting(WeightingConfig):
    """No weights: the plain squared error of whatever the network predicts."""

    name: Name = field(default="simple", init=False)


@dataclass(frozen=True)
class SnrWeighting(WeightingConfig):
    """The signal-to-noise ratio, which makes it DDPM's loss on the noise."""

    name: Name = field(default="snr", init=False)


@dataclass(frozen=True)
class TruncatedSnrWeighting(WeightingConfig):
    """The signal-to-noise ratio, at least 1: max(snr, 1)."""

    name: Name = field(default="truncated_snr", init=False)


@dataclass(frozen=True)
class MinSnrWeighting(WeightingConfig):
    """The signal-to-noise ratio, at most γ: min(snr, γ)."""

    name: Name = field(default="min_snr", init=False)
    gamma: float = 5.0
    """γ, the largest weight."""

    def __post_init__(self) -> None:
        require(self.gamma > 0, "objective.weighting.gamma", "above 0", self.gamma)


@dataclass(frozen=True)
class P2Weighting(WeightingConfig):
    """The signal-to-noise ratio, held down where there is little noise: snr / (1 + snr)^γ."""

    name: Name = field(default="p2", init=False)
    gamma: float = 1.0
    """γ, the exponent."""


@dataclass(frozen=True)
class SigmoidWeighting(WeightingConfig):
    """What the variational bound weighs, times σ(b − λ), where λ is the log-SNR."""

    name: Name = field(default="sigmoid", init=False)
    integral = True
    bias: float = 0.0
    """b, the log-SNR at which σ(b − λ) is a half."""


@dataclass(frozen=True)
class EdmWeighting(WeightingConfig):
    """The weights of EDM (Karras et al., 2206.00364), for images of a known contrast."""

    name: Name = field(default="edm", init=False)
    integral = True
    sigma_data: float = 0.5
    """Standard deviation of the data; `logsnr inspect data` measures it."""

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, "objective.weighting.sigma_data", "above 0", self.sigma_data)


@dataclass(frozen=True)
class ElboWeighting(WeightingConfig):
    """The weights that the squared error has in the variational bound with a fixed variance."""

    name: Name = field(default="elbo", init=False)
    integral = True


WEIGHTINGS: tuple[type[WeightingConfig], ...] = (
    *(SimpleWeighting, SnrWeighting, TruncatedSnrWeighting, MinSnrWeighting, P2Weighting),
    *(SigmoidWeighting, EdmWeighting, ElboWeighting),
)


def require_weighting(weighting: object) -> None:
    """Raise ConfigError unless it is a weighting with its settings."""
    if not isinstance(weighting, WeightingConfig):
        raise ConfigError(
            f"objective.weighting must be a weighting with its settings, such as MinSnrWeighting(), and is "
            f"{weighting!r}."
        )


# Losses


@dataclass(frozen=True)
class ObjectiveConfig(Choice):
    """What is minimised."""

    name: Name = field(init=False)
    """weighted: the squared error, weighted. hybrid: that and `vlb_weight` times the variational bound, which moves the
    learned variance alone. vlb: the bound itself, timesteps drawn by importance. Of texts: cross_entropy, that of the
    tokens that noise took; transition_bound: the variational bound. Or another installed one."""
    builds: ClassVar[str]
    """`package.module:Class` of the loss, which is made of a schedule, these settings and a `Context`."""
    command: ClassVar[Literal["train", "distill"]] = "train"
    """Which command trains it."""
    noise: ClassVar[type[CurveConfig]] = ScheduleConfig
    """Of which schedules it is a loss: those of numbers, or of states."""

    @classmethod
    def members(cls) -> dict[str, type[ObjectiveConfig]]:
        return installed("logsnr.objectives")

    def require_noise(self, schedule: type[CurveConfig]) -> None:
        """Raise ConfigError unless it is a loss of that class of schedules."""
        if not issubclass(schedule, self.noise):
            fitting = [name for name, cls in self.members().items() if issubclass(schedule, cls.noise)]
            trained = [name for name in fitting if self.members()[name].command == "train"]
            of = {True: "states, such as letters", False: "numbers, such as images"}
            raise ConfigError(
                f"objective.name {self.name} is a loss of {of[self.noise is TransitionConfig]}, and these data are "
                f"{of[self.noise is not TransitionConfig]}. Give --objective.name {' or '.join(trained)}."
            )

    def check(self, schedule: Any) -> None:
        """Raise ConfigError where the schedule, one of `noise`, doesn't go with this loss. Only `weighted` can learn
        one."""
        if isinstance(schedule, LearnedSchedule):
            raise ConfigError(_LEARNS.format(self.name))


_LEARNS = (
    "schedule.name learned needs objective.name weighted with objective.weighting.name elbo, sigmoid or edm, whose "
    "mean doesn't depend on the schedule, and has {}."
)


def require_settings(settings: object, cls: type[ObjectiveConfig]) -> None:
    """Raise ConfigError unless `settings` are those of a loss, which `cls` is the class of."""
    if isinstance(settings, cls):
        return
    like = WeightedConfig if cls is ObjectiveConfig else cls
    cure = f"Such is {like.__name__}()."
    if isinstance(settings, WeightingConfig) and "weighting" in like.__dataclass_fields__:
        cure = f"A weighting is a part of them: {like.__name__}({type(settings).__name__}(...))."
    raise ConfigError(f"objective must be of class {cls.__name__}, and is {settings!r}. {cure}")


def require_integral(weighting: WeightingConfig) -> None:
    """Raise ConfigError for a weighting under which no schedule can be learned."""
    if not weighting.integral:
        raise ConfigError(_LEARNS.format(f"weighted with {weighting.name}"))


def require_fixed_variance(variance_type: VarianceType) -> None:
    """Raise ConfigError where the squared error alone would leave a learned variance untrained."""
    if variance_type == "learned_range":
        raise ConfigError(
            "schedule.variance_type learned_range needs objective.name hybrid or vlb: the squared error alone says "
            "nothing of a variance."
        )


def require_learned_variance(variance_type: VarianceType) -> None:
    """Raise ConfigError where there is no variance for `hybrid` to learn."""
    if variance_type != "learned_range":
        raise ConfigError(
            f"objective.name hybrid trains a learned variance, and schedule.variance_type is {variance_type}. Use "
            "schedule.variance_type learned_range, or the objective weighted."
        )


@dataclass(frozen=True)
class WeightedConfig(ObjectiveConfig):
    """The squared error, weighted by noise level."""

    name: Name = field(default="weighted", init=False)
    builds = "logsnr.objectives.weighted:WeightedObjective"
    weighting: WeightingConfig = field(default_factory=MinSnrWeighting)

    def __post_init__(self) -> None:
        require_weighting(self.weighting)

    def check(self, schedule: ScheduleConfig) -> None:
        require_fixed_variance(schedule.variance_type)
        if isinstance(schedule, LearnedSchedule):
            require_integral(self.weighting)


@dataclass(frozen=True)
class HybridConfig(ObjectiveConfig):
    """The weighted squared error, and the variational bound for the learned variance."""

    name: Name = field(default="hybrid", init=False)
    builds = "logsnr.objectives.hybrid:HybridObjective"
    weighting: WeightingConfig = field(default_factory=MinSnrWeighting)
    vlb_weight: float = 1e-3
    """Weight of the variational bound, in bits per dimension."""

    def __post_init__(self) -> None:
        require_weighting(self.weighting)
        require(self.vlb_weight > 0, "objective.vlb_weight", "above 0", self.vlb_weight)

    def check(self, schedule: ScheduleConfig) -> None:
        super().check(schedule)
        require_learned_variance(schedule.variance_type)


@dataclass(frozen=True)
class VlbConfig(ObjectiveConfig):
    """The variational bound itself, timesteps drawn by importance."""

    name: Name = field(default="vlb", init=False)
    builds = "logsnr.objectives.vlb:VlbObjective"


@dataclass(frozen=True)
class ConsistencyConfig(ObjectiveConfig):
    """Distillation of a trained model for few steps (see logsnr.objectives.consistency), and which model it was."""

    name: Name = field(default="consistency", init=False)
    builds = "logsnr.objectives.consistency:ConsistencyObjective"
    command = "distill"
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

    def __post_init__(self) -> None:
        for name in ("steps", "teacher_steps"):
            require(getattr(self, name) >= 1, f"objective.{name}", "at least 1", getattr(self, name))
        require(self.huber_c > 0, "objective.huber_c", "above 0", self.huber_c)

    def check(self, schedule: ScheduleConfig) -> None:
        evaluations, total = self.steps * self.teacher_steps, schedule.num_train_timesteps
        if evaluations > total:
            raise ConfigError(
                f"objective.steps times objective.teacher_steps must be at most {total}, the number of timesteps, and "
                f"is {evaluations}. Use fewer."
            )
        if schedule.prediction_type == "epsilon":
            raise ConfigError(
                "distill needs a model of another schedule.prediction_type than epsilon: in much noise x_0 = (x_t - s "
                "ε) / a is no function that can be learned. Train one with v_prediction."
            )
        if isinstance(schedule, LearnedSchedule):
            raise ConfigError(
                "distill needs a model of another schedule.name than learned, whose betas aren't in its configuration. "
                "Train one with a fixed schedule."
            )


# Losses of states


@dataclass(frozen=True)
class CrossEntropyConfig(ObjectiveConfig):
    """The plain cross-entropy of the tokens that noise took, all noise levels alike: learns fastest."""

    name: Name = field(default="cross_entropy", init=False)
    builds = "logsnr.objectives.cross_entropy:CrossEntropyObjective"
    noise = TransitionConfig


@dataclass(frozen=True)
class TransitionBoundConfig(ObjectiveConfig):
    """The variational bound, in bits a token: what the held-out loss measures, whatever trains."""

    name: Name = field(default="transition_bound", init=False)
    builds = "logsnr.objectives.transition_bound:TransitionBoundObjective"
    noise = TransitionConfig
