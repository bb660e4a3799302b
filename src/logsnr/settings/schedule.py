"""The noise schedule's settings: those of a fixed one, ours or another's, and those of the one that is learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from logsnr.base.errors import ConfigError
from logsnr.settings.choice import Choice
from logsnr.settings.rules import require

PredictionType = Literal["epsilon", "sample", "v_prediction", "x0_minus_noise"]
VarianceType = Literal["fixed_small", "fixed_large", "learned_range"]
Teacher = Literal["variance", "losses"]


@dataclass(frozen=True)
class ScheduleConfig(Choice):
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
    needs objective.name hybrid or vlb)."""

    def __post_init__(self) -> None:
        if self.name == "learned" and not isinstance(self, LearnedSchedule):
            raise ConfigError("schedule.name learned has settings of its own: make a LearnedSchedule.")
        require(self.num_train_timesteps >= 2, "schedule.num_train_timesteps", "at least 2", self.num_train_timesteps)
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ConfigError(
                "schedule.zero_terminal_snr needs another schedule.prediction_type than epsilon: at zero SNR the "
                "noise says nothing of the image. Use v_prediction."
            )

    @classmethod
    def members(cls) -> dict[str, type[ScheduleConfig]]:
        return {"learned": LearnedSchedule}

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

    name: str = field(default="learned", init=False)
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
