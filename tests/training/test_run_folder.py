"""A run begins in a folder of its own or from a trained model, goes on in its own, and is refused elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from commands import Finished
from diffusers import DDPMPipeline, DDPMScheduler
from safetensors.torch import load_file
from tiny_unet import tiny_unet

from logsnr.settings.run import FREE, differences, from_record

Run = Callable[..., Finished]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_init_from(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert logsnr("train", *tiny, "--out", first).status == 0
    before = contents(first)
    slow = ("--train.num-steps", 1, "--train.learning-rate", 1e-12, "--train.seed", 7)
    for source in (first, first / "model"):
        other = ("--model.block-out-channels", 16, "--out", second)  # the architecture is the trained one's
        assert logsnr("train", *tiny, *slow, *other, "--init-from", source).status == 0
        a, b = (load_file(r / "model" / "unet" / "diffusion_pytorch_model.safetensors") for r in (first, second))
        for name, value in a.items():
            torch.testing.assert_close(b[name], value, rtol=0, atol=1e-6)
        second = tmp_path / "third"
    assert contents(first) == before

    new = tmp_path / "new"
    for options, words in [
        (("--data.channels", 3), ("in_channels 1", "data.channels is 3")),
        (("--data.resolution", 16), ("sample_size 8", "data.resolution is 16")),
        (
            (
                "--condition.name",
                "none",
            ),
            ("num_class_embeds 3", "the number of classes plus 1 is None"),
        ),
    ]:
        message = logsnr("train", *tiny, "--out", new, "--init-from", first, *options).message
        assert all(word in message for word in words), message
        assert len(message.splitlines()) == 1
    message = logsnr("train", *tiny, "--out", new, "--init-from", first / "stock").message
    assert "num_class_embeds None" in message
    message = logsnr("train", *tiny, "--out", new, "--init-from", "./nowhere").message
    assert "model.init_from: There is no folder ./nowhere." in message
    (tmp_path / "empty").mkdir()
    message = logsnr("train", *tiny, "--out", new, "--init-from", tmp_path / "empty").message
    assert "holds no model" in message
    assert not new.exists()


def test_a_base_that_was_taught_otherwise_is_called_so(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    base = tmp_path / "base"
    DDPMPipeline(tiny_unet(classes=2), DDPMScheduler()).save_pretrained(base)  # linear, 1000 steps, epsilon
    alike = (
        "--schedule.prediction-type",
        "epsilon",
        "--schedule.name",
        "linear",
        "--schedule.num-train-timesteps",
        1000,
    )
    end = logsnr("train", *tiny, "--init-from", base, "--out", tmp_path / "run", "--dry-run")
    assert f"{base} predicts epsilon, and this run teaches it v_prediction" in end.output
    assert f"{base} was trained on another noise schedule (linear)" in end.output
    end = logsnr("train", *tiny, *alike, "--init-from", base, "--out", tmp_path / "run", "--dry-run")
    assert end.status == 0, end.output
    assert "warning" not in end.output


def test_one_folder_may_be_named_in_several_ways(tiny: list[str], folder: Path, tmp_path: Path, logsnr: Run) -> None:
    run = tmp_path / "run"
    assert logsnr("train", *tiny, "--out", run).status == 0
    for name in (f"{folder}/", os.path.relpath(folder)):
        end = logsnr("train", *tiny, "--data.source", name, "--out", run)
        assert end.status == 0, end.output


def test_another_configuration_is_refused(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    run = tmp_path / "run"
    assert logsnr("train", *tiny, "--out", run).status == 0
    before = contents(run)
    message = logsnr("train", *tiny, "--out", run, "--train.seed", 3, "--schedule.name", "linear").message
    assert f"{run} holds a run with another configuration:\n" in message
    assert "  schedule.name: 'cosine' -> 'linear'\n  train.seed: 0 -> 3\n" in message
    assert contents(run) == before
    message = logsnr("train", *tiny, "--out", run, "--train.seed", 3, "--dry-run").message
    assert "  train.seed: 0 -> 3\n" in message

    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_processes": 2}))
    message = logsnr("train", *tiny, "--out", run).message
    assert f"{run} holds a run with num_processes 2, and now it is 1" in message
    path.write_text(json.dumps(json.loads(before["config.json"]) | {"mixed_precision": "fp16"}))
    assert "a run with mixed_precision fp16, and now it is no" in logsnr("train", *tiny, "--out", run).message

    (run / "config.json").write_text(before["config.json"].decode()[:-200])
    assert "config.json can't be read" in logsnr("train", *tiny, "--out", run).message


def test_settings_that_the_weights_do_not_depend_on_may_change(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    run = tmp_path / "run"
    assert logsnr("train", *tiny, "--out", run).status == 0
    before = contents(run)
    for name in ("checkpoints/step-00000012", "model", "stock"):
        shutil.rmtree(run / name)
    other = ("--data.num-workers", 1, "--train.checkpoint-every", 3, "--train.keep-checkpoints", 1)
    other += ("--train.log-every", 2, "--train.held-out-every", 6, "--train.sample-every", 6)
    other += ("--train.tracker", "tensorboard")
    end = logsnr("train", *tiny, *other, "--out", run, "--dry-run")
    assert f"goes on with the run in {run}, with data.num_workers: 0 -> 1, train.checkpoint_every: 4 -> 3" in end.output
    assert contents(run)["config.json"] == before["config.json"]

    end = logsnr("train", *tiny, *other, "--out", run)
    assert end.status == 0, end.output
    assert "Now with train.tracker: 'none' -> 'tensorboard'\n" in end.output
    assert "Going on from step 8 of 12." in end.output
    after = contents(run)
    name = "model/unet/diffusion_pytorch_model.safetensors"
    assert after[name] == before[name]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000012"]
    old, new = (json.loads(files["config.json"]) for files in (before, after))
    changed = differences(*(from_record(record) for record in (old, new)))
    assert {line.partition(":")[0] for line in changed} == FREE
    assert old | {"config": new["config"]} == new
    message = logsnr("train", *tiny, *other, "--train.log-every", 5, "--train.seed", 3, "--out", run).message
    assert "  train.seed: 0 -> 3\nGive the same" in message  # and only that
    assert contents(run) == after


def test_a_folder_of_ones_own_is_no_run(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    own, empty = tmp_path / "own", tmp_path / "empty"
    (own / "model").mkdir(parents=True)
    (own / "notes.txt").write_text("dear")
    empty.mkdir()
    (empty / ".DS_Store").write_text("")
    compared = ("--schedules", "linear", "cosine")
    for dry in ((), ("--dry-run",)):
        for command in (("train", *tiny), ("compare", *tiny, *compared)):
            message = logsnr(*command, "--out", own, *dry).message
            words = "exists and is no run folder; it holds model, notes.txt. Name another --out."
            assert message == f"error: --out {own} {words}\n"
        assert logsnr("train", *tiny, "--out", own / "notes.txt", *dry).message.endswith("Name another --out.\n")
    assert contents(own) == {"notes.txt": b"dear"}
    assert logsnr("train", *tiny, "--out", empty, "--dry-run").status == 0


def test_runs_and_data_lie_apart(tiny: list[str], folder: Path, tmp_path: Path, logsnr: Run) -> None:
    shutil.copytree(folder, tmp_path / "all" / "photos")
    before = contents(tmp_path / "all")
    source = ("--data.source", "all/photos")
    for out, how in (("all/photos", "is"), ("all/photos/new", "lies in"), ("all", "contains")):
        for dry in ((), ("--dry-run",)):
            for command in (("train", *tiny), ("compare", *tiny, "--schedules", "linear", "cosine")):
                message = logsnr(*command, *source, "--out", out, *dry).message
                assert f"--out {out} {how} data.source, all/photos: it must lie apart from the data." in message
    assert contents(tmp_path / "all") == before


def test_a_finished_run_says_what_comes_next(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    end = logsnr("train", *tiny, "--out", "my run", "--dry-run")
    assert "M parameters, float32\n" in end.output
    end = logsnr("train", *tiny, "--out", "my run")
    assert end.output.endswith("Next: logsnr sample 'my run', or logsnr evaluate 'my run'\n")


def test_other_images_are_refused(tiny: list[str], folder: Path, tmp_path: Path, logsnr: Run) -> None:
    copy, run = tmp_path / "images", tmp_path / "run"
    for path in sorted(folder.rglob("*.png")):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        (copy / path.parent.name / path.name).write_bytes(path.read_bytes())
    assert logsnr("train", *tiny, "--data.source", copy, "--out", run).status == 0
    before = contents(run)
    (copy / "dark" / "00.png").rename(copy / "light" / "99.png")
    message = logsnr("train", *tiny, "--data.source", copy, "--out", run).message
    assert f"{run} holds a run on other data" in message
    assert len(message.splitlines()) == 1
    assert contents(run) == before
