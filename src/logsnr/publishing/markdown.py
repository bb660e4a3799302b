"""Words of others in a page: names of classes, texts of a protocol."""

from __future__ import annotations

import re


def prose(text: str) -> str:
    """Text of others, such as the name of a class, that is to be read and not to be taken for Markdown."""
    return re.sub(r"([\\`*_\[\]<>|&#~])", r"\\\1", " ".join(text.split()))
