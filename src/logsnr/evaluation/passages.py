"""Does a model write passages of its training texts again? The longest run of tokens that a sequence shares with them.

Runs are found by their length, from one token up: of all places where a run of k tokens of some sequence begins in the
training texts, those stay where the next token continues it too. A run of k + 1 tokens is numbered by the number of its
first k and its last, so that comparing is exact, and after a few tokens hardly any places are left. No run goes over
the end of a document.

What a model owes to memory, held-out sequences tell: they share runs with the training texts as well, since language
repeats itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Tokens = NDArray[np.int64]
_CHUNK = 1 << 22
"""Training tokens that are looked through at once."""


def longest_shared(sequences: Tokens, training: Tokens, end: int, desc: str = "Looking for passages") -> Tokens:
    """Of each sequence, where its longest run that stands in the training tokens begins, and its length: (n, 2); with a
    progress bar.

    sequences: (n, length). training: documents end to end, (tokens,), each followed by the token `end`.
    """
    count, length = sequences.shape
    queries = np.append(sequences, np.full((count, 1), end), 1).ravel()  # an end after each: no run goes on
    found = np.zeros((count, 2), np.int64)
    with tqdm(total=len(training), desc=desc, unit=" tokens", unit_scale=True, leave=False, delay=2) as bar:
        for start in range(0, len(training), _CHUNK):
            part = np.append(training[start : start + _CHUNK + length - 1], end)
            for size, places in _runs(queries, part, end):
                rows, begins = np.divmod(places, length + 1)
                longer = size > found[rows, 1]
                found[rows[longer]] = np.stack([begins[longer], np.full(longer.sum(), size)], 1)
            bar.update(min(_CHUNK, len(training) - start))
    return found


def _runs(queries: Tokens, part: Tokens, end: int) -> Iterator[tuple[int, Tokens]]:
    """For each size from 1, where in `queries` a run of that many tokens begins that is in `part` too, while any is."""
    base = int(max(queries.max(), part.max())) + 1
    asked, there = np.flatnonzero(queries != end), np.flatnonzero(part != end)
    asked_codes, there_codes = queries[asked], part[there]
    size = 1
    while len(asked) and len(there):
        known = np.unique(asked_codes)
        numbers = np.minimum(np.searchsorted(known, there_codes), len(known) - 1)
        same = known[numbers] == there_codes
        there, numbers = there[same], numbers[same]
        seen = np.zeros(len(known), bool)
        seen[numbers] = True
        asked_numbers = np.searchsorted(known, asked_codes)
        both = seen[asked_numbers]
        asked, asked_numbers = asked[both], asked_numbers[both]
        yield size, asked
        goes_on, continued = queries[asked + size] != end, part[there + size] != end
        asked, there = asked[goes_on], there[continued]
        asked_codes = asked_numbers[goes_on] * base + queries[asked + size]
        there_codes = numbers[continued] * base + part[there + size]
        size += 1
