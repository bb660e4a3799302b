"""The whole of a training run, and how it is written down.

A `RunConfig` is written to `config.json` in the run folder; two runs with equal configurations on the same machine give
the same weights.

    {"format": 2, "kind": "image", "config": {"data": {...}, "schedule": {...}, ...}, ...}

`kind` says which classes `data` and `model` are of. A file of another format is refused, and so is a setting that would
do nothing: what is written is what was used.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from logsnr.base.errors import ConfigError
from logsnr.settings.choice import Choice, refuse_foreign
from logsnr.settings.condition import ClassLabelConfig, ConditionConfig
from logsnr.settings.image import DataConfig, ModelConfig
from logsnr.settings.kind import kind_named
from logsnr.settings.objective import ObjectiveConfig, WeightedConfig, require_settings
from logsnr.settings.rules import require, require_seed, require_types
from logsnr.settings.schedule import ScheduleConfig

FORMAT = 2
"""Of config.json: to be raised whenever an older file would be read wrongly, or not at all."""

Precision = Literal["auto", "no", "bf16"]


@dataclass(frozen=True)
class TrainConfig:
    """The loop: length, optimiser, weight averaging, and how often things are written."""

    num_steps: int = 1000
    """Optimiser steps in all."""
    budget: Annotated[int, tyro.conf.Suppress] = 0
    """Seconds that num_steps was chosen for by --budget; 0 where it was given."""
    batch_size: int = 64
    """Images a process takes through the network at once."""
    gradient_accumulation_steps: int = 1
    """Batches a step; the step sees processes x batch_size x this many images."""
    optimizer: Literal["muon", "adamw"] = "adamw"
    """adamw, or muon: matrices and convolutions by Muon, the rest by AdamW."""
    learning_rate: float = 1e-3
    """Peak of the learning rate."""
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
    keep_guide: float = 0.0
    """After this share of the steps the averaged weights are kept as a model of their own, RUN/guide, from which
    `--guidance.guide RUN/guide` leads away later (autoguidance); 0 for none."""
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
        require_types(self, "train")
        for name in ("num_steps", "batch_size", "gradient_accumulation_steps", "checkpoint_every", "log_every"):
            require(getattr(self, name) >= 1, f"train.{name}", "at least 1", getattr(self, name))
        require_seed(self.seed, "train.seed")
        require(self.keep_checkpoints >= 1, "train.keep_checkpoints", "at least 1", self.keep_checkpoints)
        for name in ("budget", "held_out_every", "sample_every", "lr_warmup_steps", "weight_decay"):
            require(getattr(self, name) >= 0, f"train.{name}", "0 or more", getattr(self, name))
        for name in ("learning_rate", "max_grad_norm"):
            require(getattr(self, name) > 0, f"train.{name}", "above 0", getattr(self, name))
        require(0 <= self.ema_decay < 1, "train.ema_decay", "in [0, 1)", self.ema_decay)
        require(0 <= self.keep_guide < 1, "train.keep_guide", "in [0, 1)", self.keep_guide)
        require(0 < self.adam_beta2 < 1, "train.adam_beta2", "in (0, 1)", self.adam_beta2)


@dataclass(frozen=True)
class RunConfig:
    """A whole training run: data, noise schedule, network, loss, condition and loop."""

    data: Any = field(default_factory=DataConfig)
    """Settings of the kind's own class, as `schedule` and `model` are."""
    schedule: Any = field(default_factory=ScheduleConfig)
    model: Any = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=WeightedConfig)
    condition: ConditionConfig = field(default_factory=ClassLabelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    kind: str = "image"
    """What is trained on; a name of the entry-point group `logsnr.tasks`."""

    def __post_init__(self) -> None:
        kind = kind_named(self.kind)
        for name, cls in (("data", kind.data), ("model", kind.model), ("schedule", kind.schedule)):
            if not isinstance(getattr(self, name), cls):
                raise ConfigError(f"{name} must be a {cls.__name__} for kind {self.kind}: {getattr(self, name)!r}.")
        require_settings(self.objective, ObjectiveConfig)
        for name, cls in (("condition", ConditionConfig), ("train", TrainConfig)):
            require(isinstance(getattr(self, name), cls), name, f"a {cls.__name__}", getattr(self, name))
        if self.condition.reads_captions != kind.captioned:
            cure = "Leave it at caption" if kind.captioned else "Captions are for the presets that begin with captions"
            raise ConfigError(f"condition.name can't be {self.condition.name} for kind {self.kind}. {cure}.")
        self.objective.require_noise(kind.schedule)
        self.objective.check(self.schedule)
        kind.check(self.data, self.model)


def to_record(config: RunConfig) -> dict[str, Any]:
    """What `config.json` says of a configuration, as JSON has it; sections and settings in the order of the classes."""
    sections = dataclasses.asdict(config)
    kind = sections.pop("kind")
    record: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, "kind": kind, "config": sections}))
    return record


def to_json(config: RunConfig) -> str:
    """What `config.json` says of a configuration, as indented text."""
    return json.dumps(to_record(config), indent=2, ensure_ascii=False) + "\n"


def from_record(record: Mapping[str, Any], where: str = "config.json") -> RunConfig:
    """The configuration in what a `config.json` holds, whatever else it holds: the inverse of `to_record`.

    Raises `ConfigError`, naming the file as `where`, if it is of another format, or has a setting that this version
    doesn't know or that would do nothing.
    """
    found = record.get("format", 1)
    if found != FORMAT:
        age = "an earlier" if found < FORMAT else "a later"
        raise ConfigError(
            f"{where} was made by {age} version of logsnr (format {found}, this one reads {FORMAT}). Train anew, "
            "or use the version that made it."
        )
    kind = kind_named(record["kind"])
    hints = typing.get_type_hints(RunConfig) | {"data": kind.data, "model": kind.model, "schedule": kind.schedule}
    del hints["kind"]
    return RunConfig(kind=kind.name, **_values(hints, record["config"], "", where))


def _values(hints: Mapping[str, Any], values: Mapping[str, Any], path: str, where: str) -> dict[str, Any]:
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where} has {path}{unknown[0]}, which this version of logsnr doesn't know.")
    return {name: _convert(hints[name], value, f"{path}{name}", where) for name, value in values.items()}


def _convert(hint: Any, value: Any, path: str, where: str) -> Any:
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    if not dataclasses.is_dataclass(hint):
        return value
    cls = typing.cast(type[Any], hint)
    if issubclass(cls, Choice):
        if "name" not in value:
            raise ConfigError(f"{where} has no {path}.name.")
        cls = cls.member(value["name"], path)
        for setting in value:
            refuse_foreign(cls, value["name"], setting, path, f"{path}.{setting} in {where}")
        value = {name: each for name, each in value.items() if name != "name" or _is_given(cls, name)}
    return cls(**_values(typing.get_type_hints(cls), value, f"{path}.", where))


def _is_given(cls: type[Any], name: str) -> bool:
    return any(f.name == name and f.init for f in dataclasses.fields(cls))


FREE = frozenset(
    (
        *("data.num_workers", "train.checkpoint_every", "train.keep_checkpoints", "train.tracker"),
        *("train.log_every", "train.held_out_every", "train.sample_every"),
    )
)
"""Settings that the weights don't depend on: a run may go on with others."""

HIDDEN = frozenset(("objective.base_digest", "objective.base_steps", "train.budget"))
"""Settings that a command finds out, and no flag gives."""


def flat(settings: Any, path: str = "") -> dict[str, Any]:
    """Every setting by its name from the top: `{"objective.weighting.gamma": 5.0, ...}`. `path` is where they are."""
    found: dict[str, Any] = {}
    for f in dataclasses.fields(settings):
        name, value = f"{path}.{f.name}" if path else f.name, getattr(settings, f.name)
        found |= flat(value, name) if dataclasses.is_dataclass(value) else {name: value}
    return found


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Lines `section.name: old -> new` for every setting in which two configurations differ.

    Where they differ in a choice (`objective.name: weighted -> vlb`), settings that only one of the two has aren't
    listed.
    """
    before, after = flat(old), flat(new)
    return [
        f"{name}: {before[name]!r} -> {after[name]!r}"
        for name in before
        if name in after and before[name] != after[name]
    ]
