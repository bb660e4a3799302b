"""Training learns, what it exports is the average it says, and what can't go on stops with a message."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Finished
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

import logsnr.training.train
from logsnr.data.images import open_images
from logsnr.evaluation.likelihood import elbo
from logsnr.models.denoiser import Denoiser
from logsnr.models.networks import conditioner_of, make_unet
from logsnr.models.schedules import make_scheduler
from logsnr.objectives.held_out import errors_by_timestep
from logsnr.objectives.objective import Context
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.objectives.weighted import WeightedObjective
from logsnr.schedulers.scheduling_beta import LearnedBetaScheduler
from logsnr.settings.image import DataConfig, ModelConfig
from logsnr.settings.run import FREE, RunConfig, TrainConfig, differences, from_record
from logsnr.tasks.load import load
from logsnr.training.train import learning_rate

Run = Callable[..., Finished]


def records(run: Path, key: str) -> list[dict[str, float]]:
    lines = (run / "logs" / "train.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if key in record]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# Learning


def test_training_learns(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    """Two classes of nearly constant images: the held-out loss falls, and each class gets its own gray."""
    run = tmp_path / "run"
    end = logsnr(
        *("train", *tiny, "--out", run, "--train.num-steps", 100, "--train.batch-size", 32),
        *("--train.learning-rate", 5e-3, "--train.lr-warmup-steps", 5, "--train.ema-decay", 0.9),
        *("--train.held-out-every", 10, "--data.held-out-fraction", 0.2, "--train.sample-every", 50),
        *("--model.block-out-channels", 16, "--model.norm-num-groups", 4, "--train.tracker", "tensorboard"),
    )
    assert end.status == 0, end.output
    held_out = [record["held_out/loss"] for record in records(run, "held_out/loss")]
    assert len(held_out) == 10
    assert held_out[-1] < 0.35 * held_out[0]
    bins = [key for key in records(run, "held_out/loss")[-1] if key.startswith("held_out/log_snr_")]
    assert len(bins) == 10
    for name in ("step-00000050.png", "step-00000100.png"):
        assert Image.open(run / "samples" / name).size[0] > 32
    assert Image.open(run / "logs" / "held_out_loss_by_log_snr.png").size[0] > 100
    assert list((run / "logs").rglob("events.out.tfevents.*"))

    assert logsnr("sample", run, "--num", 16, "--steps", 10, "--seed", 5, "--out", tmp_path / "images").status == 0
    images = [np.asarray(Image.open(path), float) for path in sorted((tmp_path / "images").iterdir())]
    dark, light = np.mean(images[::2], axis=(1, 2)), np.mean(images[1::2], axis=(1, 2))
    assert abs(dark - 60).max() < 35
    assert abs(light - 195).max() < 35


def test_the_exported_weights_are_the_average_of_all_steps(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    """mean <- d mean + (1 - d) weights with d = min((1 + k) / (10 + k), decay) at step k + 1, and the weights
    themselves at the first (diffusers' EMAModel, after TensorFlow's)."""
    run = tmp_path / "run"
    options = ("--train.num-steps", 5, "--train.checkpoint-every", 1, "--train.keep-checkpoints", 9)
    assert logsnr("train", *tiny, *options, "--train.ema-decay", 0.25, "--out", run).status == 0
    folders = sorted((run / "checkpoints").iterdir())
    assert len(folders) == 5
    mean: dict[str, torch.Tensor] = {}
    for k, folder in enumerate(folders):
        decay = 0.0 if k == 0 else min((1 + k) / (10 + k), 0.25)
        for name, value in load_file(folder / "network.safetensors").items():
            mean[name] = decay * mean.get(name, torch.zeros(())) + (1 - decay) * value
        for name, value in load_file(folder / "ema.safetensors").items():
            torch.testing.assert_close(value, mean[name], rtol=1e-5, atol=1e-7)
    exported = load_file(run / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    final = load_file(folders[-1] / "ema.safetensors")
    assert exported.keys() == final.keys()
    assert all(torch.equal(exported[name], final[name]) for name in final)
    assert any(
        not torch.equal(value, final[name]) for name, value in load_file(folders[-1] / "network.safetensors").items()
    )


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = RunConfig(train=TrainConfig(num_steps=100, learning_rate=2.0, lr_warmup_steps=10))
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(2.0, rel=0.03)
    assert np.argmax(rates) == 9
    assert rates[50] == pytest.approx(1.0)
    assert (np.diff(rates[9:]) < 0).all()
    assert 0 < rates[-1] < 1e-3
    assert learning_rate(replace(config, train=replace(config.train, lr_warmup_steps=0)), 0) == 2.0


def test_logging_does_not_change_the_weights(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    tiny = [*tiny, "--data.held-out-fraction", "0.4"]
    assert logsnr("train", *tiny, "--out", tmp_path / "a").status == 0
    looking = ("--train.held-out-every", 3, "--train.sample-every", 5, "--train.log-every", 7)
    assert logsnr("train", *tiny, *looking, "--train.checkpoint-every", 1, "--out", tmp_path / "b").status == 0
    name = "model/unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_is_done_beside_the_steps_is_said(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    looking = ("--train.held-out-every", 12, "--train.sample-every", 12)
    end = logsnr("train", *tiny, *looking, "--out", tmp_path / "run")
    last = [end.output.rindex(f"{what}: 100%") for what in ("held-out loss", "samples", "checkpoint", "export")]
    assert last == sorted(last)
    assert "export" not in end.output.splitlines()[-3]  # the bar that is left


def test_few_held_out_images_are_seen_at_many_noise_levels_in_whole_batches(folder: Path) -> None:
    """As one by one, up to round-off: sample k shows image k mod the number of images, at a time and with noise of
    its own."""
    data = open_images(DataConfig(source=str(folder), resolution=8, held_out_fraction=0.075))
    assert data.num_held_out == 3
    (held_out,) = data.in_order("held_out", 3)
    model = ModelConfig(block_out_channels=(8,), attention_levels=())
    config = RunConfig(data=DataConfig(source=str(folder), resolution=8), model=model)
    schedule = make_scheduler(config.schedule)
    objective = WeightedObjective(schedule, config.objective, Context(seed=5))
    unet = make_unet(config.data, model, data.examples.class_names, 0).eval()
    batches: list[int] = []
    unet.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
    denoiser = Denoiser(unet, schedule, conditioner_of(unet))
    errors, timesteps = errors_by_timestep(objective, denoiser, data, "held_out", 512)
    assert batches == [64] * 7 + [62]

    assert timesteps.tolist() == draw_timesteps(0, np.arange(510), 1000).tolist()
    with torch.no_grad():
        for k in (0, 1, 2, 63, 64, 65, 400, 509):
            single = held_out.take(torch.tensor([k % 3]), torch.tensor([k]))
            alone = objective.errors(denoiser, single, timesteps[k : k + 1], "held out")
            torch.testing.assert_close(errors[k : k + 1], alone, rtol=1e-4, atol=1e-6)


# A learned variance


@pytest.mark.parametrize("loss", ["hybrid", "vlb"])
def test_a_learned_variance_is_trained_sampled_and_measured(
    loss: str, tiny: list[str], folder: Path, tmp_path: Path, logsnr: Run
) -> None:
    run = tmp_path / "run"
    learned = ("--schedule.variance-type", "learned_range", "--objective.name", loss)
    fast = ("--schedule.num-train-timesteps", 20, "--train.num-steps", 60, "--train.sample-every", 30)
    looking = ("--train.held-out-every", 30, "--data.held-out-fraction", 0.4)
    assert logsnr("train", *tiny, *learned, *fast, *looking, "--out", run).status == 0
    weights = load_file(run / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert len(weights["conv_out.weight"]) == 2
    moved = load_file(run / "checkpoints" / "step-00000060" / "network.safetensors")["conv_out.bias"]
    assert moved[1] != 0

    pipeline = load(run)
    data = open_images(DataConfig(str(folder), resolution=8, held_out_fraction=0.4))
    found = elbo(
        Denoiser(pipeline.unet, pipeline.scheduler, conditioner_of(pipeline.unet)),
        data.in_order("held_out", 16),
        num_images=16,
        bits=8,
    )
    assert 0 < found.bits_per_dim.total < 20
    assert found.kl_evaluations == 19

    samples = ("sample", run, "--num", 4, "--steps", 5, "--out", tmp_path / "x.png")
    assert logsnr(*samples, "--eta", 1.0).status == 0
    assert logsnr(*samples, "--scheduler", "DDPMScheduler").status == 0
    for scheduler in (
        "UniPCMultistepScheduler",
        "DPMSolverMultistepScheduler",
    ):  # the latter knows RGB and epsilon only
        message = logsnr(*samples, "--scheduler", scheduler).message
        assert "can't sample this model" in message
        assert "2 channels" in message
    stock = DiffusionPipeline.from_pretrained(run / "stock")
    stock.set_progress_bar_config(disable=True)
    assert type(stock.scheduler).__name__ == "DDPMScheduler"
    assert stock.scheduler.config.variance_type == "learned_range"
    images = stock(batch_size=2, num_inference_steps=20, output_type="np").images
    assert np.isfinite(images).all()
    assert images.std() > 0.02

    message = logsnr("train", *tiny, "--init-from", run, "--out", tmp_path / "fixed").message
    assert "has out_channels 2, and what schedule.variance_type asks for is 1" in message


# A learned schedule


@pytest.mark.parametrize("teacher", ["variance", "losses"])
def test_a_learned_schedule_is_trained_and_any_scheduler_runs_it(
    teacher: str, tiny: list[str], tmp_path: Path, logsnr: Run
) -> None:
    run = tmp_path / "run"
    learned = ("--schedule.name", "learned", "--objective.weighting.name", "sigmoid", "--schedule.teacher", teacher)
    arguments = ("train", *tiny, *learned, "--train.num-steps", 80, "--train.batch-size", 32, "--out", run)
    assert logsnr(*arguments, "--train.checkpoint-every", 20).status == 0
    start, made = LearnedBetaScheduler(), load(run).scheduler
    assert type(made) is LearnedBetaScheduler
    log_snr = made.log_snr(torch.arange(1000))
    ends = start.log_snr(torch.tensor([0, 999]))
    torch.testing.assert_close(log_snr[[0, -1]], ends, rtol=1e-3, atol=1e-3)
    assert bool((log_snr.diff() < 0).all())
    assert (log_snr - start.log_snr(torch.arange(1000))).abs().max() > 0.1

    stock = DiffusionPipeline.from_pretrained(run / "stock")
    assert torch.equal(stock.scheduler.betas, made.betas)
    samples = ("sample", run, "--num", 2, "--steps", 5, "--out", tmp_path / "x.png")
    for scheduler in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
        assert logsnr(*samples, "--scheduler", scheduler).status == 0
    assert logsnr("export", run, "--out", tmp_path / "exported").status == 0
    assert torch.equal(load(tmp_path / "exported").scheduler.betas, made.betas)


# Starting from a trained model


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


# What can't go on


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


def test_a_folder_of_ones_own_is_not_replaced_by_the_model(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("dear")
    for dry in ((), ("--dry-run",)):
        message = logsnr("train", *tiny, "--out", tmp_path, *dry).message
        assert f"{tmp_path / 'model'} exists and is no model; it would be replaced." in message
    assert not (tmp_path / "config.json").exists()


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


def test_a_loss_that_is_not_finite(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    run = tmp_path / "run"
    wild = ("--train.learning-rate", 1e12, "--train.max-grad-norm", 1e12, "--train.lr-warmup-steps", 0)
    message = logsnr("train", *tiny, *wild, "--train.checkpoint-every", 1, "--out", run).message
    assert "At step 2 the loss is nan" in message
    assert f"The last good checkpoint is {run / 'checkpoints' / 'step-00000001'}. Try a lower" in message
    assert "train.learning_rate" in message
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000001"]
    assert len(message.splitlines()) == 1
    message = logsnr("train", *tiny, *wild, "--train.log-every", 100, "--out", tmp_path / "no").message
    assert "At step 2 the loss is nan" in message  # the step where it began, not the one where it was noticed
    assert "There is no checkpoint yet." in message


def test_before_reading_the_data(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    nowhere = ("--data.source", "/nowhere", "--out", tmp_path / "run")
    sizes = ("--data.resolution", 45, "--model.block-out-channels", 8, 8, 8)
    message = logsnr("train", *tiny, *nowhere, *sizes).message
    assert "data.resolution must be a multiple of 4 for the 3 levels" in message
    assert "and is 45. Use 44 or 48, or fewer levels." in message
    for dry in ((), ("--dry-run",)):
        message = logsnr("train", *tiny, *nowhere, "--train.tracker", "wandb", *dry, before=hide_wandb).message
        assert message == "error: train.tracker wandb needs the package: pip install logsnr[wandb].\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "log.txt"]


def hide_wandb() -> None:
    import importlib.util

    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *more: None if name == "wandb" else find_spec(name, *more)


def test_schedules_that_cannot_be(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    out = ("--out", tmp_path / "run")
    assert (
        "'cosin' is unknown. Did you mean cosine?" in logsnr("train", *tiny, *out, "--schedule.name", "cosin").message
    )
    message = logsnr("train", *tiny, *out, "--schedule.options", "beta_end", 0.5).message
    assert "'beta_end', which is no option of cosine" in message
    end = logsnr("train", *tiny, *out, "--schedule.zero-terminal-snr", "--schedule.prediction-type", "epsilon")
    assert end.status != 0
    assert "Traceback" not in end.output
    words = " ".join(end.output.split())
    assert "needs another schedule.prediction_type than epsilon" in words
    assert "Use v_prediction." in words
    assert not (tmp_path / "run").exists()


def test_a_schedule_that_does_not_do_its_job_says_so_and_trains(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    end = logsnr(
        "train", *tiny, "--schedule.name", "constant", "--schedule.options", "beta_min", 1e-4, "--out", tmp_path / "run"
    )
    assert end.status == 0
    assert "warning: ConstantBetaScheduler: terminal SNR is 8388, above 0.002." in end.output


def test_the_target_without_a_stock_form(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    run = tmp_path / "run"
    end = logsnr("train", *tiny, "--schedule.prediction-type", "x0_minus_noise", "--out", run)
    assert end.status == 0
    assert "The target x0_minus_noise has no stock form" in end.output
    assert (run / "model").is_dir()
    assert not (run / "stock").exists()
    assert "no stock form" in logsnr("export", run, "--class-label", "dark", "--out", tmp_path / "dark").message
    assert logsnr("sample", run, "--num", 2, "--steps", 2, "--out", tmp_path / "x.png").status == 0
    message = logsnr("sample", run, "--num", 2, "--steps", 2, "--scheduler", "DDIMScheduler").message
    assert "x0_minus_noise" in message


@pytest.mark.parametrize(
    ("batch", "accumulation", "advice"),
    [
        (64, 1, ("--train.batch-size 32", "--train.gradient-accumulation-steps 2,")),
        (9, 2, ("--train.batch-size 3", "--train.gradient-accumulation-steps 6,")),
        (5, 1, ("--train.batch-size 1", "--train.gradient-accumulation-steps 5,")),
        (1, 4, ("Use a smaller model, or smaller samples",)),
    ],
)
def test_out_of_memory(batch: int, accumulation: int, advice: tuple[str, ...]) -> None:
    config = RunConfig(train=TrainConfig(batch_size=batch, gradient_accumulation_steps=accumulation))
    message = logsnr.training.train._out_of_memory(config)
    assert all(words in message for words in advice), message


# The disk


@contextlib.contextmanager
def disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize(("tracker", "size"), [("none", "600k"), ("tensorboard", "220k"), ("tensorboard", "1420k")])
def test_a_full_disk(tracker: str, size: str, tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    """There is no room for a checkpoint, for a picture, or for the model."""
    looking = ("--train.held-out-every", 3, "--train.sample-every", 3, "--train.tracker", tracker)
    looking += ("--data.held-out-fraction", 0.4)
    arguments = ("train", *tiny, *looking, "--train.keep-checkpoints", 100, "--train.checkpoint-every", 2)
    assert logsnr(*arguments, "--out", tmp_path / "whole").status == 0
    with disk(tmp_path / "disk", size) as place:
        run = place / "run"
        end = logsnr(*arguments, "--out", run)
        assert "can't be written" in end.message
        assert "No space left" in end.message
        assert len(end.message.splitlines()) == 1, end.output
        assert list((run / "checkpoints").glob("step-*"))
        assert logsnr("export", run, "--out", tmp_path / "exported").status == 0  # what there is is whole
        subprocess.run(["mount", "-o", "remount,size=100m", str(place)], check=True)
        assert logsnr(*arguments, "--out", run).status == 0
        name = "model/unet/diffusion_pytorch_model.safetensors"
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_no_room_for_the_first_line(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    with disk(tmp_path / "disk", "8k") as place:
        (place / "full").write_bytes(bytes(4096))
        message = logsnr("train", *tiny, "--out", place / "run").message
        assert "can't be " in message
        assert "No space left" in message


def test_a_folder_without_permission(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    with disk(tmp_path / "disk", "10m") as place:
        assert logsnr("train", *tiny, "--out", place / "run").status == 0
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        for name in ("run", "new"):
            message = logsnr("train", *tiny, "--out", place / name).message
            assert f"{place / name} can't be " in message
            assert "Read-only file system" in message
        (tmp_path / "file").write_text("")
        assert "can't be made" in logsnr("train", *tiny, "--out", tmp_path / "file").message
        assert "can't be made" in logsnr("train", *tiny, "--out", tmp_path / "file" / "run").message


# A folder of one's own images


def test_a_folder_of_rgba_images_of_which_two_are_damaged(tmp_path: Path, logsnr: Run) -> None:
    rng = np.random.default_rng(0)
    source = tmp_path / "pictures"
    for i in range(300):
        path = source / f"kind {i % 3}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = rng.integers(10, 40, 2)
        Image.fromarray(rng.integers(0, 255, (height, width, 4), dtype=np.uint8)).save(path)
    damaged = [source / "kind 1" / "100.png", source / "kind 2" / "200.png"]
    damaged[0].write_bytes(damaged[0].read_bytes()[:200])
    damaged[1].write_bytes(b"")
    arguments = (
        *("train", "images-64", "--data.source", source, "--data.resolution", 16, "--out", tmp_path / "run"),
        *("--model.block-out-channels", 8, 8, "--model.attention-levels", 1, "--model.attention-head-dim", 8),
        *("--model.layers-per-block", 1, "--train.num-steps", 3, "--train.batch-size", 4, "--train.tracker", "none"),
    )
    message = logsnr(*arguments).message
    assert "2 of 300 images can't be read" in message
    assert all(path.name in message for path in damaged)
    assert "--data.skip-unreadable" in message
    assert not (tmp_path / "run").exists()

    end = logsnr(*arguments, "--data.skip-unreadable")
    assert end.status == 0, end.output
    assert "283 training and 15 held-out images, 16x16, RGB, 8 bit, 3 classes; " in end.output
    assert re.search(r"classes; \d+ smaller images enlarged; 2 unreadable files skipped\n", end.output)
    assert all(f"skipped {path}" in end.output or path.name in end.output for path in damaged)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "run" / "stock")
    assert pipeline.unet.config.in_channels == 3
