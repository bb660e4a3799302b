"""Tagged unions of settings: several classes with a base in common, of which a `name` chooses one.

    objective:
        name: weighted            WeightedConfig
        weighting:
            name: min_snr         MinSnrWeighting
            gamma: 5.0            a setting of min_snr, which no other weighting has

A member says its name as `name: Name = field(default="min_snr", init=False)`, so that it can't be given another. In
`config.json` and on the command line the name stands beside the member's settings.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Self, TypeVar, cast

import tyro

from logsnr.base.errors import ConfigError, did_you_mean
from logsnr.settings.registry import find, known

Name = Annotated[str, tyro.conf.arg(metavar="NAME")]
"""Type of the field that says by name which member of a union it is."""


@dataclass(frozen=True)
class Choice:
    """Base of the bases of the unions; these say in `members` which classes there are to choose from."""

    name: Name = field(init=False)

    @classmethod
    def members(cls) -> dict[str, type[Self]]:
        """The classes to choose from, by name."""
        raise NotImplementedError

    @classmethod
    def member(cls, name: str, path: str) -> type[Self]:
        """The class of that name; ConfigError where there is none. `path` says where the choice is: `objective`."""
        members = cls.members()
        if name not in members:
            raise ConfigError(
                f"{path}.name {name!r} is unknown.{did_you_mean(name, members)} Known: {', '.join(members)}."
            )
        return members[name]


_Member = TypeVar("_Member", bound=Choice)


def installed(group: str) -> dict[str, Any]:
    """The members of a union that any package may add to, by an entry point in `group`."""
    found = {name: find(group, name, group) for name in known(group)}
    for name, cls in found.items():
        if cls.name != name:
            raise ConfigError(f"{cls.__module__}:{cls.__qualname__} is called {cls.name}, and {name} in {group}.")
    return found


def union_of(member: Choice | type[Choice]) -> type[Choice]:
    """The base that the member shares with its alternatives: the one that says which there are."""
    classes = (member if isinstance(member, type) else type(member)).__mro__
    return cast(type[Choice], next(cls for cls in classes if "members" in vars(cls)))


def switched(settings: _Member, name: str, path: str) -> _Member:
    """The settings of the member called `name`: those that this one has too keep their values, others are the defaults.

    Raises ConfigError where there is no such member; `path` says where the choice is.
    """
    cls = union_of(settings).member(name, path)
    shared = {f.name for f in dataclasses.fields(settings)}
    kept = {f.name: getattr(settings, f.name) for f in dataclasses.fields(cls) if f.init and f.name in shared}
    if "name" in kept:
        kept["name"] = name
    return cast(_Member, cls(**kept))


def refuse_foreign(chosen: type[Choice], name: str, setting: str, path: str, written: str) -> None:
    """Raise ConfigError if `setting` is one of another member than `chosen`, whose name is `name`.

    `path` is where the choice is, `written` how the setting was written.
    """
    members = union_of(chosen).members()
    owners = [other for other, cls in members.items() if setting in {f.name for f in dataclasses.fields(cls)}]
    if owners and setting not in {f.name for f in dataclasses.fields(chosen)}:
        raise ConfigError(
            f"{written} is a setting of {' and '.join(owners)}, and the {path.rpartition('.')[2]} is {name}: it would "
            f"do nothing. Give --{path}.name {owners[0]} or leave it out."
        )
