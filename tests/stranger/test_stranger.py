"""A kind of data of another package goes all the way by the ordinary commands, with nothing in src/ naming it.

Points in the plane, a small network of diffusers' ModelMixin and one condition (`points.py`, `points_model.py`, and the
entry points beside them) are trained, killed and resumed, sampled, measured against the exact bound, published, loaded.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command, Finished, run
from points_package import PACKAGE, install
from safetensors.torch import load_file
from stock_python import link_packages, run_stock_python


@pytest.fixture
def logsnr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    monkeypatch.chdir(tmp_path)
    return lambda *argv: run(tmp_path / "log.txt", *argv, before=install)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("points")
    end = run(path / "log.txt", "train", "points", "--out", path / "run", "--train.tracker", "none", before=install)
    assert end.status == 0, end.output
    assert "3600 training and 400 held-out points" in end.output
    return path / "run"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "network" / "diffusion_pytorch_model.safetensors")


def test_the_stranger_is_small_and_nobody_knows_it() -> None:
    lines = [path.read_text().splitlines() for path in [*PACKAGE.glob("*.py"), *PACKAGE.glob("*/entry_points.txt")]]
    assert sum(map(len, lines)) <= 150
    root = PACKAGE.parents[2]
    sources = [p for room in ("src", "schedulers", "pipelines", "space") for p in (root / room).rglob("*.py")]
    assert not [path for path in sources if re.search(r"PointsMLP|PointsPipeline|\bpoints_model\b", path.read_text())]


def test_the_rooms_below_name_no_kind_of_data() -> None:
    package = PACKAGE.parents[2] / "src" / "logsnr"
    rooms = ("training", "sampling", "objectives", "folders", "base")
    texts = [path for room in rooms for path in (package / room).rglob("*.py")]
    assert texts
    assert not [path for path in texts if re.search("ImageData|class_labels|UNet2DModel", path.read_text())]


def test_it_is_killed_and_resumed_bit_for_bit(tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    short = ("train", "points", "--train.num-steps", "60", "--train.checkpoint-every", "10", "--train.tracker", "none")
    assert logsnr(*short, "--out", tmp_path / "whole").status == 0
    killed = Command(tmp_path / "killed.txt", [*short, "--out", str(tmp_path / "killed")], install)
    killed.wait_until(lambda: (tmp_path / "killed" / "checkpoints" / "step-00000020").exists())
    assert killed.kill().status == -signal.SIGKILL
    end = logsnr(*short, "--out", tmp_path / "killed")
    assert end.status == 0, end.output
    assert "Going on from step" in end.output
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_is_sampled(trained: Path, tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    out = tmp_path / "drawn"
    dry = logsnr("sample", trained, "--dry-run")
    assert "Would make 64 points of seeds from 0" in dry.output
    end = logsnr("sample", trained, "--num", "200", "--class-labels", "1", "--guidance-scale", "1", "--out", out)
    assert end.status == 0, end.output
    drawn = np.stack([np.load(path) for path in sorted(out.glob("*.npy"))])
    assert drawn.shape == (200, 2)
    assert np.abs(drawn.mean(0) - [0.7, -0.3]).max() < 0.06
    assert np.abs(drawn.std(0) - 0.15).max() < 0.05
    assert logsnr("sample", trained, "--out", tmp_path / "grid.png").status == 0


def test_it_is_tuned_for_few_steps(trained: Path, tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    end = logsnr("tune", trained, "--steps", "4", "--out", tmp_path / "tuned")
    assert end.status == 0, end.output
    rmse = json.loads((tmp_path / "tuned" / "scheduler_few_step" / "curve.json").read_text())["rmse"]["4"]
    tuned, others = rmse.pop("few-step, tuned"), list(rmse.values())
    assert len(others) == 4
    assert all(max(tuned) < 0.5 * min(other) for other in others)
    few = ("--scheduler", "few-step", "--steps", "4", "--num", "2", "--out", tmp_path / "drawn")
    assert logsnr("sample", tmp_path / "tuned", *few).status == 0
    assert logsnr("sample", trained, "--scheduler", "DDIM", "--out", tmp_path / "ddim").status == 0
    wrong = logsnr("sample", trained, "--scheduler", "EDMEuler", "--out", tmp_path / "edm")
    assert "another noise schedule" in wrong.message
    assert "can't begin from another model" in logsnr("distill", trained, "--out", tmp_path / "short").message


def test_its_bound_is_the_exact_one(trained: Path, installed: None, logsnr: Callable[..., Finished]) -> None:
    """That of the posterior mean in closed form, in the place of the network, on the same points and noise."""
    import points

    from logsnr.evaluation.likelihood import elbo
    from logsnr.evaluation.subject import open_subject
    from logsnr.models.denoiser import Denoiser

    dry = logsnr("evaluate", trained, "--dry-run")
    assert dry.status == 0, dry.output
    assert "for 250 held-out and 250 training points" in dry.output
    end = logsnr("evaluate", trained, "--elbo-timesteps", "99")
    assert end.status == 0, end.output
    found = json.loads((trained / "metrics.json").read_text())["elbo"]["bits_per_dim"]
    subject = open_subject(trained)
    bar = subject.schedule.alphas_cumprod.double()

    class Exact(torch.nn.Module):
        def forward(self, sample: Any, timestep: Any, component: Any, return_dict: bool) -> Any:
            a, s = (c.view(-1, 1) for c in (bar[timestep].sqrt(), (1 - bar[timestep]).sqrt()))
            mean = torch.from_numpy(points.MEANS)[component]
            x_0 = mean + a * points.STD**2 / (a**2 * points.STD**2 + s**2) * (sample - a * mean)
            eps = (sample - a * x_0) / s
            return (
                {"epsilon": eps, "sample": x_0, "v_prediction": a * eps - s * x_0}[subject.schedule.prediction_type],
            )

    denoiser = Denoiser(Exact(), subject.schedule, subject.denoiser.conditioner)
    exact = elbo(denoiser, subject.data.in_order("held_out", 64, 250), num_images=250, bits=None, timesteps=99)
    assert found["prior"] == pytest.approx(exact.bits_per_dim.prior, abs=1e-6)
    assert exact.bits_per_dim.total - 0.02 < found["total"] < exact.bits_per_dim.total + 0.1


def test_it_is_published_and_loaded_where_logsnr_is_not_installed(
    trained: Path, installed: None, tmp_path: Path, logsnr: Callable[..., Finished]
) -> None:
    end = logsnr("publish", trained, "ada/points", "--stage", tmp_path / "staged")
    assert end.status == 0, end.output
    main = tmp_path / "staged" / "main"
    assert (main / "images" / "samples.png").is_file()
    for model in (trained / "model", main):
        program = """
import sys
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
(points,) = pipe(batch_size=3, component=[0, 1, 2], num_inference_steps=10, generator=5)
print(points.flatten().tolist())
"""
        site = tmp_path / "site"
        site.mkdir(exist_ok=True)
        link_packages(site, "torch", "diffusers")
        printed = run_stock_python(site, program, model, cwd=tmp_path, variables={"HF_HUB_OFFLINE": "1"})
        there = json.loads(next(line for line in printed.splitlines() if line.startswith("[")))
        import logsnr as package

        pipe = package.load(model)
        assert type(pipe).__name__ == "PointsPipeline"
        (here,) = pipe(batch_size=3, component=[0, 1, 2], num_inference_steps=10, generator=5)
        np.testing.assert_allclose(here.flatten().tolist(), there, rtol=1e-5, atol=1e-6)
