"""Warnings about what a caller of the library did, said at the line of that call."""

from __future__ import annotations

import inspect
import warnings

_PACKAGE = __name__.partition(".")[0]


def warn_caller(message: str) -> None:
    """Warn at the line outside this package that called into it, however deep inside it is noticed."""
    frame, level, outside = inspect.currentframe(), 0, 1
    while frame is not None:
        level += 1
        if frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
            outside = level + 1
        frame = frame.f_back
    warnings.warn(message, stacklevel=outside)
