"""`logsnr evaluate RUN --restore`: what it says, writes, reuses and refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Finished, run
from PIL import Image

from logsnr.data.images import ImageData, open_images
from logsnr.evaluation.repaired import Case, damaged, kept
from logsnr.settings.damage import read_damage
from logsnr.settings.image import DataConfig
from logsnr.settings.options import EvaluateOptions

Run = Callable[..., Finished]
DAMAGE = "missing 0.5 + noise 0.05"
OPTIONS = ("--restore-images", "4", "--restore-draws", "3", "--restore-steps", "2")


@pytest.fixture(scope="module")
def trained(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained")
    assert run(path / "log.txt", "train", *tiny, "--data.held-out-fraction", "0.25", "--out", path / "run").status == 0
    return path / "run"


@pytest.fixture
def data(folder: Path) -> ImageData:
    return open_images(DataConfig(source=str(folder), resolution=8, held_out_fraction=0.25))


def figures(trained: Path) -> Any:
    return json.loads((trained / "metrics.json").read_text())


def test_figures_of_repair_stand_beside_others_of_the_model(trained: Path, logsnr: Run) -> None:
    """Of each damage, with its protocol; drawn once; kept by an evaluation of the model, and keeping that."""
    end = logsnr("evaluate", trained, "--restore", DAMAGE, *OPTIONS)
    assert end.status == 0, end.output
    metrics = figures(trained)
    found = metrics["restoration"][DAMAGE]
    assert set(found) == {"model", "gaussian", "method", "plain", "protocol"}
    for who in ("model", "gaussian"):
        for part in ("draw", "mean"):
            assert 0 < found[who][part]["psnr"]["value"] < 60
            assert found[who][part]["ssim"]["value"] <= 1
        for kind in ("pixels", "projections"):
            coverage = found[who]["coverage"][kind]
            assert coverage["nominal"] == 0.5
            assert 0 <= coverage["value"] <= 1
            assert sum(coverage["ranks"]) == pytest.approx(1)
        assert found[who]["feature_distance"]["value"] >= 0
    assert found["plain"]["name"] == "holes filled with the mean"
    assert found["protocol"]["images"] == "4 held-out images, 3 draws of each"
    assert found["protocol"]["method"] == "moment, 2 steps, without a class"
    assert found["protocol"]["noise"] == "standard deviation 0.05 on [0, 1]"
    assert metrics["protocol"]["model_hash"] == found["protocol"]["model_hash"]
    for line in ("the model", "exact draws of a Gaussian", "holes filled with the mean", "Coverage should be 50 %"):
        assert f"\n{line}" in end.output
    with Image.open(trained / "evaluation" / "restoration-missing-0.5-noise-0.05.png") as picture:
        assert picture.width > 6 * 64
    assert (trained / "evaluation" / "coverage-missing-0.5-noise-0.05.png").is_file()

    drawn = {path: path.stat().st_mtime_ns for path in (trained / "evaluation").glob("restored-*/*")}
    assert len(drawn) == 3 * 4
    again = logsnr("evaluate", trained, "--restore", "Missing .5 + noise 5e-2", *OPTIONS)
    assert figures(trained) == metrics
    assert again.output.partition("Repair: ")[2] == end.output.partition("Repair: ")[2]
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn

    other = logsnr("evaluate", trained, "--restore", "jpeg 10", *OPTIONS, "--restore-method", "diffpir")
    assert other.status == 0, other.output
    of_two = figures(trained)["restoration"]
    assert of_two[DAMAGE] == found
    assert set(of_two["jpeg 10"]) == {
        "model",
        "method",
        "plain",
        "protocol",
    }  # no exact draws: not linear
    assert of_two["jpeg 10"]["model"]["fit"] > 0
    assert of_two["jpeg 10"]["plain"]["name"] == "left as it is"

    assert logsnr("evaluate", trained, "--num", "24", "--steps", "1", "--elbo-images", "0").status == 0
    whole = figures(trained)
    assert "fid" in whole
    assert whole["restoration"] == of_two
    record = trained / "metrics.json"
    record.write_text(record.read_text().replace(whole["protocol"]["model_hash"], "of another model"))
    assert logsnr("evaluate", trained, "--restore", DAMAGE, *OPTIONS).status == 0
    assert set(figures(trained)["restoration"]) == {DAMAGE}
    assert "fid" not in figures(trained)


def test_dry_run_says_evaluations_and_writes_nothing(trained: Path, logsnr: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    end = logsnr("evaluate", trained, "--restore", "blur 1", *OPTIONS, "--dry-run")
    assert end.status == 0, end.output
    assert 'Would damage 4 held-out images by "blur 1" and repair each 3 times by moment' in end.output
    assert "nothing was written" in end.output
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--restore", "blurr 2"], "restore: there is no damage 'blurr'. Did you mean blur?"),
        (["--restore", "gray"], "gray needs pictures in RGB"),
        (["--restore", "blur 1", "--restore-method", "wish"], "--restore-method must be one of moment, "),
        (["--restore", "jpeg 10"], "--restore-method must be diffpir, dps or gibbs where damage isn't linear"),
        (["--restore", "blur 1", "--features", "vgg"], "--features 'vgg' is unknown"),
        (["--restore", "blur 1", "--restore-draws", "1"], "--restore-draws must be at least 2, and is 1"),
        (["--restore", "blur 1", "--steps", "5"], "--steps plays no part in repair"),
        (["--restore-draws", "5"], "--restore-draws is for repair, which isn't measured without restore"),
    ],
)
def test_what_is_refused(options: list[str], message: str, trained: Path, logsnr: Run) -> None:
    end = logsnr("evaluate", trained, *options, "--dry-run")
    assert end.status == 1
    assert message in end.message


def test_an_image_has_a_mask_and_noise_of_its_own_whatever_the_others(data: ImageData) -> None:
    damage = read_damage(DAMAGE)
    few, all_ = damaged(data, damage, 4, 7), damaged(data, damage, 10, 7)
    assert len(all_) == data.num_held_out == 10
    by_place = {case.place: case for case in all_}
    for case in few:
        same = by_place[case.place]
        assert case.seed == same.seed
        assert torch.equal(case.measurement, same.measurement)
        assert torch.equal(case.original, same.original)
        assert int(case.hidden.sum()) == 32
        noise = (case.measurement[0] - case.original)[~case.hidden]
        assert 0.02 < noise.std() < 0.09
        assert not case.measurement[0][case.hidden].any()
    assert not torch.equal(few[0].hidden, few[1].hidden)
    assert len({case.seed for case in all_}) == 10
    (another, *_) = damaged(data, damage, 4, 8)
    assert not torch.equal(another.hidden, few[0].hidden)
    fixed = damaged(data, read_damage("box 0.5"), 2, 7)
    assert fixed[0].operator is fixed[1].operator
    noisy = damaged(data, read_damage("none + noise 0.1"), 2, 7)
    assert noisy[0].hidden.all()


def test_a_repair_goes_on_where_it_was(data: ImageData, tmp_path: Path) -> None:
    cases = damaged(data, read_damage(DAMAGE), 4, 0)
    asked: list[int] = []

    def repair(case: Case) -> torch.Tensor:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(case.place)
        noise = torch.Generator().manual_seed(case.seed)
        return case.original + 0.05 * torch.randn(3, 1, 8, 8, generator=noise)

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path, 8, cases, repair, "Repairing")
    done, asked = asked, []
    repairs = kept(tmp_path, 8, cases, repair, "Repairing")
    assert sorted(done + asked) == [case.place for case in cases]
    assert repairs.draws.shape == (4, 3, 1, 8, 8)
    assert torch.equal(repairs.draws.mul(255).round() / 255, repairs.draws)
    assert repairs.fit.mean() == pytest.approx(math.sqrt(2), rel=0.15)  # noise of the measurement, and as much in draws
    assert torch.allclose(repairs.means, repairs.draws.mean(1))
    asked = []
    assert torch.equal(kept(tmp_path, 8, cases, repair, "Repairing").draws, repairs.draws)
    assert asked == []


def test_settings_that_would_do_nothing() -> None:
    with pytest.raises(ValueError, match="num plays no part in repair"):
        EvaluateOptions(restore="blur 1", num=100)
    with pytest.raises(ValueError, match="restore_method is for repair"):
        EvaluateOptions(restore_method="dps")
    assert EvaluateOptions(restore="blur 1", features="classifier", seed=3).restore_images == 32
