"""benchmarks/corpora.py: the documents that it makes, and n-gram models against the formula, one token at a time."""

from __future__ import annotations

import io
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
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
