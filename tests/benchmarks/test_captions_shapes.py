"""What the table of held-out captions says: how often they are drawn, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from travelling import load_alone

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load_alone(BENCHMARKS / "captions_shapes.py")


@pytest.mark.parametrize(("right", "of"), [(0, 12), (1, 500), (470, 500), (500, 500)])
def test_interval_ends_where_the_share_is_as_far_off_as_chance_goes(measuring: ModuleType, right: int, of: int) -> None:
    for end in measuring.wilson(right, of):
        assert (right / of - end) ** 2 == pytest.approx(1.96**2 * end * (1 - end) / of, abs=1e-12)


def test_true_pictures_are_all_right_and_a_relation_counts_where_one_is_asked_for(measuring: ModuleType) -> None:
    shapes: Any = measuring.shapes
    asked = [*shapes.held_out()[:3], *shapes.held_out()[-5:]]  # of one group, and of two
    generator = np.random.default_rng(0)
    found = shapes.read(shapes.as_tensor([shapes.draw(each, generator)[0] for each in asked]))
    right = measuring.rights(found, asked)
    assert right == {"colour": (8, 8), "shape": (8, 8), "count": (8, 8), "relation": (5, 5)}
    assert measuring.rights(found[:3], asked[:3]).keys() == {"colour", "shape", "count"}
    assert measuring.mean_share(right | {"count": (4, 8)}) == 0.875
    assert "| all | 100.0 (67.6 to 100.0) |" in measuring.markdown([("all", right)])
