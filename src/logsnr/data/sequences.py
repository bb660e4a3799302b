"""Documents of tokens -> sequences of one length: packed end to end, or padded.

Tokens lie in one array, as small as their numbers allow. A document is followed by a token for its end, which is a
token like any other to the network: a bound on the likelihood counts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from logsnr.base.files import digest_of

Tokens = NDArray[np.integer[Any]]


class Sequences(Protocol):
    """Sequences of tokens, of one length, in a fixed order."""

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which of them are of documents that are held out, (sequences,)."""
        ...

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The class of each; None without classes."""
        ...

    @property
    def digest(self) -> str:
        """Hash of all tokens, and of where sequences begin."""
        ...

    def read(self, index: int, seed: int | None) -> NDArray[np.int64]:
        """The sequence at `index`, (length,). `seed` may choose another beginning; None doesn't."""
        ...


@dataclass(frozen=True, eq=False)
class PackedSequences:
    """Documents end to end, cut in sequences.

    What is trained on and what is held out are streams of their own, and so is each class in both. Sequence i of a
    stream of n tokens has those from i * length on. With a seed it begins seed mod length later, and past the end of a
    stream comes its beginning: in training every token is as likely in every place of a sequence. Without one the last
    n mod length tokens of a stream are in no sequence.
    """

    tokens: Tokens
    """All streams."""
    streams: NDArray[np.int64]
    """(sequences, 2): where in `tokens` the stream of each begins, and how many tokens it has."""
    places: NDArray[np.int64]
    """(sequences,): where in its stream each begins."""
    length: int
    held_out: NDArray[np.bool_]
    labels: NDArray[np.int64] | None

    @property
    def digest(self) -> str:
        """Hash of all tokens, and of where sequences begin."""
        numbers = (self.streams.astype("<i8"), self.places.astype("<i8"), self.tokens.astype("<i4"))
        return digest_of(*(values.tobytes() for values in numbers))

    def read(self, index: int, seed: int | None) -> NDArray[np.int64]:
        """The sequence at `index`; with a seed, it begins up to length - 1 tokens later."""
        begin, size = self.streams[index].tolist()
        first = int(self.places[index]) + (0 if seed is None else seed % self.length)
        found: NDArray[np.int64] = self.tokens[begin + np.arange(first, first + self.length) % size].astype(np.int64)
        return found


@dataclass(frozen=True, eq=False)
class PaddedSequences:
    """A document a sequence: its first `length` tokens, or all of them, and then tokens for the end."""

    tokens: Tokens
    """What is kept of the documents."""
    bounds: NDArray[np.int64]
    """(sequences + 1,): where in `tokens` each begins."""
    length: int
    end: int
    """The token for the end."""
    held_out: NDArray[np.bool_]
    labels: NDArray[np.int64] | None

    @property
    def digest(self) -> str:
        """Hash of all tokens, and of where sequences begin."""
        return digest_of(self.bounds.astype("<i8").tobytes(), self.tokens.astype("<i4").tobytes())

    def read(self, index: int, seed: int | None) -> NDArray[np.int64]:
        """The sequence at `index`, whatever the seed."""
        kept = self.tokens[self.bounds[index] : self.bounds[index + 1]]
        found = np.full(self.length, self.end, np.int64)
        found[: len(kept)] = kept
        return found


def pack(
    documents: Sequence[Tokens], end: int, length: int, held_out: NDArray[np.bool_], labels: NDArray[np.int64] | None
) -> PackedSequences:
    """Packs documents, (tokens,) each, of which these are held out, and which have these classes."""
    classes = np.zeros(len(documents), np.int64) if labels is None else labels
    kinds = [(part, label) for part in (False, True) for label in np.unique(classes[held_out == part]).tolist()]
    parts: list[Tokens] = []
    rows: list[tuple[int, int, int, bool, int]] = []
    begin, ending = 0, np.array([end], documents[0].dtype)
    for part, label in kinds:
        chosen = np.flatnonzero((held_out == part) & (classes == label)).tolist()
        stream = [piece for index in chosen for piece in (documents[index], ending)]
        size = sum(map(len, stream))
        rows += [(begin, size, place, part, label) for place in range(0, size - length + 1, length)]
        parts += stream
        begin += size
    found = np.array(rows, np.int64).reshape(-1, 5)
    return PackedSequences(
        np.concatenate(parts),
        found[:, :2],
        found[:, 2],
        length,
        found[:, 3] == 1,
        None if labels is None else found[:, 4],
    )


def pad(
    documents: Sequence[Tokens], end: int, length: int, held_out: NDArray[np.bool_], labels: NDArray[np.int64] | None
) -> PaddedSequences:
    """Pads or cuts documents, (tokens,) each, of which these are held out, and which have these classes."""
    kept = [document[:length] for document in documents]
    bounds = np.cumsum([0, *map(len, kept)]).astype(np.int64)
    return PaddedSequences(np.concatenate(kept), bounds, length, end, held_out, labels)
