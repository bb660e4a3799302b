"""Are there words in a text, or things that look like words? The share of them that stand in a list.

A word is a maximal run of letters, whatever their case. The first and the last of a sequence may be cut, so they don't
count. Any text is a list: each of its words stands in it, once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from logsnr.base.errors import DataError

_WORD = re.compile(r"[^\W\d_]+")


def words(text: str) -> list[str]:
    """All words of a text, in small letters."""
    return [word.lower() for word in _WORD.findall(text)]


def read_words(path: Path) -> frozenset[str]:
    """The words of a file in UTF-8, such as a list with one a line. Raises DataError where there are none."""
    cure = "Name a list of words in UTF-8, or leave it out: then the words of the training documents are one."
    try:
        found = frozenset(words(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"words is {path}, and there is no such file. {cure}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"words is {path}, which can't be read: {error}. {cure}") from None
    if not found:
        raise DataError(f"words is {path}, and there isn't one in it. Name a list with one a line.")
    return found


def count_words(texts: Sequence[str], known: frozenset[str]) -> tuple[Tensor, Tensor]:
    """Of the text of each sequence, how many of its whole words are known, and how many there are: (n,) and (n,)."""
    whole = [words(text)[1:-1] for text in texts]
    there = [sum(word in known for word in each) for each in whole]
    return torch.tensor(there), torch.tensor([len(each) for each in whole])
