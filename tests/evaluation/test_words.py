"""logsnr.evaluation.words and ratio: which words count, and the error of a share."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from logsnr.base.errors import DataError
from logsnr.evaluation.ratio import ratio
from logsnr.evaluation.words import count_words, read_words, words


def test_a_word_is_a_run_of_letters() -> None:
    assert words("The 3 cats' naïve_plan\n\nDOGS░cow") == ["the", "cats", "naïve", "plan", "dogs", "cow"]


def test_the_first_and_the_last_may_be_cut() -> None:
    known = frozenset({"the", "cat", "sat"})
    there, count = count_words(["the cat sot sat on", "the", "", "the cat", "xx The xx"], known)
    assert there.tolist() == [2, 0, 0, 0, 1]
    assert count.tolist() == [3, 0, 0, 0, 1]


def test_a_list_is_any_text(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_text("Ant\nbee\ndon't\n")
    assert read_words(path) == {"ant", "bee", "don", "t"}
    path.write_text("1 2 3")
    with pytest.raises(DataError, match=r"words is .*words, and there isn't one in it"):
        read_words(path)
    with pytest.raises(DataError, match=r"words is .*none, and there is no such file"):
        read_words(tmp_path / "none")


def test_the_error_of_a_share() -> None:
    """Of equal counts it is that of a mean; of others, the spread of the share in many draws."""
    values = torch.tensor([1.0, 2, 4, 5])
    assert ratio(values, torch.full((4,), 2)) == pytest.approx((1.5, float(values.std()) / 4))
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(5, 30, (400, 200), generator=generator)
    chances = torch.rand(400, 200, generator=generator)  # sequences differ
    there = torch.binomial(counts.double(), chances.double(), generator=generator)
    shares, errors = zip(*(ratio(v, n) for v, n in zip(there, counts, strict=True)), strict=True)
    assert math.isclose(torch.tensor(errors).mean(), torch.tensor(shares).std(), rel_tol=0.15)
