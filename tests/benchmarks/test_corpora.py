"""benchmarks/corpora.py: the documents that it makes, and n-gram models against the formula, one token at a time."""

from __future__ import annotations

import io
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import chi2
from travelling import load_alone

corpora = load_alone(Path(__file__).parents[2] / "benchmarks" / "corpora.py")


def test_brown_is_spelled_in_27_characters(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "brown.tgz", "w:gz") as package:
        for name, text in {"ca01": "\n\n\tThe/at Fulton/np-tl 1/2/cd ``/`` it's/x ''/'' ./.\n", "README": "no"}.items():
            (entry := tarfile.TarInfo(f"package/{name}")).size = len(text)
            package.addfile(entry, io.BytesIO(text.encode()))
    assert corpora.brown(tmp_path / "brown.tgz", tmp_path / "out") == 1
    assert (tmp_path / "out" / "a" / "ca01.txt").read_text() == "the fulton it s"


def test_witten_bell_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.choice(4, 200, p=[0.5, 0.3, 0.2, 0]), rng.choice(4, 50)
    counts: dict[tuple[int, ...], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for order in range(1, corpora.ORDERS + 1):
        for k, token in enumerate(train.tolist()):
            before = [0] * (order - 1) + train.tolist()
            counts[tuple(before[k : k + order - 1])][token] += 1

    def likelihood(token: int, before: tuple[int, ...]) -> float:
        shorter = likelihood(token, before[1:]) if before else 1 / 4
        seen = counts.get(before, {})
        total, different = sum(seen.values()), len(seen)
        return (seen.get(token, 0) + different * shorter) / (total + different) if seen else shorter

    for order, bits in enumerate(corpora.witten_bell(train, test, 4), 1):
        before = [0] * (order - 1) + test.tolist()
        wanted = [likelihood(token, tuple(before[k : k + order - 1])) for k, token in enumerate(test.tolist())]
        assert np.isclose(bits, -np.log2(wanted).mean(), rtol=1e-12)


def test_what_is_drawn_has_the_law_of_the_formula() -> None:
    """Three tokens in a row, by chi-square; of the first order, single ones."""
    rng = np.random.default_rng(1)
    train, states, count = rng.choice(4, 300, p=[0.5, 0.3, 0.2, 0]), 4, 20_000
    models = [corpora.counted(train, order, states) for order in (1, 2, 3)]
    laws: list[np.ndarray] = [np.full(states, 1 / states)]
    for order in (1, 2, 3):
        shorter, counts = laws[-1], np.zeros((states,) * order)
        np.add.at(
            counts, tuple(np.concatenate([np.zeros(order - 1, int), train])[k : k + 300] for k in range(order)), 1
        )
        total, kinds = counts.sum(-1, keepdims=True), (counts > 0).sum(-1, keepdims=True)
        below = np.broadcast_to(shorter, counts.shape)
        laws.append(np.where(total > 0, (counts + kinds * below) / np.maximum(total + kinds, 1), below))
    for order in (1, 3):
        found = corpora.drawn(models[:order], states, count, 3, rng)
        before = tuple(found[:, k] for k in range(3 - order, 2))
        wanted = np.zeros(states)
        for token in range(states):
            wanted[token] = laws[order][(*before, np.full(count, token))].sum()
        seen = np.bincount(found[:, 2], minlength=states)
        assert ((seen - wanted) ** 2 / wanted).sum() < chi2.isf(1e-3, states - 1)


def test_the_share_of_words_and_the_entropy() -> None:
    spelling, known = ["a", "b", " "], frozenset({"ab"})
    rows = np.array([[0, 2, 0, 1, 2, 1, 1, 2, 0], [0, 2, 0, 1, 2, 0, 1, 2, 0]])
    assert corpora.share_of_words(rows, spelling, known)[0] == 3 / 4
    assert np.isclose(corpora.entropy(np.array([[0, 0, 1, 2]])), 1.5)
