"""logsnr.evaluation.passages: the longest run that a sequence shares with training texts, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from logsnr.evaluation import passages
from logsnr.evaluation.passages import Tokens, longest_shared

END = 3


def brute_force(sequence: Tokens, training: Tokens) -> int:
    documents = ["".join(map(str, part)) for part in np.split(training, np.flatnonzero(training == END))]
    text = "|".join(documents).replace(str(END), "")
    whole = "".join(map(str, sequence))
    runs = {whole[a:b] for a in range(len(whole)) for b in range(a + 1, len(whole) + 1)}
    return max((len(run) for run in runs if str(END) not in run and run in text), default=0)


@pytest.mark.parametrize("chunk", [1 << 22, 50])
def test_it_is_brute_force(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    training = rng.choice(4, 300, p=[0.35, 0.35, 0.2, 0.1])
    sequences = rng.choice(4, (20, 12), p=[0.35, 0.35, 0.25, 0.05])
    sequences[0] = training[45:57]  # over the border of two chunks
    found = longest_shared(sequences, training, END)
    assert found[:, 1].tolist() == [brute_force(each, training) for each in sequences]
    text = "".join(map(str, training))
    for row, (begin, size) in zip(sequences, found, strict=True):
        assert "".join(map(str, row[begin : begin + size])) in text


def test_a_copy_is_as_long_as_the_sequence() -> None:
    rng = np.random.default_rng(1)
    training = rng.integers(0, 500, 20_000) + END + 1
    copies = training[:8000].reshape(-1, 100)
    assert longest_shared(copies, training, END)[:, 1].tolist() == [100] * 80
    assert longest_shared(rng.integers(0, 500, (50, 100)) + END + 1, training, END)[:, 1].max() <= 5
    assert longest_shared(np.full((2, 5), END), training, END).tolist() == [[0, 0], [0, 0]]
