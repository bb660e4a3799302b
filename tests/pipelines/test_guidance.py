"""Guidance: exact answers on Gaussian data, by diffusers' guiders and by a weaker model."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.guiders import AdaptiveProjectedGuidance, AutoGuidance, ClassifierFreeGuidance
from gaussian_unet import MEAN, STD
from pixel_parts import final_sample, gaussian, pipeline, unet_2d
from tiny_prompted import tiny_prompted_unet, tiny_text_encoder, tiny_tokenizer

from logsnr.pipelines.pipeline_text_to_image import TextToImagePipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler, LinearBetaScheduler

pytestmark = pytest.mark.filterwarnings("ignore:Guiders are")


def guided(scheduler: Any = None, **config: Any) -> Any:
    return gaussian(scheduler or CosineBetaScheduler(clip_sample=False), **config)


def evaluations(pipe: Any, **arguments: Any) -> list[int]:
    """Sizes of the batches that the network saw."""
    sizes: list[int] = []
    hook = pipe.unet.register_forward_hook(lambda _m, args, _out: sizes.append(len(args[0])))
    pipe(**arguments, generator=0, output_type="np")
    hook.remove()
    return sizes


def test_a_weaker_model_moves_the_mean_of_a_gaussian_by_w() -> None:
    """Equal variances: ε_guide + w (ε − ε_guide) is the denoiser of mean m_guide + w (m − m_guide). No class needed."""
    pipe, guide = guided(), guided(mean=MEAN - 0.1)
    for w in (0.0, 2.0, 3.5):
        x = final_sample(pipe, guide=guide, batch_size=4, guidance_scale=w, num_inference_steps=50, generator=0)
        assert abs(float(x.mean()) - (MEAN - 0.1 + w * 0.1)) < 4 * STD / x.numel() ** 0.5


def test_a_weaker_model_is_told_the_same_class() -> None:
    pipe, guide = guided(num_class_embeds=4), guided(num_class_embeds=4, mean=MEAN - 0.1)
    call = {"class_labels": 2, "batch_size": 4, "guidance_scale": 2.0, "num_inference_steps": 50, "generator": 0}
    x = final_sample(pipe, guide=guide, **call)
    assert abs(float(x.mean()) - (MEAN + 0.2 + 0.1)) < 4 * STD / x.numel() ** 0.5


def test_two_networks_are_evaluated_once_each() -> None:
    pipe, guide = pipeline(unet_2d(3)), pipeline(unet_2d(3))
    call = {"class_labels": [0, 1], "num_inference_steps": 2, "guide": guide}
    assert evaluations(pipe, **call, guidance_scale=2.0) == [2, 2]
    assert evaluations(pipe, **call, guidance_scale=0.0) == []


@pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction", "x0_minus_noise"])
def test_classifier_free_guidance_of_diffusers_is_ours(target: Any) -> None:
    pipe = guided(CosineBetaScheduler(prediction_type=target, clip_sample=False), num_class_embeds=4)
    call = {"class_labels": [1, 2], "num_inference_steps": 10, "generator": 0}
    ours = final_sample(pipe, **call, guidance_scale=2.5)
    theirs = final_sample(pipe, **call, guider=ClassifierFreeGuidance(guidance_scale=2.5))
    torch.testing.assert_close(ours, theirs)


def test_outside_its_interval_a_guider_costs_and_changes_nothing() -> None:
    pipe = pipeline(unet_2d(3))
    call = {"class_labels": [0, 1], "num_inference_steps": 8}
    within = ClassifierFreeGuidance(guidance_scale=3.0, start=0.25, stop=0.75)
    assert evaluations(pipe, **call, guider=within) == [2, 2, 4, 4, 4, 4, 2, 2]
    never = pipe(**call, guider=within.new(start=0.5, stop=0.5), generator=0, output_type="np").images
    np.testing.assert_array_equal(never, pipe(**call, generator=0, output_type="np").images)


def test_a_guider_begins_anew_with_each_call() -> None:
    """Momentum is of one call: the second is as the first."""
    pipe = pipeline(unet_2d(3))
    guider = AdaptiveProjectedGuidance(4.0, adaptive_projected_guidance_momentum=-0.5)
    call = {"class_labels": [0, 1], "num_inference_steps": 4, "generator": 0, "output_type": "np"}
    first, second = (pipe(**call, guider=guider).images for _ in range(2))
    np.testing.assert_array_equal(first, second)
    plain = pipe(**call, guider=AdaptiveProjectedGuidance(4.0)).images
    assert np.abs(first - plain).max() > 1e-4


def prompted(seed: int = 0, **config: Any) -> Any:
    unet = tiny_prompted_unet(**config)
    if seed:
        torch.manual_seed(seed)
        for parameter in unet.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    pipe = TextToImagePipeline(unet, CosineBetaScheduler(), tiny_tokenizer(), tiny_text_encoder())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_prompts_are_guided_by_guiders_and_weaker_models_too() -> None:
    pipe, guide = prompted(), prompted(1)
    call = {"prompt": ["a red fox", "a cat"], "num_inference_steps": 3, "generator": 0, "output_type": "np"}
    ours = pipe(**call, guidance_scale=2.0).images
    theirs = pipe(**call, guider=ClassifierFreeGuidance(guidance_scale=2.0)).images
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    away = pipe(**call, guidance_scale=2.0, guide=guide).images
    assert np.abs(away - ours).max() > 1e-3
    np.testing.assert_allclose(  # of a model that is no weaker there is nothing to be led away from
        pipe(**call, guidance_scale=2.0, guide=prompted()).images, pipe(**call).images, atol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guider": "cfg"}, "guider must be one of diffusers.guiders"),
        ({"guider": AutoGuidance(auto_guidance_layers=["mid_block"], dropout=0.1)}, "AutoGuidance changes the network"),
        ({"guider": ClassifierFreeGuidance(2.0), "guidance_scale": 3.0}, "guider has a guidance_scale of its own"),
        ({"guider": ClassifierFreeGuidance(2.0), "class_labels": None}, "guider ClassifierFreeGuidance needs class"),
        ({"guide": "runs/mnist"}, "guide must be a PixelDiffusionPipeline, of a weaker model"),
        ({"guide": pipeline(unet_2d(3))}, "guide has no weight at guidance_scale 1. Use a larger one"),
        ({"guide": pipeline(unet_2d(3, 3)), "guidance_scale": 2.0}, "unet.config.in_channels 1"),
        ({"guide": pipeline(unet_2d(2)), "guidance_scale": 2.0}, "unet.config.num_class_embeds 4"),
        (
            {"guide": pipeline(unet_2d(3), LinearBetaScheduler(prediction_type="epsilon")), "guidance_scale": 2.0},
            "guide must predict v_prediction, as the model does, and predicts epsilon",
        ),
        (
            {"guide": pipeline(unet_2d(3), LinearBetaScheduler(prediction_type="v_prediction")), "guidance_scale": 2.0},
            "guide must be a model of the same noise schedule",
        ),
    ],
)
def test_what_cannot_guide_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(unet_2d(3))(**({"class_labels": 1} | arguments))


def test_a_negative_prompt_and_a_weaker_model_are_not_given_together() -> None:
    with pytest.raises(ValueError, match="guide takes the place of negative_prompt"):
        prompted()("a red fox", negative_prompt="a cat", guide=prompted(1), guidance_scale=2.0)
