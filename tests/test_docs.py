"""The programs in docs/ run, and do what is said of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from logsnr.data.seeded import Batch
from logsnr.objectives.targets import squared_error_in_sample

DOCS = Path(__file__).parents[1] / "docs"


def programs(page: str) -> list[str]:
    """The blocks of Python on a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def lines(program: str) -> int:
    return sum(bool(line.strip()) for line in program.splitlines())


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """What the page's programs have made, one after the other."""
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for program in programs("your_own_network.md"):
        exec(program, names)
    return names


def test_a_network_of_the_readers_own_takes_twelve_lines() -> None:
    _, training, sampling = programs("your_own_network.md")
    assert lines(training) <= 12
    assert lines(sampling) <= 6


def test_it_learns_all_that_can_be_learned(trained: dict[str, Any]) -> None:
    """Of x_0 ~ N(m, I) the best x_0' is the posterior mean, whose error is the posterior's variance, 1 - alpha_bar."""
    schedule, objective = trained["schedule"], trained["objective"]
    log_snr = schedule.log_snr(torch.arange(len(schedule))).double()
    factor = objective.weights / squared_error_in_sample("v_prediction", log_snr)
    best = float((factor * torch.sigmoid(-log_snr)).mean())
    mean_alone = float(factor.mean())  # x_0' = m, whatever x_t is: an error of 1
    n = torch.arange(10**6, 10**6 + 20_000)
    with torch.no_grad():
        loss = float(objective.loss(trained["denoiser"], Batch(0.5 + torch.randn(len(n), 2), {}, n)))
    assert mean_alone > 5 * best
    assert best * 0.97 < loss < best * 1.1


def test_it_samples_what_it_was_trained_on(trained: dict[str, Any]) -> None:
    sample = trained["sample"]
    torch.testing.assert_close(sample.mean(0), torch.full((2,), 0.5), atol=0.2, rtol=0)
    torch.testing.assert_close(sample.std(0), torch.ones(2), atol=0.15, rtol=0)
    assert abs(float(torch.corrcoef(sample.T)[0, 1])) < 0.15
