"""How a broken rule of settings is said."""

import typing
from typing import Any

from logsnr.base.errors import ConfigError


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """Raise ConfigError unless `condition`: "`name` must be `rule`, and is `value`"."""
    if not condition:
        raise ConfigError(f"{name} must be {rule}, and is {value!r}.")


def require_seed(seed: int, name: str = "seed") -> None:
    """Raise ConfigError for a seed that generators don't take."""
    require(0 <= seed < 1 << 63, name, "0 or more, and less than 2^63", seed)


def require_types(settings: Any, path: str) -> None:
    """Raise ConfigError where a dataclass of numbers and words has a value of another type than it says.

    "8" isn't 8, and True isn't 1; an int does as a float. `path` is where the settings are, such as `train`.
    """
    for name, hint in typing.get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if typing.get_origin(hint) is typing.Literal:
            allowed = typing.get_args(hint)
            require(value in allowed, f"{path}.{name}", f"one of {', '.join(allowed)}", value)
        else:
            fits = isinstance(value, int | float if hint is float else hint)
            require(
                fits and isinstance(value, bool) == (hint is bool), f"{path}.{name}", f"of type {hint.__name__}", value
            )
