"""How a broken rule of one setting is said."""

from logsnr.base.errors import ConfigError


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """Raise ConfigError unless `condition`: "`name` must be `rule`, and is `value`"."""
    if not condition:
        raise ConfigError(f"{name} must be {rule}, and is {value!r}.")
