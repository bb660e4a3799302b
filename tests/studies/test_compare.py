"""`logsnr compare`: a model for each schedule, one table, one picture, and nothing done twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Finished
from PIL import Image

from logsnr.base.errors import ConfigError
from logsnr.settings.objective import SigmoidWeighting, WeightedConfig
from logsnr.settings.run import RunConfig
from logsnr.studies.compare import configurations

Run = Callable[..., Finished]
OPTIONS = [
    *("--evaluate.num", "20", "--evaluate.steps", "2", "--at-steps", "3", "--evaluate.elbo-images", "4"),
    *("--evaluate.elbo-timesteps", "5"),
]


def test_models_are_trained_and_measured_once(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    out = tmp_path / "out"
    command = ("compare", *tiny, "--schedules", "linear", "cosine", *OPTIONS, "--out", out)
    end = logsnr(*command)
    assert end.status == 0, end.output
    found = json.loads((out / "compare.json").read_text())
    assert list(found) == ["linear", "cosine"]
    for name, row in found.items():
        config = json.loads((out / name / "config.json").read_text())["config"]
        assert config["schedule"]["name"] == name
        assert list(row["steps"]) == ["2", "3"]
        assert row["kid"] == row["steps"]["2"]["kid"]
        assert row["elbo"]["bits_per_dim"]["total"] > 0
        assert f"\n{name} " in end.output
    assert found["linear"]["fid"] != found["cosine"]["fid"]
    assert found["linear"]["protocol"]["features_hash"] == found["cosine"]["protocol"]["features_hash"]
    assert Image.open(out / "compare.png").width > 1000
    assert "kid and fid above are of images drawn in 2 steps. ± is one standard error." in end.output

    made = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.parts[-2] in ("evaluation", "checkpoints")}
    assert made
    again = logsnr(*command)
    assert again.status == 0
    assert json.loads((out / "compare.json").read_text()) == found
    assert {path: path.stat().st_mtime_ns for path in made} == made
    refused = logsnr(*command, "--train.learning-rate", "0.5")
    assert "holds a run with another configuration" in refused.message
    refused = logsnr(*command, "--train.learning-rate", "0.5", "--dry-run")
    assert "holds a run with another configuration" in refused.message


def test_dry_run(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    end = logsnr("compare", *tiny, "--schedules", "linear", "cosine", "--out", tmp_path / "out", "--dry-run")
    assert end.status == 0, end.output
    assert "Would train 2 models, 12 steps of 4 images each" in end.output
    assert "Of each, 20 images would be drawn in 5, 10, 20 and 50 steps." in end.output
    assert f"The table would go to {tmp_path / 'out' / 'compare.json'}, the picture to " in end.output
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_settings_of_the_evaluation_are_refused_by_their_names_here(
    dry: list[str], tiny: list[str], tmp_path: Path, logsnr: Run
) -> None:
    command = ("compare", *tiny, "--schedules", "linear", "cosine", "--out", tmp_path / "out", *dry)
    assert "error: --evaluate.num must be at least 20" in logsnr(*command, "--evaluate.num", "3").message
    refused = logsnr(*command, "--evaluate.features", "vgg")
    assert "error: --evaluate.features 'vgg' is unknown" in refused.message
    refused = logsnr(*command, "--evaluate.attributes", "colour")
    assert "error: --evaluate.attributes is for logsnr evaluate" in refused.message
    assert not (tmp_path / "out").exists()


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="two or more different schedules, and is 'cosine cosine'"):
        configurations(RunConfig(), ("cosine", "cosine"))
    with pytest.raises(ConfigError, match="'cosinus' is unknown"):
        configurations(RunConfig(), ("linear", "cosinus"))
    with pytest.raises(ConfigError, match="learned needs objective"):
        configurations(RunConfig(), ("cosine", "learned"))
    configs = configurations(RunConfig(objective=WeightedConfig(SigmoidWeighting())), ("cosine", "learned"))
    assert [config.schedule.name for config in configs.values()] == ["cosine", "learned"]
