"""Judges of what was asked for, fitted on real images: was it drawn?

A judge looks at an image through the features of a network, x, and is a ridge regression (`logsnr.evaluation.ridge`).

- Which caption? It predicts the caption's meaning t, the mean of a text encoder's states, and takes that one of k
  captions whose t - m is nearest to the predicted one by cosine, m being the mean of the t that it was fitted on. One
  of the k is the right one: chance is 1 / k. The others are captions of other examples, by a fixed seed.
- Which value of an attribute? It predicts one number for each value, 1 for the right one and 0 for others, and takes
  the greatest. Chance is to name the most frequent value, always.

No judge judges what it has seen. Where what is drawn is asked to be like held-out examples, it is fitted on training
examples. Where it is asked to be like training examples, there are two judges: what belongs together is on one of two
sides, and each judge is fitted on one and judges the other. Real images are judged beside those that were drawn: the
very examples that these were asked to be like. That is what a perfect model would get.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from logsnr.base.seeds import permutation, sample_seeds
from logsnr.evaluation.ridge import fitted

CANDIDATES = 20
"""Captions to choose from, where there are as many."""
_MOST = 10_000
"""Examples that a judge is fitted on, and captions that the wrong ones are taken of, at most."""
_ROWS = 256

Places: TypeAlias = NDArray[np.int64]
"""Places of examples in a part of the data."""
Judge: TypeAlias = Callable[[Tensor, Places], Tensor]
"""`judge(features, places)`: how right each image is that was asked to be like the example of the reference at its
place; (images,), 1 for right, 0 for wrong, a share where several answers are as good."""


@dataclass(frozen=True, eq=False)
class Seat:
    """What a judge sees, and what it judges."""

    learns: Places
    """The training examples that it is fitted on."""
    judges: NDArray[np.bool_]
    """Which examples of the reference it judges the likes of, (reference,)."""


@dataclass(frozen=True)
class Share:
    """A share of images, with the interval of 95 % by the bootstrap."""

    value: float
    interval: tuple[float, float]
    num: int
    """Of how many images."""


def seats_held_out(num_train: int, num_held_out: int) -> list[Seat]:
    """One judge, which learns of training examples and judges the likes of held-out ones."""
    return [Seat(_few(np.arange(num_train)), np.ones(num_held_out, bool))]


def seats_of_halves(groups: Sequence[str]) -> list[Seat]:
    """Two judges of the likes of training examples, by the group of each of these: each learns of the groups of one
    half, and judges the likes of the other half."""
    sizes = Counter(groups)
    names = sorted(sizes)
    counts, sides = [0, 0], {}
    for k in permutation(0, len(names), "sides"):
        sides[names[k]] = side = int(counts[1] < counts[0])
        counts[side] += sizes[names[k]]
    of = np.array([sides[group] for group in groups])
    return [Seat(_few(np.flatnonzero(of != side)), of == side) for side in (0, 1)]


def _few(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return values[np.sort(permutation(0, len(values), "few")[:_MOST])]


def verdicts(
    seats: Sequence[Seat], judge_of: Callable[[Seat], Judge], drawn: Tensor, real: Tensor, asked: Places
) -> tuple[Share, Share]:
    """The share of drawn images that are what was asked for, and that of the real ones that they should be like.

    Args:
        seats: what each judge sees and judges; together they judge the likes of all that was asked for, or leave out
            those of which nothing is known.
        judge_of: makes the judge of a seat.
        drawn: features of the drawn images.
        real: features of the examples of the reference.
        asked: which of these each drawn image was asked to be like.
    """
    of_drawn, of_real = [], []
    for seat in seats:
        judge = judge_of(seat)
        samples = np.flatnonzero(seat.judges[asked])
        places = np.unique(asked[samples])
        of_drawn.append(judge(drawn[samples], asked[samples]))
        of_real.append(judge(real[places], places))
    return share(torch.cat(of_drawn)), share(torch.cat(of_real))


def share(right: Tensor) -> Share:
    """The mean of values between 0 and 1, ± 1.96 standard deviations of the bootstrap, std / sqrt(n)."""
    value, reach = float(right.mean()), 1.96 * float(right.std(correction=0)) / len(right) ** 0.5
    return Share(value, (max(value - reach, 0.0), min(value + reach, 1.0)), len(right))


# Captions


class CaptionJudges:
    """Makes judges of which caption an image has.

    Args:
        seats: what each judge sees and judges.
        train: the caption of each training example, a number, (train,).
        reference: the same of the examples of the reference, (reference,).
    """

    def __init__(self, seats: Sequence[Seat], train: NDArray[np.int64], reference: NDArray[np.int64]) -> None:
        self.seats, self._train, self._reference = seats, train, reference
        self._unseen = {seat: _few(np.unique(reference[seat.judges])) for seat in seats}
        self.candidates = min(CANDIDATES, *(len(unseen) for unseen in self._unseen.values()))
        """Captions to choose from: chance is one of them."""

    def possible(self) -> bool:
        """Whether there is something to learn of and to choose from."""
        return self.candidates >= 2 and all(len(seat.learns) >= 2 for seat in self.seats)

    def read(self, asked: Places) -> NDArray[np.int64]:
        """The captions whose meanings are needed to judge what was asked for."""
        learned = [self._train[seat.learns] for seat in self.seats]
        return np.unique(np.concatenate([*learned, *self._unseen.values(), self._reference[asked]]))

    def judge(self, seat: Seat, features: Tensor, meanings: Tensor) -> Judge:
        """The judge of a seat.

        Args:
            seat: one of `seats`.
            features: of all training examples.
            meanings: of each caption by its number; of those that aren't read anything.
        """
        ridge = fitted(features[seat.learns], meanings[self._train[seat.learns]])

        def judge(images: Tensor, places: Places) -> Tensor:
            right = []
            for start in range(0, len(places), _ROWS):
                rows = slice(start, start + _ROWS)
                lines = np.array([self._line_up(seat, place) for place in places[rows].tolist()])
                given = F.normalize(meanings[lines].double() - ridge.mean, dim=2)
                near = (given @ F.normalize(ridge(images[rows]), dim=1)[:, :, None])[:, :, 0]
                best = near == near.max(1, keepdim=True).values
                right.append(best[:, 0].double() / best.sum(1))
            return torch.cat(right) if right else torch.empty(0, dtype=torch.float64)

        return judge

    def _line_up(self, seat: Seat, place: int) -> list[int]:
        """The caption of the example at `place`, and others."""
        own, unseen = int(self._reference[place]), self._unseen[seat]
        others = unseen[unseen != own]
        return [own, *others[_chosen(len(others), self.candidates - 1, place)].tolist()]


def _chosen(count: int, num: int, seed: int) -> list[int]:
    """`num` of the numbers 0 to `count` - 1, any set of them as likely, by a seed: Floyd's method (Bentley, "A sample
    of brilliance", Communications of the ACM 1987)."""
    chosen: list[int] = []
    for last, number in zip(range(count - num, count), sample_seeds(seed, np.arange(num), "line-up"), strict=True):
        other = int(number) % (last + 1)
        chosen.append(last if other in chosen else other)
    return chosen


# Attributes


class AttributeJudges:
    """Makes judges of which value of an attribute an image shows.

    Args:
        seats: what each judge sees and judges.
        train: the value of each training example; None where nothing is known, and nothing is learned.
        reference: the same of the examples of the reference; None where nothing is judged.
    """

    def __init__(self, seats: Sequence[Seat], train: Sequence[str | None], reference: Sequence[str | None]) -> None:
        names = sorted({*train, *reference} - {None}, key=str)
        number = {None: -1} | {name: k for k, name in enumerate(names)}
        self._train, self._reference = (np.array([number[v] for v in values]) for values in (train, reference))
        self._names = len(names)
        self.seats = [
            dataclasses.replace(
                seat, learns=seat.learns[self._train[seat.learns] >= 0], judges=seat.judges & (self._reference >= 0)
            )
            for seat in seats
        ]

    @property
    def known(self) -> list[list[int]]:
        """The value of each example by its number, -1 for none: of the training part, and of the reference."""
        return [self._train.tolist(), self._reference.tolist()]

    def possible(self, asked: Places) -> bool:
        """Whether there is something to learn of and to judge."""
        learned = all(len(np.unique(self._train[seat.learns])) >= 2 for seat in self.seats)
        return learned and bool((self._reference[asked] >= 0).any())

    def chance(self, asked: Places) -> float:
        """The share of the most frequent value in what was asked for, where it is known."""
        values = self._reference[asked]
        return float(np.bincount(values[values >= 0]).max() / (values >= 0).sum())

    def judge(self, seat: Seat, features: Tensor) -> Judge:
        """The judge of one of `seats`, by the features of all training examples."""
        targets = F.one_hot(torch.from_numpy(self._train[seat.learns]), self._names)
        ridge = fitted(features[seat.learns], targets)
        return lambda images, places: (
            (ridge(images) + ridge.mean).argmax(1) == torch.from_numpy(self._reference[places])
        ).double()
