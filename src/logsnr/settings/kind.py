"""A kind of data: which settings its data and its network have, and what opens it.

Declared by an entry point of its name in the group `logsnr.tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from logsnr.settings.registry import find, known
from logsnr.settings.schedule import CurveConfig, ScheduleConfig

GROUP = "logsnr.tasks"


@dataclass(frozen=True)
class Kind:
    """What the settings say of a kind of data. No torch is imported to read it."""

    name: str
    data: type[Any]
    """The class of `RunConfig.data`, a frozen dataclass."""
    model: type[Any]
    """The class of `RunConfig.model`."""
    parts: str
    """`package.module:attribute` of what it brings, a `logsnr.tasks.parts.Parts`; resolved when it is needed."""
    pipelines: tuple[str, ...]
    """Names of the pipeline classes whose models are of this kind, as model_index.json has them."""
    placeholders: Mapping[str, str]
    """Settings that may name a folder, and what stands for that in public: `{"data.source": "path/to/images"}`."""
    check: Callable[[Any, Any], None]
    """Called with `data` and `model`; raises ConfigError where the two don't go together."""
    schedule: type[CurveConfig] = ScheduleConfig
    """The class of `RunConfig.schedule`: numbers have a `ScheduleConfig`, states a `TransitionConfig`."""
    captioned: bool = False
    """Whether its data have captions, which its condition must read."""
    bundled: frozenset[str] = frozenset()
    """Values of the settings in `placeholders` that name no folder, even where one of that name lies."""


def kind_named(name: str) -> Kind:
    """The kind of that name; ConfigError where none is installed."""
    kind: Kind = find(GROUP, name, "kind")
    return kind


def kind_of_pipeline(class_name: str) -> Kind | None:
    """The kind that models with a pipeline of that class are of; None where none is installed."""
    kinds = (kind_named(name) for name in known(GROUP))
    return next((kind for kind in kinds if class_name in kind.pipelines), None)
