"""The exceptions a user can meet, each a message that says what to do.

    LogsnrError
    ├── ConfigError       a setting that breaks a rule (also a ValueError)
    ├── DataError         images or labels that can't be used (also a ValueError)
    ├── CheckpointError   a run folder that can't be written, read or resumed
    ├── TrainingError     training that can't go on: loss not finite, memory exhausted
    ├── ModelError        a model folder or repo that can't be loaded or sampled as asked
    └── PublishError      a model that can't be published: what is in it, or what the Hub says

The command line prints the message alone; a traceback there means a defect of ours.
"""

import difflib
from collections.abc import Iterable


class LogsnrError(Exception):
    """Base class of the errors that logsnr raises on purpose."""


class ConfigError(LogsnrError, ValueError):
    """A setting that breaks a rule; the message names the setting, the rule, the value and the cure."""


class DataError(LogsnrError, ValueError):
    """Images or labels that can't be used; the message names the file or column."""


class CheckpointError(LogsnrError):
    """A run folder that can't be written, read or resumed."""


class TrainingError(LogsnrError):
    """Training that can't go on; the message names the step and what to try."""


class ModelError(LogsnrError):
    """A model folder or repo that can't be loaded, or can't be sampled in the way asked for."""


class PublishError(LogsnrError):
    """A model that can't be published; the message says what to do, and the same command then goes on."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the known names that `name` resembles, after a blank; nothing where there are none."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=2)
    return f" Did you mean {' or '.join(by_lower[other] for other in close)}?" if close else ""


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error of Python's, numpy's or torch's says, on a processor or a GPU."""
    words = ("allocate memory", "out of memory", "can't allocate")
    return isinstance(error, MemoryError) or any(each in str(error) for each in words)
