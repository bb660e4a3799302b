"""The pixel pipeline called: exact answers on Gaussian data, and labels, seeds and output."""

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from gaussian_unet import MEAN, STD
from pixel_parts import HONEST, NAMES, final_sample, gaussian, pipeline, unet_2d
from rounding import assert_same_images

from logsnr.pipelines.guidance import Guidance
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler, LinearBetaScheduler

# These aren't samplers of the data's distribution: two go from image to noise, two are for distilled models.
NOT_SAMPLERS = {"DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler", "LCMScheduler", "TCDScheduler"}
SOLVERS = [cls for cls in HONEST if cls.__name__ not in NOT_SAMPLERS]
pytestmark = pytest.mark.filterwarnings(  # stock's numpy 1 habits, and torchsde on the last digit of its interval
    "ignore:__array:DeprecationWarning", "ignore:Should have t:UserWarning"
)


# -- Gaussian data, whose denoiser is known ---------------------------------------------------------------------------


def needs(cls: Any, scheduler: Any) -> dict[str, Any]:
    """PNDM and KDPM2Ancestral diverge on the cosine schedule unless the first timestep is well below T."""
    fragile = cls.__name__ in ("PNDMScheduler", "KDPM2AncestralDiscreteScheduler")
    return {"timestep_spacing": "leading"} if fragile and isinstance(scheduler, CosineBetaScheduler) else {}


@pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("schedule", [LinearBetaScheduler, CosineBetaScheduler])
@pytest.mark.parametrize("cls", SOLVERS, ids=lambda c: c.__name__)
def test_stock_solvers_sample_a_gaussian(cls: Any, schedule: Any, target: Any) -> None:
    scheduler = schedule(prediction_type=target, clip_sample=False)
    pipe = gaussian(scheduler)
    try:
        pipe.swap_scheduler(cls, **needs(cls, scheduler))
    except ValueError as error:
        if (target == "sample" and "must be one of `epsilon`" in str(error)) or "not implemented yet" in str(error):
            pytest.skip(f"{cls.__name__} has no prediction type {target}")
        raise
    steps = 50 if cls.__name__ == "DPMSolverSDEScheduler" else 200  # its Brownian tree is slow
    x = final_sample(pipe, batch_size=4, num_inference_steps=steps, generator=0)
    n = x.numel()
    assert abs(float(x.mean()) - MEAN) < 4 * STD / n**0.5
    assert abs(float(x.std()) - STD) < 0.015 + 4 * STD / (2 * n) ** 0.5


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction", "x0_minus_noise"])
@pytest.mark.parametrize("schedule", [LinearBetaScheduler, CosineBetaScheduler])
def test_our_schedulers_sample_a_gaussian(schedule: Any, target: Any, eta: float) -> None:
    pipe = gaussian(schedule(prediction_type=target, clip_sample=False))
    x = final_sample(pipe, batch_size=4, num_inference_steps=250, generator=0, eta=eta)
    assert abs(float(x.mean()) - MEAN) < 4 * STD / x.numel() ** 0.5
    assert abs(float(x.std()) - STD) < 0.015 + 4 * STD / (2 * x.numel()) ** 0.5


@pytest.mark.parametrize("cls", HONEST, ids=lambda c: c.__name__)
def test_pipeline_is_the_scheduler_driven_by_hand(cls: Any) -> None:
    base = LinearBetaScheduler(prediction_type="epsilon", clip_sample=False)
    pipe = gaussian(base, sample_size=(4, 6)).swap_scheduler(cls)
    x = final_sample(pipe, num_inference_steps=12, generator=torch.Generator().manual_seed(3))

    scheduler, noise = cls.from_config(base.config), torch.Generator().manual_seed(3)
    scheduler.set_timesteps(12)
    by_hand = randn_tensor((1, 1, 4, 6), noise) * scheduler.init_noise_sigma
    if cls.__name__ == "DPMSolverSDEScheduler":
        scheduler.noise_sampler_seed = [int(torch.randint(2**62, (), generator=noise))]
    takes_generator = "generator" in cls.step.__code__.co_varnames[: cls.step.__code__.co_argcount]
    arguments = {"generator": noise} if takes_generator else {}
    for t in scheduler.timesteps:
        output = pipe.unet(scheduler.scale_model_input(by_hand, t), t).sample
        by_hand = scheduler.step(output, t, by_hand, **arguments).prev_sample
    assert torch.equal(x, by_hand)


def test_where_the_stock_pipeline_is_wrong() -> None:
    """DDPMPipeline ignores `init_noise_sigma` and `scale_model_input`, and passes a generator to all."""
    base = DDPMScheduler(clip_sample=False)
    ours = gaussian(base)
    stock = DDPMPipeline(ours.unet, EulerDiscreteScheduler.from_config(base.config))
    stock.set_progress_bar_config(disable=True)
    clipped = stock(4, generator=torch.Generator().manual_seed(0), num_inference_steps=50, output_type="pt").images
    assert float((clipped == 0).float().mean() + (clipped == 1).float().mean()) > 0.5  # nothing but black and white
    x = final_sample(ours.swap_scheduler("Euler" + "Discrete"), batch_size=4, num_inference_steps=50, generator=0)
    assert abs(float(x.std()) - STD) < 0.03
    stock.scheduler = diffusers.UniPCMultistepScheduler.from_config(base.config)
    with pytest.raises(TypeError, match="generator"):
        stock(num_inference_steps=4)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction", "x0_minus_noise"])
def test_guidance_moves_the_mean_of_a_gaussian_by_w(target: Any) -> None:
    """Equal variances: ε_null + w (ε_k − ε_null) is exactly the denoiser of mean m_null + w (m_k − m_null)."""
    pipe = gaussian(CosineBetaScheduler(prediction_type=target, clip_sample=False), num_class_embeds=4)
    means = {"null": MEAN - 0.3, "class": MEAN + 0.2}
    for w in (0.0, 1.0, 2.5):
        x = final_sample(pipe, class_labels=2, batch_size=4, guidance_scale=w, num_inference_steps=50, generator=0)
        expected = means["null"] + w * (means["class"] - means["null"])
        assert abs(float(x.mean()) - expected) < 4 * STD / x.numel() ** 0.5
    assert float(final_sample(pipe, num_inference_steps=50, generator=0).mean()) == pytest.approx(-0.1, abs=0.02)


# -- labels, seeds, output --------------------------------------------------------------------------------------------


def test_guidance_costs_one_evaluation_at_0_and_1_and_two_in_one_batch_elsewhere() -> None:
    pipe = pipeline(unet_2d(3))
    sizes: list[int] = []
    pipe.unet.register_forward_hook(lambda _m, args, _out: sizes.append(len(args[0])))
    for w, expected in ((0.0, 2), (1.0, 2), (3.0, 4)):
        sizes.clear()
        pipe(class_labels=[0, 1], num_inference_steps=2, guidance_scale=w, generator=0)
        assert sizes == [expected, expected]


def test_learned_variance_is_the_conditional_one_and_is_not_guided() -> None:
    scheduler = DDPMScheduler(variance_type="learned_range")
    pipe = pipeline(unet_2d(3, out_channels=2), scheduler)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor(500)
    null, label = torch.tensor([3, 3]), torch.tensor([1, 2])
    with torch.no_grad():
        guided = Guidance({"class_labels": label}, {"class_labels": null}).output(pipe.unet, x, t, 2.0, 0, 1)
        of_null, of_label = (pipe.unet(x, t, class_labels=y).sample for y in (null, label))
    torch.testing.assert_close(guided[:, :1], of_null[:, :1] + 2 * (of_label - of_null)[:, :1])
    torch.testing.assert_close(guided[:, 1:], of_label[:, 1:])
    assert pipe(class_labels=[1], guidance_scale=2.0, num_inference_steps=3, output_type="np").images.shape[-1] == 1


def test_labels_by_index_and_by_name() -> None:
    pipe = pipeline(unet_2d(3), id2label={str(k): v for k, v in NAMES.items()})
    assert pipe.id2label == NAMES
    images = [
        pipe(class_labels=labels, batch_size=size, num_inference_steps=2, generator=0, output_type="pt").images
        for labels, size in (([1, 1], None), (["dog", 1], 2), ("dog", 2), (np.int64(1), 2))
    ]
    for other in images[1:]:
        assert torch.equal(images[0], other)
    assert len(pipe(class_labels=2, num_inference_steps=1, generator=0).images) == 1


@pytest.mark.parametrize("scheduler", [CosineBetaScheduler(), DDPMScheduler(), LinearBetaScheduler()])
def test_an_image_is_the_same_in_any_batch(scheduler: Any) -> None:
    pipe = pipeline(unet_2d(channels=3), scheduler)
    arguments = {"num_inference_steps": 4, "output_type": "pt", "eta": 0.0 if type(scheduler) is DDPMScheduler else 1.0}
    whole = pipe(4, generator=10, **arguments).images
    for k in range(4):
        assert_same_images(pipe(generator=10 + k, **arguments).images[0], whole[k], evaluations=4)
    assert_same_images(pipe(2, generator=[12, 10], **arguments).images, whole[[2, 0]], evaluations=4)
    own = [torch.Generator().manual_seed(s) for s in (11, 13)]
    assert_same_images(pipe(2, generator=own, **arguments).images, whole[[1, 3]], evaluations=4)
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("cls", SOLVERS, ids=lambda c: c.__name__)
def test_all_noise_comes_from_the_generator(cls: Any) -> None:
    pipe = gaussian(LinearBetaScheduler(clip_sample=False), sample_size=4).swap_scheduler(cls)
    torch.manual_seed(1)
    first = final_sample(pipe, batch_size=2, num_inference_steps=5, generator=5)
    torch.manual_seed(2)
    alone = final_sample(pipe, num_inference_steps=5, generator=6)
    torch.testing.assert_close(first[1:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_output_types(channels: int, mode: str) -> None:
    pipe = pipeline(unet_2d(channels=channels, sample_size=(8, 12)))
    pt, array, pil = (pipe(2, num_inference_steps=2, generator=0, output_type=o).images for o in ("pt", "np", "pil"))
    assert pt.shape == (2, channels, 8, 12)
    assert array.shape == (2, 8, 12, channels)
    assert 0 <= float(pt.min()) <= float(pt.max()) <= 1
    assert np.array_equal(array, pt.permute(0, 2, 3, 1).numpy())
    assert [(image.mode, image.size) for image in pil] == [(mode, (12, 8))] * 2
    assert np.array_equal(np.asarray(pil[0]).reshape(8, 12, channels), (array[0] * 255).round())
    assert pipe(num_inference_steps=1, return_dict=False)[0][0].mode == mode


def test_bfloat16_network_with_a_float32_chain() -> None:
    pipe = pipeline(unet_2d()).to(torch.bfloat16)
    seen: list[Any] = []
    pipe.unet.register_forward_hook(lambda _m, args, _out: seen.append(args[0].dtype))
    assert final_sample(pipe, num_inference_steps=2, generator=0).dtype == torch.float32
    assert set(seen) == {torch.bfloat16}


def test_callback_contract() -> None:
    pipe, calls = pipeline(unet_2d()), []

    def zero(pipe_: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        calls.append((pipe_ is pipe, step, int(t), sorted(tensors)))
        return {"sample": torch.zeros_like(tensors["sample"])}

    inputs = ["model_output", "sample"]
    out = pipe(
        num_inference_steps=2, callback_on_step_end=zero, callback_on_step_end_tensor_inputs=inputs, output_type="pt"
    )
    assert calls == [(True, 0, 999, inputs), (True, 1, 499, inputs)]
    assert torch.all(out.images == 0.5)


def test_timesteps_of_ones_own() -> None:
    pipe = pipeline(unet_2d(), DDPMScheduler())
    chosen = [999, 400, 20]
    for target in ("DDPM", CosineBetaScheduler, "EulerDiscrete"):
        pipe = pipeline(unet_2d(), CosineBetaScheduler()).swap_scheduler(target)
        pipe(timesteps=chosen, generator=0)
        assert [round(float(t)) for t in pipe.scheduler.timesteps] == chosen
    pipe.swap_scheduler("DDIM")
    with pytest.raises(ValueError, match="DDIMScheduler"):
        pipe(timesteps=chosen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"num_inference_steps": 0}, r"num_inference_steps must be in 1\.\.1000"),
        ({"num_inference_steps": 1001}, r"num_inference_steps must be in 1\.\.1000"),
        ({"generator": [1, 2]}, "generator must be one, or one for each of 1 images"),
        ({"generator": True}, "generator must be"),
        ({"output_type": "latent"}, "output_type must be"),
        ({"callback_on_step_end_tensor_inputs": ["latents"]}, "callback_on_step_end_tensor_inputs must be among"),
        ({"eta": 1.5}, r"eta must be in \[0, 1\]"),
        ({"timesteps": [5, 5]}, "strictly descending"),
        ({"timesteps": [1000, 5]}, "strictly descending"),
        ({"timesteps": [7.5]}, "strictly descending"),
        ({"timesteps": []}, "strictly descending"),
        ({"class_labels": 3}, r"class_labels must be in 0\.\.2"),
        ({"class_labels": -1}, r"class_labels must be in 0\.\.2"),
        ({"class_labels": True}, "class_labels must be an index"),
        ({"class_labels": 1.0}, "class_labels must be an index"),
        ({"class_labels": "sevn"}, "Did you mean 'seven'"),
        ({"class_labels": "bird"}, "cat, dog, seven"),
        ({"class_labels": []}, "at least one"),
        ({"class_labels": [0, 1], "batch_size": 3}, "batch_size must be the number of class_labels, 2, and is 3"),
        ({"guidance_scale": 2.0}, "guidance_scale 2.0 needs class_labels"),
        ({"guidance_scale": float("nan"), "class_labels": 1}, "guidance_scale must be finite"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    pipe = pipeline(unet_2d(3), id2label=NAMES)
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


def test_arguments_that_this_model_or_scheduler_does_not_take() -> None:
    pipe = pipeline(unet_2d(channels=2), DDPMScheduler())
    with pytest.raises(ValueError, match="class-conditional"):
        pipe(class_labels=1, output_type="np")
    with pytest.raises(ValueError, match="needs a class-conditional model, or a guide"):
        pipe(guidance_scale=2.0, output_type="np")
    with pytest.raises(ValueError, match="1, 3 or 4 channels"):
        pipe()
    with pytest.raises(ValueError, match="DDPMScheduler, whose noise is fixed"):
        pipe(eta=0.5, output_type="np")


@pytest.mark.parametrize(
    ("config", "id2label", "message"),
    [
        ({"classes": 3}, {3: "x"}, r"keys in 0\.\.2"),
        ({"classes": 3}, {0: "x", 1: "x"}, "a name of its own"),
        ({}, {0: "x"}, "id2label needs a class-conditional unet"),
        ({"out_channels": 3}, None, "out_channels must be"),
        ({"class_embed_type": "timestep"}, None, "class_embed_type must be None"),
        ({"classes": 0}, None, "num_class_embeds must be 2 or more"),
    ],
)
def test_wrong_models(config: dict[str, Any], id2label: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(unet_2d(**config), id2label=id2label)
