"""The programs in docs/ run, and do what is said of them."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import logsnr
from logsnr.data.seeded import Batch
from logsnr.models.denoiser import original
from logsnr.objectives.targets import squared_error_in_sample

DOCS = Path(__file__).parents[1] / "docs"


def programs(page: str) -> list[str]:
    """The blocks of Python on a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


def lines(program: str) -> int:
    return sum(bool(line.strip()) for line in program.splitlines())


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """What the page's programs have made, one after the other."""
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for program in programs("your_own_network.md")[:-1]:  # the last trains for hours
        exec(program, names)
    return names


def test_a_network_of_the_readers_own_takes_twelve_lines() -> None:
    _, training, sampling, *_ = programs("your_own_network.md")
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


@pytest.mark.parametrize("timestep", [300, 500, 700])
def test_it_learns_each_class_and_none(trained: dict[str, Any], timestep: int) -> None:
    """Of x_0 ~ N(c_k, v I), x_t = a x_0 + s noise, the best x_0' is c_k + a v (x_t - a c_k) / (a^2 v + s^2), and where
    no class is named the mean of these, by how likely each is."""
    schedule, conditional, centres, v = trained["schedule"], trained["conditional"], trained["centres"], 0.25
    labels, t = torch.arange(4000) % 2, torch.full((4000,), timestep)
    x_t = schedule.add_noise(centres[labels] + v**0.5 * torch.randn(4000, 2), torch.randn(4000, 2), t)
    a, variance = (alpha := schedule.alphas_cumprod[timestep]).sqrt(), alpha * v + 1 - alpha
    away = x_t - a * centres[:, None]  # (class, sample, 2)
    best = centres[:, None] + a * v / variance * away
    likely = torch.softmax(-away.square().sum(-1) / (2 * variance), 0)[..., None]
    with torch.no_grad():
        named = original(conditional, x_t, t, {"class_labels": labels})
        unnamed = original(conditional, x_t, t, {})
    assert rms(best[0] - best[1]) > 0.5  # what a network would be wrong by that didn't look at classes, and half of it
    assert rms(named - best[labels, torch.arange(4000)]) < 0.2
    assert rms(unnamed - (likely * best).sum(0)) < 0.2


def test_guidance_moves_away_from_the_other_class(trained: dict[str, Any]) -> None:
    """With the exact denoiser of these classes class 1, about (1, 0), moves to (1.32, 0), and its deviations, 0.46 in
    20 steps, become 0.33 and 0.47."""
    mean, deviation = trained["drawn"].mean(0), trained["drawn"].std(0)
    torch.testing.assert_close(mean, torch.tensor([1.32, 0]), atol=0.2, rtol=0)
    assert 0.1 < deviation[0] < deviation[1] < 0.6


def test_images_from_python_are_made_by_what_is_there() -> None:
    """The program would train for hours: its configuration is made, and each of its calls fits the function's
    arguments."""
    names: dict[str, Any] = {}
    program = programs("your_own_network.md")[-1]
    exec(program.partition("logsnr.train")[0], names)
    assert names["config"].train.num_steps == 20_000
    calls = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)]
    called = {call.func.attr: call for call in calls if isinstance(call.func, ast.Attribute)}
    assert called.keys() >= {"train", "load", "sample", "evaluate"}
    for name in called.keys() & set(logsnr.__all__):
        given = {keyword.arg: keyword.value for keyword in called[name].keywords if keyword.arg is not None}
        inspect.signature(getattr(logsnr, name)).bind(*called[name].args, **given)
