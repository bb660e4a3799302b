"""The noise schedule's settings: a curve of log-SNR, and what goes along it, numbers or states.

Of numbers it says what the network predicts; of states, such as letters, where one goes that doesn't survive. The
curve may be learned, of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from logsnr.base.errors import ConfigError
from logsnr.settings.choice import Choice
from logsnr.settings.rules import require

PredictionType = Literal["epsilon", "sample", "v_prediction", "x0_minus_noise"]
VarianceType = Literal["fixed_small", "fixed_large", "learned_range"]
Teacher = Literal["variance", "losses"]
Kernel = Literal["absorbing", "uniform", "mask_and_replace", "gaussian"]
LEARNED = "learned"
REPLACE_SHARE = 0.1
"""Of the kernel mask_and_replace, where none is given."""


class CurveConfig(Choice):
    """A curve of log-SNR, from the data to noise; what it says more is in the classes made of it."""

    num_train_timesteps: int
    shift: float
    options: dict[str, float]


@dataclass(frozen=True)
class ScheduleConfig(CurveConfig):
    """The noise schedule and what the network predicts. `logsnr inspect schedule` draws it."""

    name: str = "cosine"
    """linear, cosine, constant, sigmoid, laplace, even, learned, another installed under the entry-point group
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
    needs objective.name hybrid or vlb)."""

    def __post_init__(self) -> None:
        if self.name == LEARNED and not isinstance(self, LearnedSchedule):
            raise ConfigError("schedule.name learned has settings of its own: make a LearnedSchedule.")
        _require_length(self)
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ConfigError(
                "schedule.zero_terminal_snr needs another schedule.prediction_type than epsilon: at zero SNR the "
                "noise says nothing of the image. Use v_prediction."
            )

    @classmethod
    def members(cls) -> dict[str, type[ScheduleConfig]]:
        return {LEARNED: LearnedSchedule}

    @classmethod
    def member(cls, name: str, path: str) -> type[ScheduleConfig]:
        """Any other name is a fixed schedule's; whether there is one is found out where it is made."""
        return cls.members().get(name, ScheduleConfig)

    @classmethod
    def named(cls, name: str, **settings: object) -> ScheduleConfig:
        """The settings of the schedule of that name."""
        chosen = cls.member(name, "schedule")
        return chosen(**settings) if chosen is LearnedSchedule else chosen(name, **settings)  # type: ignore[arg-type]


@dataclass(frozen=True)
class LearnedSchedule(ScheduleConfig):
    """A schedule that is learned (see logsnr.objectives.schedule_learner), and what the network predicts."""

    name: str = field(default=LEARNED, init=False)
    teacher: Teacher = "variance"
    """What moves the curve, in the first half of the steps: the gradient of the loss's variance, or each noise level's
    losses directly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zero_terminal_snr:
            raise ConfigError(
                "schedule.name learned has two finite ends, so no schedule.zero_terminal_snr. Lower its option "
                "log_snr_end."
            )


@dataclass(frozen=True)
class TransitionConfig(CurveConfig):
    """The noise of states, such as letters: ᾱ is the share that has survived, and the kernel says where others go."""

    name: str = "even"
    """even (as many go at each step), cosine, linear, constant, sigmoid, laplace, another installed under the
    entry-point group `logsnr.schedulers`, or your own class as `package.module:Class`."""
    num_train_timesteps: int = 1000
    """T, the length of the chain, and the most steps that a text can be written in."""
    shift: float = 0.0
    """Added to the log-SNR: negative means more noise."""
    options: dict[str, float] = field(default_factory=dict)
    """Parameters of the schedule's own formula, such as `beta_end 0.03`."""
    kernel: Kernel = "absorbing"
    """Where a token goes that doesn't survive. `absorbing`: a mask takes its place. `uniform`: to any token alike.
    `mask_and_replace`: most to the mask, some to any other token. `gaussian`: step by step to its neighbours, for
    tokens in a natural order."""
    replace_share: float | None = None
    """With the kernel `mask_and_replace`: the share of what doesn't survive that becomes another token, not the mask;
    0.1 when not given."""

    def __post_init__(self) -> None:
        _require_length(self)
        if self.name == LEARNED:
            raise ConfigError(
                "schedule.name can't be learned for states: what is learned is the variance of numbers. Take even or "
                "cosine."
            )
        kernels, share = get_args(Kernel), self.replace_share
        require(self.kernel in kernels, "schedule.kernel", f"one of {', '.join(kernels)}", self.kernel)
        if share is not None and self.kernel != "mask_and_replace":
            raise ConfigError(
                f"schedule.replace_share is a setting of the kernel mask_and_replace, and schedule.kernel is "
                f"{self.kernel}: it would do nothing. Give --schedule.kernel mask_and_replace or leave it out."
            )
        require(share is None or 0 < share < 1, "schedule.replace_share", "in (0, 1)", share)

    @classmethod
    def members(cls) -> dict[str, type[TransitionConfig]]:
        return {}

    @classmethod
    def member(cls, name: str, path: str) -> type[TransitionConfig]:
        """Any name; whether there is such a schedule is found out where it is made."""
        return TransitionConfig


def _require_length(schedule: CurveConfig) -> None:
    total = schedule.num_train_timesteps
    require(total >= 2, "schedule.num_train_timesteps", "at least 2", total)
