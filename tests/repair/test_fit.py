"""What is said of a fit is what the page says of it."""

from __future__ import annotations

import math
from pathlib import Path

from logsnr.repair.restore import FIT_BAD, FIT_LOW, fit_in_words


def test_a_bad_fit_is_called_one() -> None:
    assert fit_in_words([1.0, 1.1]) == ", fit 1.00, 1.10 (about 1 is right)"
    assert ", fit 1.96: it doesn't explain the file. More --steps" in fit_in_words([1.96])
    assert "below 1 is usual where noise was cut off" in fit_in_words([0.63])
    assert fit_in_words([math.nan]) == ""


def test_the_bounds_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "believe.md").read_text()
    assert f"| {FIT_BAD} and more |" in page
    assert f"| {FIT_LOW} and less |" in page
