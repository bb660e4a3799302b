"""logsnr.data.seeded with examples that it has never heard of: phrases of three tokens, said by somebody."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logsnr.base.errors import DataError
from logsnr.base.seeds import sample_seeds
from logsnr.data.seeded import Batch, Example, SeededData

ROWS, N = torch.zeros(3, 2), torch.arange(3)


@dataclass
class Phrases:
    """Phrase k is (k, 1000, 2000), with a seed (k, seed's last two digits, 2000); speaker k mod 3 says it."""

    noun: ClassVar[str] = "phrase"
    fingerprint: ClassVar[str] = "12ab"
    summary: ClassVar[str] = "3 tokens each"

    count: int
    lost: set[int] = field(default_factory=set)
    with_speaker: bool = True

    def __len__(self) -> int:
        return self.count

    def read(self, index: int, seed: int | None) -> Example:
        if index in self.lost:
            raise DataError(f"phrase {index} is lost")
        middle = 1000 if seed is None else seed % 100
        return Example(np.array([index, middle, 2000]), self.condition(index))

    def condition(self, index: int) -> Mapping[str, Any]:
        return {"speaker": index % 3, "pitch": np.float32([index, 0.5])} if self.with_speaker else {}


def same(a: Batch, b: Batch) -> bool:
    conditions = a.condition.keys() == b.condition.keys() and all(
        torch.equal(a.condition[k], b.condition[k]) for k in a.condition
    )
    return torch.equal(a.clean, b.clean) and torch.equal(a.positions, b.positions) and conditions


def test_a_batch_is_what_the_examples_say() -> None:
    data = SeededData(Phrases(21), 0)
    batch = next(data.batches(seed=5, batch_size=8, start_step=0, num_steps=1))
    indices = batch.clean[:, 0]
    assert batch.clean.dtype == torch.int64
    assert torch.equal(batch.clean[:, 2], torch.full((8,), 2000))
    assert torch.equal(batch.condition["speaker"], indices % 3)
    assert torch.equal(batch.condition["pitch"], torch.stack([indices.float(), torch.full((8,), 0.5)], 1))
    assert batch.positions.tolist() == list(range(8))
    # Pinned, the name too: another stream would change every run that augments.
    assert batch.clean[:, 1].tolist() == (sample_seeds(5, np.arange(8), "flip") % 100).tolist()
    assert next(SeededData(Phrases(5, with_speaker=False), 0).in_order("train", 5)).condition == {}


def test_what_is_said_of_the_set() -> None:
    data = SeededData(Phrases(21), 0.05)
    assert data.description == "19 training and 2 held-out phrases, 3 tokens each"
    assert SeededData(Phrases(21), 0.1).description == "19 training and 2 held-out phrases, 3 tokens each"
    assert data.examples.count == 21


def test_the_fingerprint_follows_the_examples_and_the_split() -> None:
    class Others(Phrases):
        fingerprint: ClassVar[str] = "34cd"

    def fingerprint(examples: Phrases, share: float = 0.2, classes: list[int] | None = None) -> str:
        return SeededData(examples, share, classes=None if classes is None else np.array(classes)).fingerprint

    found = fingerprint(Phrases(20))
    assert fingerprint(Phrases(20), 0.21) == found  # 4 of 20 too
    others = {
        fingerprint(Others(20)),
        fingerprint(Phrases(20), 0.3),
        fingerprint(Phrases(20), classes=[0, 1, 2, 3] * 5),
    }
    assert found not in others
    assert len(others) == 3


def test_each_example_is_in_one_part_and_the_parts_are_the_same_for_every_run() -> None:
    data = SeededData(Phrases(21), 0.2)
    train, held_out = (torch.cat([b.clean[:, 0] for b in data.in_order(part, 5)]) for part in ("train", "held_out"))
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(21))
    assert held_out.tolist() == [7, 8, 12, 15]  # pinned: which are held out must never change
    assert train.tolist() == sorted(train.tolist())
    assert [c["speaker"] for c in data.conditions("train")] == [k % 3 for k in train.tolist()]
    assert (len(data), data.num_held_out) == (17, 4)
    assert SeededData(Phrases(21), 0).num_held_out == 0
    assert list(SeededData(Phrases(21), 0).in_order("held_out", 3)) == []
    assert len(SeededData(Phrases(21), 0.999)) == 1
    assert SeededData(Phrases(21), 0.001).num_held_out == 2
    assert SeededData(Phrases(9), 0.001).num_held_out == 1


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.floats(0.01, 0.5))
def test_each_class_is_split_like_the_whole_and_keeps_one_to_train_on(classes: list[int], fraction: float) -> None:
    labels = np.unique(classes, return_inverse=True)[1]
    plain, data = (SeededData(Phrases(len(labels)), fraction, classes=given) for given in (None, labels))
    sizes = np.bincount(labels)
    train = np.concatenate([b.clean[:, 0].numpy() for b in data.in_order("train", 99)])
    held_out = sizes - np.bincount(labels[train])
    assert np.all(held_out < sizes)
    assert data.num_held_out == min(plain.num_held_out, len(labels) - len(sizes))
    if np.all(held_out < sizes - 1):  # then nothing had to be spared
        assert np.all(np.abs(held_out - sizes * data.num_held_out / len(labels)) < 1)


def test_which_of_equal_classes_is_held_out_is_chance() -> None:
    held_out = SeededData(Phrases(200), 0.05, classes=np.arange(200) // 2).conditions("held_out")
    pitches = np.array([condition["pitch"][0] for condition in held_out])
    assert len(pitches) == 10
    assert len({int(pitch) // 2 for pitch in pitches}) == 10
    assert {int(pitch) % 2 for pitch in pitches} == {0, 1}
    assert pitches.max() > 100 > pitches.min()


def parts(data: SeededData[Phrases]) -> tuple[np.ndarray, np.ndarray]:
    train, held_out = ([b.clean[:, 0].numpy() for b in data.in_order(part, 99)] for part in ("train", "held_out"))
    return np.concatenate(train), np.concatenate([np.empty(0, np.int64), *held_out])


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60), st.floats(0, 0.5))
def test_a_group_is_held_out_as_a_whole_and_one_is_trained_on(groups: list[int], fraction: float) -> None:
    of = np.array(groups)
    data = SeededData(Phrases(len(of)), fraction, groups=of)
    train, held_out = parts(data)
    assert not set(of[train]) & set(of[held_out])
    assert len(train) > 0
    assert sorted([*train, *held_out]) == list(range(len(of)))
    assert np.array_equal(parts(SeededData(Phrases(len(of)), fraction, groups=1000 - 7 * of))[1], held_out)

    wanted = SeededData(Phrases(len(of)), fraction).num_held_out
    sizes = Counter(of[train].tolist()).values()
    if len(sizes) > 1:  # then no further group would bring their number nearer
        assert min(abs(len(held_out) + size - wanted) for size in sizes) >= abs(len(held_out) - wanted)
    assert len(held_out) <= 2 * wanted


@given(st.integers(2, 60), st.floats(0, 1), st.randoms())
def test_groups_of_one_change_nothing(count: int, fraction: float, random: Any) -> None:
    groups = random.sample(range(-1000, 1000), count)
    plain, data = (SeededData(Phrases(count), fraction, groups=given) for given in (None, np.array(groups)))
    assert plain.fingerprint == data.fingerprint


def test_large_groups_are_not_held_out_sooner_than_small_ones() -> None:
    """Half of the examples are in groups of five, so half of those held out should be."""
    groups = np.concatenate([np.arange(200) // 5, np.arange(200, 400)])
    shares = []
    for shift in range(40):  # another 40 groups of five each time
        held_out = parts(SeededData(Phrases(400), 0.1, groups=np.roll(groups, 5 * shift)))[1]
        assert len(held_out) == 40
        shares.append((np.roll(groups, 5 * shift)[held_out] < 40).mean())
    assert abs(np.mean(shares) - 0.5) < 0.1


def test_in_order_nothing_is_augmented_and_a_limit_takes_the_same_few() -> None:
    data = SeededData(Phrases(30), 0)
    batches = list(data.in_order("train", 8))
    assert [len(b.clean) for b in batches] == [8, 8, 8, 6]
    assert torch.equal(torch.cat([b.positions for b in batches]), torch.arange(30))
    assert all((b.clean[:, 1] == 1000).all() for b in batches)
    few = torch.cat([b.positions for b in data.in_order("train", 4, limit=10)])
    assert len(few) == 10
    assert few.tolist() == sorted(set(few.tolist())) != list(range(10))
    assert torch.equal(few, torch.cat([b.clean[:, 0] for b in data.in_order("train", 3, limit=10)]))
    assert len(torch.cat([b.positions for b in data.in_order("train", 4, limit=99)])) == 30


def test_each_epoch_shows_each_example_once() -> None:
    data = SeededData(Phrases(21), 0)
    shown = torch.cat([b.clean[:, 0] for b in data.batches(seed=3, batch_size=6, start_step=0, num_steps=7)]).tolist()
    first, second = shown[:21], shown[21:]
    assert sorted(first) == sorted(second) == list(range(21))
    assert first != second
    other = next(data.batches(seed=4, batch_size=21, start_step=0, num_steps=1)).clean[:, 0].tolist()
    assert other != first
    large = next(data.batches(seed=3, batch_size=50, start_step=0, num_steps=1))  # a batch of several epochs
    assert large.clean[:42, 0].tolist() == shown
    assert max(Counter(large.clean[:, 0].tolist()).values()) == 3


@pytest.mark.parametrize("accumulation", [1, 3])
def test_resuming_gives_the_same_batches(accumulation: int) -> None:
    data = SeededData(Phrases(21), 0.05)
    settings = {"seed": 1, "batch_size": 4, "accumulation_steps": accumulation}
    whole = list(data.batches(**settings, start_step=0, num_steps=12))
    rest = list(data.batches(**settings, start_step=5, num_steps=7))
    assert len(whole) == 12 * accumulation
    assert all(same(a, b) for a, b in zip(whole[5 * accumulation :], rest, strict=True))
    far = next(data.batches(**settings, start_step=10**9, num_steps=1))
    assert far.positions[0] == 10**9 * accumulation * 4


def test_two_processes_see_what_one_sees() -> None:
    data = SeededData(Phrases(21), 0.05)
    one = list(data.batches(seed=1, batch_size=6, start_step=0, num_steps=9))
    parts = [
        list(data.batches(seed=1, batch_size=3, start_step=0, num_steps=9, process_index=r, num_processes=2))
        for r in range(2)
    ]
    for whole, left, right in zip(one, *parts, strict=True):
        keywords = whole.condition.keys()
        condition = {k: torch.cat([left.condition[k], right.condition[k]]) for k in keywords}
        clean, positions = torch.cat([left.clean, right.clean]), torch.cat([left.positions, right.positions])
        assert same(whole, Batch(clean, condition, positions))


def test_workers_change_nothing_and_leave_the_global_stream_alone() -> None:
    settings = {"seed": 2, "batch_size": 5, "start_step": 3, "num_steps": 6, "accumulation_steps": 2}
    here, there = SeededData(Phrases(21), 0.1), SeededData(Phrases(21), 0.1, num_workers=2)
    torch.manual_seed(0)
    pairs = list(zip(here.batches(**settings), there.batches(**settings), strict=True))
    assert len(pairs) == 12
    assert all(same(a, b) for a, b in pairs)
    assert all(same(a, b) for a, b in zip(here.in_order("train", 4), there.in_order("train", 4), strict=True))
    assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(0))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_example_that_cannot_be_read_stops_with_its_own_words(workers: int) -> None:
    data = SeededData(Phrases(21, lost={7}), 0, num_workers=workers)
    with pytest.raises(DataError, match=r"^phrase 7 is lost$"):
        list(data.batches(seed=0, batch_size=4, start_step=0, num_steps=9))


@pytest.mark.parametrize(
    ("clean", "condition", "positions", "message"),
    [
        (np.zeros((3, 2)), {}, N, r"clean must be a tensor, and is a ndarray"),
        (ROWS, {"class_labels": [0, 1, 2]}, N, r"condition\['class_labels'\] must be a tensor, and is a list"),
        (ROWS, {}, range(3), r"positions must be a tensor, and is a range"),
        (ROWS, None, N, r"condition must be a mapping from keywords to tensors, and is None. Write \{\} for none"),
        (torch.zeros(3), {}, N, r"clean must be \(batch, channels, \.\.\.\), and is \(3,\)"),
        (ROWS, {}, N[:2], r"positions must have an entry for each of the 3 samples in clean, and is \(2,\)"),
        (ROWS, {"class_labels": N[:2]}, N, r"condition\['class_labels'\] must have an entry for each of the 3"),
        (ROWS, {}, torch.zeros(3), r"positions must be int64, \(batch,\), on the CPU, and is torch.float32"),
    ],
)
def test_a_batch_is_tensors_of_one_length(clean: Any, condition: Any, positions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batch(clean, condition, positions)
