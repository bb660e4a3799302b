"""Every kind of data that is installed goes all the way.

It is trained, killed and resumed, drawn, measured, tuned, distilled, published and loaded by stock diffusers.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import Command, Finished
from safetensors.torch import load_file
from stock_python import link_packages, run_stock_python
from tiny_kinds import KINDS, TinyKind

from logsnr.settings.kind import GROUP
from logsnr.settings.registry import known
from logsnr.tasks.load import load
from logsnr.tasks.parts import parts_of_pipeline


def test_every_kind_is_tried() -> None:
    assert set(KINDS) == set(known(GROUP))


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> TinyKind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def data(kind: TinyKind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    kind.make(path)
    return path


@pytest.fixture(scope="module")
def arguments(kind: TinyKind, data: Path) -> list[str]:
    return ["train", kind.preset, *kind.arguments, "--data.source", str(data)]


@pytest.fixture(scope="module")
def run(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    end = Command(path / "log.txt", [*arguments, "--out", str(path / "run")]).wait()
    assert end.status == 0, end.output
    return path / "run"


def weights(run: Path) -> dict[str, torch.Tensor]:
    files = sorted((run / "model").glob("*/*.safetensors"))
    return {f"{path}/{name}": values for path in files for name, values in load_file(path).items()}


def test_it_is_killed_and_resumed_bit_for_bit(
    arguments: list[str], run: Path, tmp_path: Path, started: Callable[..., Command], logsnr: Callable[..., Finished]
) -> None:
    again = tmp_path / "again"
    command = started(*arguments, "--out", again)
    command.wait_until(lambda: (again / "checkpoints" / "step-00000020").exists())
    assert command.kill().status == -signal.SIGKILL
    end = logsnr(*arguments, "--out", again)
    assert end.status == 0, end.output
    assert "Going on from step" in end.output
    one, other = (list(weights(folder).values()) for folder in (run, again))
    assert len(one) == len(other)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_it_is_exported_from_a_checkpoint(run: Path, tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    assert logsnr("export", run, "--out", tmp_path / "exported").status == 0
    one, other = (list(weights(folder).values()) for folder in (run, tmp_path / "exported"))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_it_is_drawn(kind: TinyKind, run: Path, tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    few = ("--steps", "3", "--num", "3")
    assert logsnr("sample", run, *few, "--out", tmp_path / "grid.png").status == 0
    end = logsnr("sample", run, *few, *kind.asks, "--out", tmp_path / "single")
    assert end.status == 0, end.output
    assert len(list((tmp_path / "single").iterdir())) == 3
    assert kind.scheduler in logsnr("sample", run, *few, "--scheduler", kind.scheduler, "--dry-run").output


def test_it_is_measured(kind: TinyKind, run: Path, logsnr: Callable[..., Finished]) -> None:
    few = ("--num", "20", "--steps", "2", "--elbo-images", "4", "--elbo-timesteps", "4")
    end = logsnr("evaluate", run, *few, *(["--attributes", *kind.judges] if kind.judges else []))
    assert end.status == 0, end.output
    figures = json.loads((run / "metrics.json").read_text())
    assert figures["elbo"]["bits_per_dim"]["total"] > 0
    assert list(figures.get("asked", {}).get("attributes", {})) == kind.judges


def test_it_is_tuned(kind: TinyKind, run: Path, tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    if kind.states:
        assert "logsnr tune is for samples of numbers" in logsnr("tune", run, "--out", tmp_path / "tuned").message
        return
    end = logsnr("tune", run, "--steps", "3", "--out", tmp_path / "tuned")
    assert end.status == 0, end.output
    few = ("--scheduler", "few-step", "--steps", "3", "--num", "2")
    assert logsnr("sample", tmp_path / "tuned", *few, "--out", tmp_path / "few.png").status == 0


def test_it_is_distilled(kind: TinyKind, run: Path, tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    if kind.states:
        assert "logsnr distill can't take text" in logsnr("distill", run, "--out", tmp_path / "short").message
        return
    end = logsnr("distill", run, "--train.num-steps", "3", "--objective.steps", "2", "--out", tmp_path / "short")
    assert end.status == 0, end.output
    assert logsnr("sample", tmp_path / "short", "--num", "2", "--out", tmp_path / "two.png").status == 0


def test_it_is_published_and_loaded_by_stock(
    kind: TinyKind, run: Path, tmp_path: Path, logsnr: Callable[..., Finished]
) -> None:
    end = logsnr("publish", run, "ada/tiny", "--stage", tmp_path / "staged")
    assert end.status == 0, end.output
    main = tmp_path / "staged" / "main"
    assert (main / "images" / "samples.png").is_file()
    again = load(main)
    assert type(again) is type(load(run))
    network, before = (parts_of_pipeline(each).network_of(each).state_dict() for each in (again, load(run)))
    assert all(torch.equal(network[name], before[name]) for name in before)
    program = (
        "import sys; from diffusers import DiffusionPipeline as D; print(type(D.from_pretrained(sys.argv[1])).__name__)"
    )
    (tmp_path / "site").mkdir()
    link_packages(tmp_path / "site", "torch", "diffusers", "transformers")
    variables = {"HF_HUB_OFFLINE": "1", "DIFFUSERS_DISABLE_REMOTE_CODE": "1"}
    printed = run_stock_python(tmp_path / "site", program, main, cwd=tmp_path, variables=variables)
    assert kind.stock in printed.split()
