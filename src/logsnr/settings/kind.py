"""A kind of data: which settings its data and its network have, and what opens it.

Declared by an entry point of its name in the group `logsnr.tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from logsnr.settings.registry import find


@dataclass(frozen=True)
class Kind:
    """What the settings say of a kind of data. No torch is imported to read it."""

    name: str
    data: type[Any]
    """The class of `RunConfig.data`, a frozen dataclass."""
    model: type[Any]
    """The class of `RunConfig.model`."""
    opens: str
    """`package.module:attribute` of what opens the data; resolved when it is needed."""
    placeholders: Mapping[str, str]
    """Settings that may name a folder, and what stands for that in public: `{"data.source": "path/to/images"}`."""
    check: Callable[[Any, Any], None]
    """Called with `data` and `model`; raises ConfigError where the two don't go together."""


def kind_named(name: str) -> Kind:
    """The kind of that name; ConfigError where none is installed."""
    kind: Kind = find("logsnr.tasks", name, "kind")
    return kind
