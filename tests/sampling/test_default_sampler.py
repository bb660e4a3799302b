"""What is drawn with where nobody names a scheduler: second-order steps that add noise again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from gaussian_unet import MEAN, STD, GaussianUNet
from tiny_unet import tiny_unet

from logsnr.base.errors import ModelError
from logsnr.models.schedules import consistency_scheduler
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.sampling.sample import sample, sampler_in_words
from logsnr.schedulers.scheduling_beta import BetaScheduler, CosineBetaScheduler
from logsnr.settings.options import SampleOptions


def exact_pipeline(scheduler: BetaScheduler) -> PixelDiffusionPipeline:
    """It draws pixels that are independent and normal, as exactly as its sampler lets it."""
    unet: Any = GaussianUNet(scheduler.alphas_cumprod.tolist(), scheduler.config["prediction_type"], sample_size=8)
    return PixelDiffusionPipeline(unet, scheduler)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction"])
def test_it_is_the_stock_solver_of_the_sde(target: str) -> None:
    pipeline = exact_pipeline(schedule := CosineBetaScheduler(prediction_type=target, clip_sample=False))
    drawn = sample(pipeline, SampleOptions(num=3, steps=6, seed=5))
    named = sample(pipeline, SampleOptions(num=3, steps=6, seed=5, scheduler="sde"))
    stock = DPMSolverMultistepScheduler(
        trained_betas=schedule.betas.tolist(),
        prediction_type=target,
        algorithm_type="sde-dpmsolver++",
        timestep_spacing="trailing",
    )
    pipeline.scheduler = stock
    by_hand = pipeline(batch_size=3, num_inference_steps=6, generator=[5, 6, 7], output_type="pt").images
    assert torch.equal(drawn, named)
    torch.testing.assert_close(drawn, by_hand.cpu(), rtol=0, atol=1e-6)


def test_its_distribution_is_the_data_s() -> None:
    pipeline = exact_pipeline(CosineBetaScheduler(prediction_type="v_prediction", clip_sample=False))
    drawn = 2 * sample(pipeline, SampleOptions(num=400, steps=20, batch_size=400)).double() - 1
    error = STD / drawn.numel() ** 0.5
    assert abs(float(drawn.mean()) - MEAN) < 0.005 + 4 * error
    assert float(drawn.std()) == pytest.approx(STD, rel=0.06)


def test_the_pipeline_keeps_its_scheduler() -> None:
    pipeline = exact_pipeline(CosineBetaScheduler(prediction_type="v_prediction"))
    own = pipeline.scheduler
    for scheduler in (None, "UniPCMultistep", "few-step"):
        sample(pipeline, SampleOptions(num=1, steps=4, scheduler=scheduler))
        assert pipeline.scheduler is own
    with pytest.raises(ModelError, match="no scheduler"):
        sample(pipeline, SampleOptions(num=1, scheduler="Unipcc"))
    assert pipeline.scheduler is own


@pytest.mark.parametrize(
    "scheduler",
    [
        CosineBetaScheduler(prediction_type="x0_minus_noise"),
        CosineBetaScheduler(prediction_type="v_prediction", zero_terminal_snr=True),
    ],
    ids=["target", "zero terminal SNR"],
)
def test_what_the_stock_solver_cannot_draw_is_drawn_by_the_model_s_own_steps(scheduler: BetaScheduler) -> None:
    pipeline = exact_pipeline(scheduler)
    assert torch.equal(
        sample(pipeline, SampleOptions(num=2, steps=4)), sample(pipeline, SampleOptions(num=2, steps=4, eta=1.0))
    )


def test_a_learned_variance_is_drawn_by_the_model_s_own_steps() -> None:
    schedule = CosineBetaScheduler(prediction_type="epsilon", variance_type="learned_range")
    pipeline = PixelDiffusionPipeline(tiny_unet(out_channels=2), schedule)
    assert torch.equal(
        sample(pipeline, SampleOptions(num=2, steps=4)), sample(pipeline, SampleOptions(num=2, steps=4, eta=1.0))
    )


def test_eta_takes_the_model_s_own_steps() -> None:
    pipeline = exact_pipeline(CosineBetaScheduler(prediction_type="v_prediction"))
    given = {"batch_size": 2, "num_inference_steps": 4, "generator": [0, 1], "output_type": "pt"}
    for eta in (0.0, 1.0):
        drawn = sample(pipeline, SampleOptions(num=2, steps=4, eta=eta))
        assert torch.equal(drawn, pipeline(**given, eta=eta).images.cpu())


def test_a_scheduler_that_is_there_is_kept() -> None:
    pipeline = PixelDiffusionPipeline(tiny_unet(), DDIMScheduler())
    drawn = sample(pipeline, SampleOptions(num=2, steps=4))
    by_hand = pipeline(batch_size=2, num_inference_steps=4, generator=[0, 1], output_type="pt").images
    assert torch.equal(drawn, by_hand.cpu())


def test_a_distilled_model_refuses_it() -> None:
    schedule = CosineBetaScheduler(prediction_type="v_prediction")
    pipeline = PixelDiffusionPipeline(tiny_unet(), consistency_scheduler(schedule, 2))
    with pytest.raises(ModelError, match="distilled for few steps already: leave out --scheduler sde"):
        sample(pipeline, SampleOptions(num=1, scheduler="sde"))


def test_in_words() -> None:
    stock = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    assert sampler_in_words(stock, None) == "DPMSolverMultistepScheduler (sde-dpmsolver++)"
    assert sampler_in_words(CosineBetaScheduler(), None) == "CosineBetaScheduler"
    assert sampler_in_words(CosineBetaScheduler(), 0.5) == "CosineBetaScheduler, eta 0.5"
