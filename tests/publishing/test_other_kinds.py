"""A model of a kind of data that the package doesn't know, published as ours are: points (tests/stranger)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Finished, run
from loopback_hub import LoopbackHub, enter, entered
from points_package import install
from stock_python import link_packages, run_stock_python

from logsnr.tasks.load import load

POINTS = "ada/points"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("points")
    few = ("--train.num-steps", "20", "--train.tracker", "none", "--train.held-out-every", "10")
    end = run(path / "log.txt", "train", "points", *few, "--out", path / "run", before=install)
    assert end.status == 0, end.output
    return path / "run"


@pytest.fixture
def logsnr(hub: LoopbackHub, tmp_path: Path) -> Callable[..., Finished]:
    before = functools.partial(_enter, hub.environment(tmp_path / "home"))
    return lambda *argv: run(tmp_path / "log.txt", *argv, before=before)


def _enter(variables: dict[str, str]) -> None:
    enter(variables)
    install()


def code_of(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_every_file_has_a_reason(trained: Path, logsnr: Callable[..., Finished]) -> None:
    end = logsnr("publish", trained, POINTS, "--dry-run")
    assert end.status == 0, end.output
    rows = re.findall(r"^  (\S+) +[\d.]+ k?M?B  (\S.*)$", end.output, re.MULTILINE)
    reasons = {re.sub(r"_[0-9a-f]{8}\.py$", ".py", path): reason for path, reason in rows}
    assert reasons["points_model.py"] == "code for trust_remote_code: the pipeline"
    assert reasons["network/points_model.py"] == "code for trust_remote_code: the network"
    assert reasons["scheduler/scheduling_beta.py"] == "code for trust_remote_code: the schedule"
    assert reasons["network/config.json"] == "the network's architecture"
    assert reasons["network/diffusion_pytorch_model.safetensors"] == "the weights"
    assert "Branch stock" not in end.output


def test_its_card_is_of_points_and_its_code_runs(
    trained: Path, installed: None, hub: LoopbackHub, logsnr: Callable[..., Finished], tmp_path: Path
) -> None:
    end = logsnr("publish", trained, POINTS, "--license", "mit")
    assert end.status == 0, end.output
    card = hub.repo(POINTS).files()["README.md"].decode()
    head, _, text = card.partition("# points\n")
    assert "A diffusion model that draws points, each of 2 numbers. It is a `PointsMLP` with" in text
    assert "There is no such form: diffusers has no pipeline for this network." in text
    assert "Points of the author's: 3600 training and 400 held-out points" in text
    assert "logsnr train points --out runs/points" in text
    assert "pipeline_tag" not in head
    for word in ("image.png", "pixel", "Pixel", "DDPMPipeline", "swap_scheduler", "an image", "images "):
        assert word not in text, word
    stock, own = code_of(card)
    site = link_packages(tmp_path, "torch", "diffusers")
    there = run_stock_python(
        site, f"{stock}\nprint(samples.shape)", cwd=tmp_path, variables=hub.environment(tmp_path / "reader")
    )
    assert "torch.Size([4, 2])" in there
    names: dict[str, Any] = {}
    with entered(hub.environment(tmp_path / "here")):
        exec(compile(own, "card", "exec"), names)
    assert names["samples"].shape == (4, 2)


def test_only_what_makes_the_model_comes_from_the_hub(
    trained: Path, installed: None, hub: LoopbackHub, logsnr: Callable[..., Finished], tmp_path: Path
) -> None:
    assert logsnr("publish", trained, POINTS).status == 0
    before = len(hub.asked("GET", "/resolve/"))
    with entered(hub.environment(tmp_path / "here")):
        assert type(load(POINTS)).__name__ == "PointsPipeline"
    asked = hub.asked("GET", "/resolve/")[before:]
    assert {request.path.split("/resolve/")[1].partition("/")[2] for request in asked} == {
        *("model_index.json", "scheduler/scheduler_config.json"),
        *("network/config.json", "network/diffusion_pytorch_model.safetensors"),
    }


def test_a_model_of_another_kind_takes_its_place_whole(
    trained: Path, hub: LoopbackHub, logsnr: Callable[..., Finished], tiny: list[str], tmp_path: Path
) -> None:
    assert logsnr("train", *tiny, "--out", tmp_path / "images").status == 0
    repo = hub.repo
    for run_folder, mine, others in ((trained, "network/", "unet/"), (tmp_path / "images", "unet/", "network/")):
        end = logsnr("publish", run_folder, POINTS)
        assert end.status == 0, end.output
        files = repo(POINTS).files()
        assert any(path.startswith(mine) for path in files)
        assert not any(path.startswith(others) for path in files)
    assert not any("points_model" in path for path in files)
    assert logsnr("publish", trained, POINTS).status == 0
    assert not any("pixel" in path or path.startswith("unet/") for path in repo(POINTS).files())


def test_the_page_is_refused(trained: Path, hub: LoopbackHub, logsnr: Callable[..., Finished]) -> None:
    message = (
        f"The page shows images or texts, and {trained} is a model of points (PointsPipeline). `logsnr sample "
        f"{trained}` draws"
    )
    assert message in logsnr("publish", trained, POINTS, "--space", "--dry-run").message
    assert message in logsnr("demo", trained, "--port", 47011).message
    assert not hub.repos
