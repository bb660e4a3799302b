"""Which training a command is about: a preset or another run, and the sections that are said otherwise."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from logsnr.base.errors import ConfigError, did_you_mean
from logsnr.commands.choose import no_choice
from logsnr.settings.condition import ClassLabelConfig, ConditionConfig
from logsnr.settings.flags import given
from logsnr.settings.image import DataConfig, ModelConfig
from logsnr.settings.objective import ObjectiveConfig, WeightedConfig
from logsnr.settings.presets import presets
from logsnr.settings.run import RunConfig, TrainConfig
from logsnr.settings.schedule import CurveConfig, ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class RunSections:
    """The sections of a training run's settings, as arguments."""

    data: Any = field(default_factory=DataConfig)
    schedule: CurveConfig = field(default_factory=ScheduleConfig)
    model: Any = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=WeightedConfig)
    condition: ConditionConfig = field(default_factory=ClassLabelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def no_preset(argv: list[str], prog: str, usage: str) -> int | None:
    """None where `argv` begins with a preset; else says which there are, and returns the exit status."""
    return no_choice(argv, prog, "preset", {name: preset.text for name, preset in presets().items()}, usage)


def sections(config: RunConfig) -> dict[str, Any]:
    """The sections of the settings, by name."""
    return {name: section for name, section in vars(config).items() if name != "kind"}


def require_objective(argv: list[str], command: str, schedule: CurveConfig) -> None:
    """Raise ConfigError where `argv` names an objective that there isn't; it offers those that `command` trains with
    such a schedule."""
    name, members = given(argv).get("objective.name"), ObjectiveConfig.members()
    fitting = [n for n, cls in members.items() if cls.command == command and isinstance(schedule, cls.noise)]
    if name is not None and name not in members:
        raise ConfigError(
            f"objective.name {name!r} is unknown.{did_you_mean(name, fitting)} `logsnr {command}` knows: "
            f"{', '.join(fitting)}."
        )


def configured(base: RunConfig, arguments: Any) -> RunConfig:
    """`base` with the sections that `arguments` has. ConfigError where only `logsnr distill` trains that objective."""
    said = {name: getattr(arguments, name) for name in sections(base) if hasattr(arguments, name)}
    config = dataclasses.replace(base, **said)
    if config.objective.command == "distill" and base.objective.command != "distill":
        raise ConfigError(
            f"objective.name {config.objective.name} is what `logsnr distill RUN` trains, from a trained model. Use "
            "that, or another objective."
        )
    return config
