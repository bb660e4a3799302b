"""`logsnr compare` of texts: a model for each kernel and schedule, one table, one picture, and nothing done twice."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Finished
from PIL import Image

from logsnr.base.errors import ConfigError
from logsnr.settings.presets import presets
from logsnr.settings.run import RunConfig
from logsnr.settings.schedule import TransitionConfig
from logsnr.studies.compare import configurations
from logsnr.studies.compare_texts import TEXTS

Run = Callable[..., Finished]
WORDS = ("ant", "bee", "cow", "doe", "elk", "fox", "gnu", "hen", "ibis", "jay")
NAMES = ["absorbing cosine", "absorbing linear", "uniform cosine", "uniform linear"]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of `logsnr compare`, but for --out: four steps of a tiny network on 20 documents of ten different words."""
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    for k in range(20):
        (folder / f"{k:02}.txt").write_text(" ".join(rng.choice(WORDS, 20)))
    return [
        *("text-128", "--data.source", str(folder), "--data.length", "16", "--data.held-out-fraction", "0.2"),
        *("--condition.name", "none", "--model.hidden-size", "16", "--model.num-hidden-layers", "1"),
        *("--model.num-attention-heads", "2", "--model.intermediate-size", "16", "--train.num-steps", "4"),
        *("--train.batch-size", "4", "--train.checkpoint-every", "4", "--train.mixed-precision", "no"),
        *("--train.tracker", "none", "--train.held-out-every", "0", "--train.sample-every", "0"),
        *("--schedule.num-train-timesteps", "50", "--schedules", "cosine", "linear"),
        *("--kernels", "absorbing", "uniform", "--at-steps", "3"),
        *("--evaluate.num", "20", "--evaluate.steps", "5", "--evaluate.elbo-images", "8"),
        *("--evaluate.elbo-timesteps", "4"),
    ]


def test_kernels_and_schedules_are_compared_once(arguments: list[str], tmp_path: Path, logsnr: Run) -> None:
    out = tmp_path / "out"
    command = ("compare", *arguments, "--out", out)
    end = logsnr(*command)
    assert end.status == 0, end.output
    rows = json.loads((out / "compare.json").read_text())
    assert list(rows) == NAMES
    for name, row in rows.items():
        kernel, schedule = name.split()
        config = json.loads((out / f"{kernel}-{schedule}" / "config.json").read_text())["config"]["schedule"]
        assert (config["kernel"], config["name"]) == (kernel, schedule)
        bits = row["elbo"]["bits_per_dim"]
        shown = [
            f"{row['elbo'][of][key]:.4f}" for of in ("bits_per_dim", "limit") for key in ("total", "standard_error")
        ]
        assert sum(bits["by_log_snr"]) == pytest.approx(bits["total"])
        assert list(row["steps"]) == ["3", "5"]
        assert row["words"] == row["steps"]["5"]["words"]
        line = next(line for line in end.output.splitlines() if line.startswith(f"{name} "))
        assert line.split() == [
            *(kernel, schedule, *shown),
            *(f"{row['words'][key]:.4f}" for key in ("value", "standard_error")),
            f"{row['unigram_entropy']['value']:.4f}",
        ]
    one, other = (rows[name]["elbo"]["limit"] for name in NAMES[:2])  # networks that know next to nothing yet
    error = math.hypot(one["standard_error"], other["standard_error"])
    assert one["total"] == pytest.approx(other["total"], abs=4 * error)
    assert "In continuous time the bound of absorbing noise is the same whatever the schedule" in end.output
    assert "\nheld-out text " in end.output
    assert Image.open(out / "compare.png").width > 1000

    made = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.parts[-2] in ("evaluation", "checkpoints")}
    assert made
    again = logsnr(*command)
    assert again.status == 0, again.output
    assert json.loads((out / "compare.json").read_text()) == rows
    assert {path: path.stat().st_mtime_ns for path in made} == made

    # a kernel without a limit, and text without words
    del rows["uniform cosine"]["elbo"]["limit"]
    for row in rows.values():
        del row["words"]
        for each in row["steps"].values():
            del each["words"]
    assert "share of words" not in TEXTS.table(rows)
    assert len(TEXTS.figure(rows).axes) == 3


def test_what_would_be_done_and_what_is_refused(arguments: list[str], tmp_path: Path, logsnr: Run) -> None:
    command = ("compare", *arguments, "--out", tmp_path / "out", "--dry-run")
    end = logsnr(*command)
    assert end.status == 0, end.output
    assert "Would train 4 models, 4 steps of 4 sequences each, into " in end.output
    assert "20 sequences would be drawn in 3 and 5 steps, and their words looked up in the training doc" in end.output
    for options, message in (
        (["--evaluate.words", "nowhere"], "--evaluate.words is nowhere, and there is no such file"),
        (["--evaluate.features", "inception"], "--evaluate.features is inception, and is for images"),
        (["--at-steps", "51"], "must be at most 50, the length of the chain, and go up to 51"),
    ):
        assert message in logsnr(*command, *options).message
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]


def test_runs_by_kernel_and_schedule() -> None:
    text = presets()["text-128"].config
    alone = configurations(text, ("even",), ("mask_and_replace", "uniform"))
    assert {name: config.schedule.kernel for name, config in alone.items()} == {
        "mask_and_replace even": "mask_and_replace",
        "uniform even": "uniform",
    }
    assert list(configurations(text, ("even", "cosine"))) == ["even", "cosine"]
    for schedules, kernels, message in (
        (("even",), ("uniform",), "two or more different schedules, and is 'even'"),
        (("even", "cosine"), ("uniform", "uniform"), "--kernels must name different kernels, and is 'uniform uniform'"),
    ):
        with pytest.raises(ConfigError, match=message):
            configurations(text, schedules, kernels)
    with pytest.raises(ConfigError, match=r"schedule\.name linear must leave at most 0\.002"):
        configurations(dataclasses.replace(text, schedule=TransitionConfig(shift=5.0)), ("linear", "even"))
    with pytest.raises(
        ConfigError, match="--kernels is uniform, and a kernel says where a state goes, such as a letter"
    ):
        configurations(RunConfig(), ("linear", "cosine"), ("uniform",))
