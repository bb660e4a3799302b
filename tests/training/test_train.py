"""Training learns, what it exports is the average it says, and looking on changes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Finished
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from logsnr.data.images import open_images
from logsnr.models.denoiser import Denoiser
from logsnr.models.networks import conditioner_of, make_unet
from logsnr.models.schedules import make_scheduler
from logsnr.objectives.held_out import errors_by_timestep
from logsnr.objectives.objective import Context
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.objectives.weighted import WeightedObjective
from logsnr.settings.image import DataConfig, ModelConfig
from logsnr.settings.run import RunConfig, TrainConfig
from logsnr.training.train import learning_rate

Run = Callable[..., Finished]


def records(run: Path, key: str) -> list[dict[str, float]]:
    lines = (run / "logs" / "train.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if key in record]


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
