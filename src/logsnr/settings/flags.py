"""Settings <-> the flags of the command line: `--section.setting VALUE`, at any depth.

tyro makes the flags from the classes of the defaults that it is given. Which classes these must be, where a flag
chooses between several (`--objective.weighting.name min_snr`), is found out here before: so there are only flags, and
help, for settings that mean something.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping
from typing import Any, TypeVar

from logsnr.settings.choice import Choice, refuse_foreign, switched

_Settings = TypeVar("_Settings")


def chosen(defaults: _Settings, argv: list[str]) -> _Settings:
    """`defaults`, a dataclass of sections, with the members of unions that `argv` names.

    Raises ConfigError where a name is unknown, or where a flag is a setting of another member.
    """
    said = given(argv)
    made = with_members(defaults, {name: value for name, value in said.items() if value is not None}, "")
    for flag in said:
        _refuse_foreign(made, flag)
    return made


def with_members(settings: _Settings, names: Mapping[str, str], path: str) -> _Settings:
    """The same with other members of unions, by `names`: `{"objective.name": "vlb"}`. `path` is where it is.

    Settings that the member before had too keep their values.
    """
    before = f"{path}." if path else ""
    name = names.get(f"{before}name")
    if isinstance(settings, Choice) and name is not None and name != settings.name:
        settings = switched(settings, name, path)
    fields = dataclasses.fields(settings)  # type: ignore[arg-type]
    inner = {f.name: value for f in fields if _is_settings(value := getattr(settings, f.name))}
    changed = {field: with_members(value, names, before + field) for field, value in inner.items()}
    changed = {field: value for field, value in changed.items() if value is not inner[field]}
    return dataclasses.replace(settings, **changed) if changed else settings  # type: ignore[type-var]


def given(argv: list[str]) -> dict[str, str | None]:
    """Each `--flag` in argv by its setting's name, and the word that follows it."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    pairs = zip(words, [*words[1:], None], strict=False)
    return {m[1].replace("-", "_"): after for word, after in pairs if (m := re.fullmatch("--(.+)", word))}


def _is_settings(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _refuse_foreign(settings: Any, flag: str) -> None:
    """Raise ConfigError where the flag (a setting's name from the top) is a setting of a member that wasn't chosen."""
    at: list[str] = []
    for part in flag.split("."):
        part = part.removeprefix("no_")
        if isinstance(settings, Choice):
            written = f"--{flag.replace('_', '-')}"
            refuse_foreign(type(settings), settings.name, part, ".".join(at), written)
        settings = getattr(settings, part, None)
        if not _is_settings(settings):
            return
        at.append(part)


def as_flag(setting: str, value: Any) -> str:
    """The flag with its value: `--train.num-steps 30`."""
    *sections, name = setting.replace("_", "-").split(".")
    path = "".join(f"{section}." for section in sections)
    if isinstance(value, bool):
        return f"--{path}{name}" if value else f"--{path}no-{name}"
    if isinstance(value, dict):
        values = [str(part) for item in value.items() for part in item]
    else:
        values = [str(part) for part in (value if isinstance(value, tuple) else (value,))]
    return shlex.join([f"--{path}{name}", *values])
