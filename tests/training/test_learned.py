"""What is learned beside the mean, a variance or the schedule, is in every form of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Finished
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors.torch import load_file

from logsnr.data.images import open_images
from logsnr.evaluation.likelihood import elbo
from logsnr.models.denoiser import Denoiser
from logsnr.models.networks import conditioner_of
from logsnr.schedulers.scheduling_beta import LearnedBetaScheduler
from logsnr.settings.image import DataConfig
from logsnr.tasks.load import load

Run = Callable[..., Finished]


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
