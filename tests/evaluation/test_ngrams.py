"""logsnr.evaluation.ngrams: entropy and variety of sequences."""

from __future__ import annotations

import pytest
import torch

from logsnr.evaluation.ngrams import counted, distinct, unigram_entropy

END = 9


def test_ends_that_fill_up_do_not_count() -> None:
    sequences = torch.tensor([[1, END, END, END], [END, 1, 2, END]])
    assert counted(sequences, END).tolist() == [[True, True, False, False], [True] * 4]


def test_entropy_of_the_tokens() -> None:
    assert unigram_entropy(torch.arange(8).reshape(2, 4), END) == pytest.approx(3)
    assert unigram_entropy(torch.tensor([[0, 0, 1, 2]]), END) == pytest.approx(1.5)
    assert unigram_entropy(torch.tensor([[0, END, END, END]]), END) == pytest.approx(1)


def test_share_of_different_ngrams() -> None:
    sequences = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]])
    assert [distinct(sequences, END, order) for order in (1, 2, 3, 4)] == [2 / 8, 2 / 6, 2 / 4, 1]
    assert distinct(torch.tensor([[0, END, END, END]]), END, 2) == 1  # 0 and an end, the only one
