"""What `logsnr compare` measures of a kind of data, tabulates and draws. Its parts name one of these: `Parts.compares`.

The figures of a run are a row: a dictionary as it stands in compare.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from logsnr.data.seeded import SeededData
from logsnr.evaluation.subject import Subject
from logsnr.settings.options import EvaluateOptions
from logsnr.settings.registry import resolve
from logsnr.settings.run import RunConfig
from logsnr.tasks.task import parts_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]


class Comparison(Protocol):
    """Figures of several runs on the same data, side by side."""

    def require(self, config: RunConfig, options: EvaluateOptions, at_steps: tuple[int, ...]) -> None:
        """Raise ConfigError, DataError or ModelError, before anything is trained, for what can't be measured."""
        ...

    def plan(
        self, config: RunConfig, data: SeededData[Any], options: EvaluateOptions, at_steps: tuple[int, ...]
    ) -> str:
        """What would be measured of each run, in a sentence. Raises what measuring would raise at once."""
        ...

    def measured(self, subject: Subject, options: EvaluateOptions, at_steps: tuple[int, ...]) -> Row:
        """The figures of one run. What was drawn and measured before is reused."""
        ...

    def table(self, rows: Mapping[str, Row]) -> str:
        """All of them as a table, and how they came about."""
        ...

    def figure(self, rows: Mapping[str, Row]) -> Figure:
        """All of them as a picture."""
        ...


def comparison_of(config: RunConfig) -> Comparison:
    """What is compared of a kind's runs. Raises ConfigError where the package that brings it isn't whole."""
    comparison: Comparison = resolve(parts_of(config.kind).compares)
    return comparison


def steps_in_words(steps: Iterable[int]) -> str:
    """Numbers of steps in order: `5, 10 and 20`."""
    *others, last = sorted(set(steps))
    return f"{', '.join(map(str, others))}{' and ' if others else ''}{last}"
