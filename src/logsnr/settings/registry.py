"""Names that packages declare by entry points -> what they stand for.

Ours are declared in the same way as anybody's, in `pyproject.toml`:

    [project.entry-points."logsnr.presets"]
    cells = "my_package.presets:CELLS"

Asking for the names imports nothing; only what was chosen is imported.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from logsnr.base.errors import ConfigError, did_you_mean


@functools.cache  # to read what every installed package declares takes a tenth of a second
def known(group: str) -> Mapping[str, str]:
    """The names of a group in order of the alphabet, each with its `package.module:attribute`.

    Raises `ConfigError` where two packages claim one name for different things.
    """
    found: dict[str, str] = {}
    for point in sorted(entry_points(group=group)):
        if found.setdefault(point.name, point.value) != point.value:
            raise ConfigError(
                f"The name {point.name!r} of {group} is claimed by {found[point.name]} and by {point.value}. Uninstall "
                "one of the two packages, or use the long form package.module:Class where there is one."
            )
    return MappingProxyType(found)


def find(group: str, name: str, setting: str) -> Any:
    """What a name of the group stands for. `ConfigError`, naming `setting`, where there is no such name."""
    return resolve(reference(group, name, setting))


def reference(group: str, name: str, setting: str, more: str = "") -> str:
    """The `package.module:attribute` of a name. `ConfigError` where there is none, with `more` as its last words."""
    names = known(group)
    if name not in names:
        raise ConfigError(
            f"{setting} {name!r} is unknown.{did_you_mean(name, names)} Known: {', '.join(names) or 'none'}{more}."
        )
    return names[name]


def resolve(reference: str) -> Any:
    """The object of an installed package that `package.module:attribute` names, imported now."""
    module_name, _, attribute = reference.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{reference}, which an installed package declares, can't be imported: {error}.") from error
