"""The film of a sampling run: exact on Gaussian data for every solver and target, and changing nothing."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from gaussian_unet import MEAN, STD, TARGETS, GaussianUNet, honours_trained_betas, scheduler_classes

from logsnr.media.film import Frame, record
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler

STOCK = [cls for cls in scheduler_classes() if honours_trained_betas(cls)]
pytestmark = pytest.mark.filterwarnings(  # stock's numpy 1 habits, and torchsde on the last digit of its interval
    "ignore:__array:DeprecationWarning", "ignore:Should have t:UserWarning"
)


def gaussian(target: str, **config: Any) -> PixelDiffusionPipeline:
    scheduler = CosineBetaScheduler(prediction_type=target)  # type: ignore[arg-type]
    unet: Any = GaussianUNet(scheduler.alphas_cumprod.tolist(), target, sample_size=8, **config)
    pipe = PixelDiffusionPipeline(unet, scheduler)
    pipe.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    return pipe


def assert_exact(frame: Frame, mean: float = MEAN) -> None:
    """x̂_0 is E[x_0 | x_t] for pixels x_0 ~ N(mean, STD²); from ε it loses the digits that 1/a costs."""
    a, s = math.sqrt(1 - frame.noise), math.sqrt(frame.noise)
    gain = a * STD**2 / (a**2 * STD**2 + s**2)
    expected = mean + gain * (frame.sample - a * mean)
    assert frame.predicted.sub(expected).abs().max() < 1e-5 / a


@pytest.mark.parametrize("target", TARGETS)
def test_exact_for_every_solver_that_swaps(target: str) -> None:
    pipe = gaussian(target)
    films = {"own": (pipe, record(pipe.scheduler, 5))}
    for cls in STOCK:
        swapped = copy.copy(pipe)
        try:
            swapped.swap_scheduler(cls)
        except ValueError:
            continue
        films[cls.__name__] = (swapped, record(swapped.scheduler, 5))
    assert len(films) == 1 if target == "x0_minus_noise" else len(films) > 15
    for name, (swapped, film) in films.items():
        swapped(batch_size=2, num_inference_steps=12, generator=0)
        assert len(film) == 5, name
        noise = [frame.noise for frame in film]
        assert noise == sorted(noise, reverse="Inverse" not in name), name
        for frame in film:
            assert_exact(frame)


def test_agrees_with_the_schedulers_own_conversion() -> None:
    for target in TARGETS:
        pipe = gaussian(target)
        film = record(pipe.scheduler, 1000)
        outputs: list[torch.Tensor] = []

        def keep(_pipe: Any, _i: int, _t: Any, tensors: dict[str, Any], outputs: Any = outputs) -> dict[str, Any]:
            outputs.append(tensors["model_output"])
            return {}

        pipe(
            num_inference_steps=7,
            generator=0,
            callback_on_step_end=keep,
            callback_on_step_end_tensor_inputs=["model_output"],
        )
        assert [frame.timestep for frame in film] == pipe.scheduler.timesteps.tolist()
        for frame, output in zip(film, outputs, strict=True):
            t = torch.tensor([int(frame.timestep)])
            x_0 = pipe.scheduler.convert(output, frame.sample, t, target, "sample")  # type: ignore[arg-type]
            a = math.sqrt(1 - frame.noise)
            torch.testing.assert_close(frame.predicted, x_0, rtol=1e-5, atol=1e-6 / a)


def test_changes_no_image_and_counts_the_steps() -> None:
    pipe, steps = gaussian("epsilon"), list[tuple[int, int]]()
    for name in ("DDIM", "EulerAncestralDiscrete", "HeunDiscrete"):
        arguments: dict[str, Any] = {"batch_size": 2, "num_inference_steps": 6, "generator": 3, "output_type": "pt"}
        bare = pipe.swap_scheduler(name)(**arguments).images
        steps.clear()
        film = record(pipe.scheduler, 3, lambda done, total: steps.append((done, total)))
        assert torch.equal(torch.as_tensor(pipe(**arguments).images), torch.as_tensor(bare))
        assert steps == [(k + 1, pipe.num_timesteps) for k in range(pipe.num_timesteps)]
        assert len(film) == 3
        assert film[0].noise > 0.99
        assert film[0].sample.std() == pytest.approx(1, abs=0.15)  # x_t and not x_t / a_t


def test_guidance_and_learned_variance() -> None:
    """The guided mean of classes with equal variance is again Gaussian: null + w (class − null)."""
    pipe = gaussian("v_prediction", num_class_embeds=4)
    film = record(pipe.scheduler, 4)
    pipe(class_labels=2, guidance_scale=1.5, num_inference_steps=8, generator=0)
    for frame in film:
        assert_exact(frame, MEAN - 0.3 + 1.5 * 0.5)

    unet = gaussian("epsilon").unet
    scheduler = CosineBetaScheduler(variance_type="learned_range")
    film = record(scheduler, 4)
    scheduler.set_timesteps(4)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        output = unet(x, t).sample
        x = scheduler.step(torch.cat([output, torch.zeros_like(output)], 1), t, x, return_dict=False)[0]
    assert len(film) == 4
    for frame in film:
        assert_exact(frame)


def test_any_pipeline_and_zero_terminal_snr() -> None:
    pipe = DDPMPipeline(unet=gaussian("epsilon").unet, scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"))
    pipe.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    film = record(pipe.scheduler, 3)
    pipe(num_inference_steps=5, generator=torch.Generator().manual_seed(0))
    assert len(film) == 3
    for frame in film:
        assert_exact(frame)

    scheduler = CosineBetaScheduler(prediction_type="v_prediction", zero_terminal_snr=True)
    unet: Any = GaussianUNet(scheduler.alphas_cumprod.tolist(), "v_prediction", sample_size=8)
    pixel = PixelDiffusionPipeline(unet, scheduler)
    pixel.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    film = record(pixel.scheduler, 2)
    pixel(num_inference_steps=4, generator=0)
    assert film[0].noise == pytest.approx(1)
    assert film[0].predicted.sub(MEAN).abs().max() < 1e-4


def test_one_frame_is_the_first_step() -> None:
    pipe = gaussian("sample")
    film = record(pipe.scheduler, 1)
    pipe(num_inference_steps=3, generator=0)
    assert [frame.timestep for frame in film] == [999]
