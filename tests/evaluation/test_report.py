"""`logsnr evaluate`: what it says, writes, reuses and refuses."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import Command, Finished, run

from logsnr.data.images import open_images
from logsnr.evaluation.memorisation import picture_of_pairs
from logsnr.settings.image import DataConfig
from logsnr.settings.objective import ConsistencyConfig
from logsnr.training.distill import distilled

Run = Callable[..., Finished]
OPTIONS = ("--num", "24", "--steps", "2", "--elbo-images", "6", "--elbo-timesteps", "5")


@pytest.fixture(scope="module")
def trained(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained")
    assert run(path / "log.txt", "train", *tiny, "--data.held-out-fraction", "0.25", "--out", path / "run").status == 0
    return path / "run"


def test_all_figures_come_with_their_protocol_and_a_second_time_they_are_reused(trained: Path, logsnr: Run) -> None:
    end = logsnr("evaluate", trained, *OPTIONS)
    assert end.status == 0, end.output
    metrics = json.loads((trained / "metrics.json").read_text())
    for key in ("kid", "fid", "inception_score", "precision", "recall"):
        low, high = metrics[key]["interval"]
        assert low <= metrics[key]["value"] <= high
        assert metrics[key]["same_n"]["n"] == 15
        assert set(metrics[key]["same_n"]) == {"n", "generated", "real"}
        assert f"\n{key} " in end.output
    assert metrics["fid"]["same_n"]["real"] < metrics["fid"]["same_n"]["generated"]
    classes = metrics["asked"]["classes"]
    assert classes["judge"].endswith("on 10 held-out images; real images are held-out ones")
    assert (classes["drawn"]["num"], classes["real"]["num"], classes["chance"]) == (24, 10, 0.5)
    assert classes["real"]["value"] == 1
    assert re.search(r"^class +24 +\d+\.\d % .* 100\.0 % to 100\.0 %  50\.0 %$", end.output, re.MULTILINE)
    protocol = metrics["protocol"]
    assert protocol["images"] == "24 generated, 30 training images"
    assert protocol["labels"] == "in the proportions of the training images"
    assert protocol["scheduler"] == "DPMSolverMultistepScheduler (sde-dpmsolver++), 2 steps"
    assert protocol["seeds"] == "0 to 23"
    assert protocol["features"].endswith("on 10 held-out images")
    assert len(protocol["features_hash"]) == 16
    assert {"guidance_scale", "resize", "intervals", "model_hash"} <= set(protocol)
    loss = distilled(trained).objective
    assert isinstance(loss, ConsistencyConfig)
    assert loss.base_digest == protocol["model_hash"]  # so that a card's "distilled from" can be found
    assert next(iter(metrics)) == "kid"
    assert "warning: of 24 images, fewer than 10,000, fid is mostly its bias: read kid" in end.output
    assert "inception_score, which depends on n as well. Of fewer than 1,000, intervals are rough" in end.output
    assert metrics["fid"]["interval"][0] >= 0
    assert "warning: figures by the features of this network mean little: it was tested on fewer than 50" in end.output
    assert "Memorisation: 10 are too few held-out images to tell whether it copies. Look yourself" in end.output
    assert "They replace those of before" not in end.output
    elbo = metrics["elbo"]
    terms = elbo["bits_per_dim"]
    assert terms["total"] == pytest.approx(terms["prior"] + terms["kl"] + terms["decoder"])
    assert (elbo["num_images"], elbo["train"]["num_images"], elbo["kl_evaluations"]) == (6, 6, 5)
    assert elbo["gap"] == pytest.approx(terms["total"] - elbo["train"]["bits_per_dim"]["total"])
    assert f"ELBO of 6 held-out images: {terms['total']:.4f} ± " in end.output
    assert "ode" not in metrics
    assert (trained / "evaluation" / "nearest_neighbours.png").is_file()

    knows = elbo["gap"] > 2 * elbo["gap_standard_error"]
    verdict = "the model knows its training images better than others" if knows else "none beyond its error"
    assert f"{verdict}. ± is one standard error." in end.output

    files = {path: path.stat().st_mtime_ns for path in (trained / "evaluation").rglob("*.*") if path.suffix != ".png"}
    assert len(files) >= 3
    again = logsnr("evaluate", trained, *OPTIONS)
    anew = "They replace those of before, which the same options as then bring back at once.\n"
    assert again.output.partition("24 generated")[2] == end.output.partition("24 generated")[2] + anew
    assert json.loads((trained / "metrics.json").read_text()) == metrics
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_held_out_reference_and_the_flow(trained: Path, logsnr: Run) -> None:
    end = logsnr("evaluate", trained, *OPTIONS, "--reference", "held_out", "--ode-images", "2")
    assert end.status == 0
    assert "24 generated, 10 held-out images" in end.output
    assert "Likelihood of 2 held-out images by the probability-flow ODE: " in end.output
    found = json.loads((trained / "metrics.json").read_text())["ode"]
    assert found["num_images"] == 2


def test_dry_run_writes_nothing(trained: Path, logsnr: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    end = logsnr("evaluate", trained, "--dry-run")
    assert end.status == 0
    assert "Would draw 20 images (400 evaluations of the network) with DPMSolverMultistepScheduler" in end.output
    assert "(sde-dpmsolver++) in 20 steps" in end.output
    assert "by the features of classifier" in end.output
    assert "Would judge whether they show what was asked for: class.\n" in end.output
    assert "bounded for 10 held-out and 30 training images, by 50 KL divergences each" in end.output
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num", "3"], "--num must be at least 20, and is 3"),
        (["--elbo-images", "1"], "--elbo-images must be 0 or at least 2, and is 1"),
        (["--attributes", "colour"], "--attributes is colour, but images of this kind have no such columns. Leave it"),
        (["--words", "list"], "--words is list, and is for texts, which aren't what is measured here. Leave it out."),
        (["--features", "vgg"], "--features 'vgg' is unknown. Known: "),
        ([*OPTIONS, "--scheduler", "Eular"], "is no scheduler"),
        (["--steps", "5000"], "--steps must be at most 1000, the length of the model's chain, and is 5000"),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_what_is_refused(options: list[str], message: str, dry: list[str], trained: Path, logsnr: Run) -> None:
    end = logsnr("evaluate", trained, *options, *dry)
    assert end.status == 1
    assert message in end.message


def test_images_that_moved(tiny: list[str], folder: Path, tmp_path: Path, logsnr: Run) -> None:
    shutil.copytree(folder, tmp_path / "images")
    assert logsnr("train", *tiny, "--data.source", "images", "--out", "run").status == 0
    (tmp_path / "images").rename(tmp_path / "moved")
    for command in (("evaluate", "run"), ("inspect", "run", "run")):
        assert "there is no such file or folder (a relative path is relative" in logsnr(*command, "--dry-run").message
        assert "--source PATH" in logsnr(*command, "--source", "nowhere", "--dry-run").message
        end = logsnr(*command, "--source", "moved", "--dry-run")
        assert end.status == 0, end.output
    (tmp_path / "moved" / "dark" / "00.png").unlink()
    assert "was trained on other data" in logsnr("evaluate", "run", "--source", "moved").message


def test_interrupted(trained: Path, started: Callable[..., Command]) -> None:
    running = started("evaluate", trained, "--num", "100000", "--seed", "5", "--steps", "20")
    kept = set((trained / "evaluation").glob("samples-*/*"))
    running.wait_until(lambda: bool(set((trained / "evaluation").glob("samples-*/*.safetensors")) - kept))
    running.send(signal.SIGINT)
    end = running.wait()
    assert end.status == 130
    assert "Interrupted. What is finished is kept; the same command goes on.\n" in end.output
    assert "Traceback" not in end.output


def test_pairs_are_drawn_with_their_distances(folder: Path) -> None:
    data = open_images(DataConfig(source=str(folder), resolution=8))
    figure = picture_of_pairs([(0.125, 1, 3), (0.5, 0, 2)], torch.rand(2, 1, 8, 8), data)
    assert figure.get_suptitle().startswith("generated | nearest training image")
    words = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert words == [["0.125"], ["0.5"], [], [], []]
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 0, 0, 0]


def test_folders_that_cannot_be_evaluated(trained: Path, tmp_path: Path, logsnr: Run) -> None:
    assert "is no run folder: there is no config.json" in logsnr("evaluate", tmp_path).message
    assert f"use the folder above, {trained}." in logsnr("evaluate", trained / "model").message
    record = json.loads((trained / "config.json").read_text())
    record["data"]["fingerprint"] = "0"
    other = tmp_path / "other"
    other.mkdir()
    (other / "model").symlink_to(trained / "model")
    (other / "config.json").write_text(json.dumps(record))
    assert "was trained on other data: then 30 training and 10 held-out images" in logsnr("evaluate", other).message
