"""A set of examples -> seeded, resumable batches.

Seeds belong to samples, not to batches. The run's samples are numbered n = 0, 1, 2, ...; with A micro-batches a
step, W processes and B examples a batch, slot i of micro-batch a of step s in process r is

    n = ((s A + a) W + r) B + i.

Sample n belongs to epoch e = n // N, N being the number of training examples, and shows the example at place n % N of
the e-th permutation, augmented or not by a seed of its own. Hence a batch is a function of (seed, n) alone: two
processes with batches of B see what one sees with batches of 2B, and resuming at any step costs nothing.

What an example is, this file doesn't know: a kind of data is an `Examples`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logsnr.base.errors import DataError
from logsnr.base.files import digest_of
from logsnr.base.seeds import permutation, sample_seeds
from logsnr.data.workers import in_workers

Split = Literal["train", "held_out"]
Condition = Mapping[str, Tensor]
"""Keyword of the network -> values, batch first. Empty: not conditioned, or on nothing in particular."""

_SPLIT_SEED = 0  # not the run's: every run on the same data has to hold out the same examples
_AUGMENTATION = "flip"
"""Stream of the seeds that augment. Flips came first and gave it its name; under another, every run would change."""


class Example(NamedTuple):
    """One example as the network sees it."""

    clean: NDArray[Any]
    """x_0: float32 in [-1, 1], (channels, *space); or int64, (length,)."""
    condition: Mapping[str, Any]
    """What it is conditioned on, by keyword of the network: a number or an array for each. Empty: nothing."""


class Examples(Protocol):
    """A kind of data: a fixed number of examples in a fixed order. Can be pickled, for worker processes."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that can be read, hexadecimal: changes if and only if the data do."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the `clean` of each example."""
        ...

    @property
    def bits(self) -> int | None:
        """Their depth: values are 2 k / (2^bits - 1) - 1. None: they are continuous, or no numbers."""
        ...

    @property
    def noun(self) -> str:
        """What to call one of them."""
        ...

    @property
    def summary(self) -> str:
        """What they are, for people: what follows the counts in a description."""
        ...

    @property
    def complaints(self) -> list[str]:
        """Lines about what was left out."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int, seed: int | None) -> Example:
        """The example at `index`; `seed`, in [0, 2^63), decides how it is augmented (None: as it is).

        Raises `DataError` if it no longer can be read.
        """
        ...

    def condition(self, index: int) -> Mapping[str, Any]:
        """The `condition` of that example, without reading the rest of it."""
        ...


Kind = TypeVar("Kind", bound=Examples, covariant=True)
_Divided = TypeVar("_Divided", bound=Examples)


def _conditions(condition: Any) -> dict[str, Any]:
    if not isinstance(condition, Mapping):
        raise ValueError(
            f"condition must be a mapping from keywords to tensors, and is {condition!r}. Write {{}} for none."
        )
    return {f"condition[{name!r}]": values for name, values in condition.items()}


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples that the network sees at once, on the CPU, before there is noise in them.

    Args:
        clean: x_0: float32, about in [-1, 1], (batch, channels, *space); or int64, (batch, length).
        condition: what each is conditioned on, by keyword of the network, (batch, ...): `{"class_labels": labels}`.
            Empty, {}: on nothing.
        positions: int64, (batch,): the number n of each sample in this run, 0, 1, 2, ... over all of its batches.
            Timestep, noise and dropped conditions come from the seed and n alone: a number that comes again brings
            the same again.

    Raises ValueError where one is no tensor, or they aren't of one length.
    """

    clean: Tensor
    condition: Condition
    positions: Tensor

    def __post_init__(self) -> None:
        tensors = {"clean": self.clean, "positions": self.positions, **_conditions(self.condition)}
        for name, values in tensors.items():
            if not isinstance(values, Tensor):
                raise ValueError(
                    f"{name} must be a tensor, and is a {type(values).__name__}. Convert it, as by torch.as_tensor."
                )
        if self.clean.ndim < 2:
            raise ValueError(
                f"clean must be (batch, channels, ...), and is {tuple(self.clean.shape)}. Give single numbers an axis "
                "of length 1, as by `[:, None]`."
            )
        count, n = len(self.clean), self.positions
        if n.ndim != 1 or n.dtype != torch.int64 or n.device.type != "cpu":
            raise ValueError(
                f"positions must be int64, (batch,), on the CPU, and is {n.dtype}, {tuple(n.shape)}, on {n.device}. "
                "They are the samples' numbers, as torch.arange(start, start + batch)."
            )
        for name, values in tensors.items():
            if values.ndim == 0 or len(values) != count:
                raise ValueError(
                    f"{name} must have an entry for each of the {count} samples in clean, and is {tuple(values.shape)}."
                )

    def take(self, rows: Tensor, positions: Tensor) -> Batch:
        """The samples of these rows, as the samples of these numbers."""
        return Batch(self.clean[rows], {name: values[rows] for name, values in self.condition.items()}, positions)


class SeededData(Generic[Kind]):
    """Examples split into training and held-out ones. `len()` is the number of training examples, the N of an epoch.

    `batches(...)` are those to train on, shuffled anew each epoch; `in_order("held_out", batch_size)` are the held-out
    ones, `num_held_out` in all, and `in_order("train", batch_size)` the training ones once.

    Args:
        examples: at least two, such as `ArrayExamples(array)`.
        held_out_fraction: share of them that isn't trained on, chosen at random but always the same: at least two
            examples (one of fewer than ten), unless it is 0.
        num_workers: processes that read the examples; 0 reads them in this one, which is right for what is in memory.
        classes: int64, (examples,), the class of each: each then has its share of both parts, to within rounding, and
            keeps one to train on.
        groups: int64, (examples,), the group of each: a group is held out or trained on as a whole. As many examples
            are held out as were asked for, as nearly as whole groups come to that: none where the smallest group is
            too large. One group at least is trained on. Not together with `classes`.
    """

    num_held_out: int

    def __init__(
        self,
        examples: Kind,
        held_out_fraction: float,
        num_workers: int = 0,
        classes: NDArray[np.int64] | None = None,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        self._examples, self._num_workers = examples, num_workers
        self._divide(choose_held_out(len(examples), held_out_fraction, classes, groups))

    @staticmethod
    def divided(examples: _Divided, held_out: NDArray[np.bool_]) -> SeededData[_Divided]:
        """Examples in memory of which it is settled already which are held out: bool, (examples,)."""
        data = SeededData(examples, 0.0)
        data._divide(held_out)
        return data

    def _divide(self, chosen: NDArray[np.bool_]) -> None:
        held_out, train = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        self.num_held_out = len(held_out)
        self._indices: dict[Split, NDArray[np.int64]] = {"train": train, "held_out": held_out}

    def __len__(self) -> int:
        return len(self._indices["train"])

    @property
    def examples(self) -> Kind:
        """All of them, of both parts."""
        return self._examples

    @property
    def fingerprint(self) -> str:
        """Changes if and only if the examples do, or which of them are held out."""
        held_out: NDArray[np.int64] = self._indices["held_out"]
        return digest_of(self._examples.fingerprint.encode(), held_out.tobytes())

    @property
    def description(self) -> str:
        """One line for people."""
        held_out = f"{self.num_held_out} held-out {self._examples.noun}{'' if self.num_held_out == 1 else 's'}"
        return f"{len(self)} training and {held_out}, {self._examples.summary}"

    def indices(self, split: Split) -> NDArray[np.int64]:
        """Which of `examples` are in that part, in the order of the source."""
        return self._indices[split]

    def conditions(self, split: Split) -> Iterator[Mapping[str, Any]]:
        """What each example of that part is conditioned on, in the order of the source."""
        return (self._examples.condition(index) for index in self._indices[split].tolist())

    def batches(
        self,
        *,
        seed: int,
        batch_size: int,
        start_step: int,
        num_steps: int,
        accumulation_steps: int = 1,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> Iterator[Batch]:
        """The training batches of one process, `accumulation_steps` a step, for `num_steps` steps from `start_step`.

        A step's batches depend on `seed` and the step alone: with `start_step` k, training goes on after k steps as if
        it had never stopped. The number of epochs is num_steps * batch_size / len(self), batches going over their ends.

        Args:
            seed: decides the order, and how examples are augmented.
            batch_size: examples in a batch.
            start_step: the first step, 0 in the beginning.
            num_steps: how many steps there are batches for, from `start_step` on.
            accumulation_steps: batches in a step, whose gradients are added up.
            process_index: which of `num_processes` this one is, which share the batches of a step.
            num_processes: how many train together.

        Raises `DataError` if an example that was readable when the set was opened no longer is.
        """
        assert min(start_step, num_steps) >= 0
        assert 0 <= process_index < num_processes

        def selections() -> Iterator[_Selection]:
            for micro in range(start_step * accumulation_steps, (start_step + num_steps) * accumulation_steps):
                n = (micro * num_processes + process_index) * batch_size + np.arange(batch_size)
                yield _Selection(n, self._shown(seed, n), sample_seeds(seed, n, _AUGMENTATION).tolist())

        return self._load(selections())

    def in_order(self, split: Split, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Every example of that part once, in the order of the source, not augmented: always the same batches.

        `positions` count from 0 within the part; the last batch may be smaller.

        Args:
            split: "held_out" or "train".
            batch_size: examples in a batch.
            limit: only that many examples, chosen at random but always the same (a source often comes in some order).
        """
        indices = self._indices[split]
        positions = np.arange(len(indices))
        if limit is not None:
            positions = np.sort(permutation(_SPLIT_SEED, len(indices), "limit")[:limit])

        def selections() -> Iterator[_Selection]:
            for start in range(0, len(positions), batch_size):
                places = positions[start : start + batch_size]
                yield _Selection(places, indices[places], [None] * len(places))

        return self._load(selections())

    def _shown(self, seed: int, n: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which example each sample shows."""
        epochs, places = np.divmod(n, len(self))
        shown = np.empty_like(n)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            order = permutation(seed, len(self), f"order {epoch}")
            shown[here] = self._indices["train"][order[places[here]]]
        return shown

    def _load(self, selections: Iterable[_Selection]) -> Iterator[Batch]:
        for rows in in_workers(_Reader(self._examples), selections, self._num_workers):
            if isinstance(rows, DataError):
                raise rows
            condition = {keyword: torch.from_numpy(values) for keyword, values in rows.condition.items()}
            yield Batch(torch.from_numpy(rows.clean), condition, torch.from_numpy(rows.positions))


def choose_held_out(
    count: int,
    fraction: float,
    classes: NDArray[np.int64] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    """Which of `count` things are held out: bool, (count,). The rules are those of `SeededData`."""
    assert classes is None or groups is None
    order = permutation(_SPLIT_SEED, count, "split")
    least = 2 if count >= 10 else 1  # of one alone nothing could be said with an error
    wanted = min(max(least, round(count * fraction)), count - 1) if fraction else 0
    if groups is not None:
        return _by_group(order, groups, wanted)
    chosen = np.zeros(count, bool)
    chosen[order[:wanted] if classes is None else _by_class(order, classes, wanted)] = True
    return chosen


def _by_class(order: NDArray[np.int64], classes: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """The first in `order` of each class, `wanted` in all: each by its share (largest remainders), never all of one."""
    _, first, of_class, sizes = np.unique(classes[order], return_index=True, return_inverse=True, return_counts=True)
    share = sizes * wanted / len(order)
    taken = np.minimum(np.floor(share).astype(np.int64), sizes - 1)
    by_chance = np.argsort(first)  # of equal remainders, that which came first in `order`
    for _ in range(min(wanted, len(order) - len(sizes)) - int(taken.sum())):
        missing = np.where(taken < sizes - 1, share - taken, -np.inf)
        taken[by_chance[np.argmax(missing[by_chance])]] += 1
    by_class = np.argsort(of_class, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[rank < taken[of_class]]


def _by_group(order: NDArray[np.int64], groups: NDArray[np.int64], wanted: int) -> NDArray[np.bool_]:
    """Which examples are held out: those of the first groups that fit, and of one more if that comes nearer.

    A group has the place in `order` of one of its examples, so that large ones don't come sooner than small ones.
    """
    _, first, of_group, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    in_turn = np.argsort(place[first]).tolist()
    taken = np.zeros(len(sizes), bool)
    missing, left = wanted, len(sizes) - 1
    for group in in_turn:
        if left and sizes[group] <= missing:
            taken[group] = True
            missing, left = missing - int(sizes[group]), left - 1
    if left and missing:
        smallest = min((group for group in in_turn if not taken[group]), key=lambda group: int(sizes[group]))
        taken[smallest] = sizes[smallest] - missing <= missing
    return taken[of_group]


class _Selection(NamedTuple):
    """Samples to load: their numbers, the examples that they show, and the seeds that augment them."""

    positions: NDArray[np.int64]
    indices: NDArray[np.int64]
    seeds: list[int] | list[None]


class _Rows(NamedTuple):
    """A batch as arrays, which leave a worker process without shared memory (there may be little of it)."""

    positions: NDArray[np.int64]
    clean: NDArray[Any]
    condition: dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads a selection; a `DataError` comes back as a value."""

    examples: Examples

    def __call__(self, selection: _Selection) -> _Rows | DataError:
        indices = selection.indices.tolist()
        try:
            found = [self.examples.read(i, seed) for i, seed in zip(indices, selection.seeds, strict=True)]
        except DataError as error:
            return error
        keywords = found[0].condition.keys()
        condition = {keyword: np.stack([example.condition[keyword] for example in found]) for keyword in keywords}
        return _Rows(selection.positions, np.stack([example.clean for example in found]), condition)
