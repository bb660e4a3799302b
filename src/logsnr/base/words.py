"""Lists and errors in a sentence."""

from __future__ import annotations

from collections.abc import Iterable

LISTED = 10
"""How many things a sentence names."""


def listed(values: Iterable[object]) -> str:
    """The first ten, and how many more: `0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 90 more`."""
    words = [str(value) for value in values]
    return ", ".join(words[:LISTED]) + (f" and {len(words) - LISTED} more" if len(words) > LISTED else "")


def one_line(error: Exception) -> str:
    """What an error says, on one line and without its full stop; its class where it says nothing."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
