"""What `logsnr evaluate` measures of a kind of data. Its parts name one of these: `Parts.measures`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from logsnr.evaluation.subject import Subject
from logsnr.settings.options import EvaluateOptions
from logsnr.settings.registry import resolve


class Measures(Protocol):
    """Figures of a trained model."""

    def refuse_foreign(self, options: EvaluateOptions) -> None:
        """Raise ConfigError for an option that says nothing to this kind."""
        ...

    def plan(self, subject: Subject, options: EvaluateOptions) -> list[str]:
        """Lines about what `measure` would do. Raises what that would raise at once."""
        ...

    def measure(self, subject: Subject, options: EvaluateOptions, say: Callable[[str], None]) -> dict[str, Any]:
        """The figures as they stand in metrics.json. What was drawn and measured before is reused, from
        `subject.folder`. It refuses first, and then says the data's description and the figures by `say`.

        `protocol` says how they came about, and has the model's hash as `model_hash`. A figure with a `title` is a row
        of the card: it says in which `direction` it is better, has a `value`, with a `standard_error` where there is
        one, and what to read it `beside`. Raises DataError, ModelError or ConfigError where it can't be measured as
        asked.
        """
        ...


def measures_of(subject: Subject) -> Measures:
    """What is measured of a model's kind. Raises ConfigError where the package that brings it isn't whole."""
    measures: Measures = resolve(subject.task.parts.measures)
    return measures
