"""Words of others in a page: names of classes, texts of a protocol."""

from __future__ import annotations

import re

LISTED = 12
"""Names in a sentence."""


def prose(text: str) -> str:
    """Text of others, such as the name of a class, that is to be read and not to be taken for Markdown."""
    return re.sub(r"([\\`*_\[\]<>|&#~])", r"\\\1", " ".join(text.split()))


def listed(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    shown = [prose(name) for name in names[:LISTED]]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
