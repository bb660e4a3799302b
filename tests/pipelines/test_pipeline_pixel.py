"""The pixel pipeline: exact answers on Gaussian data, swaps and refusals, and folders that load without logsnr."""

import inspect
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from gaussian_unet import MEAN, STD, GaussianUNet, honours_trained_betas, scheduler_classes
from rounding import assert_same_images

from logsnr.models.schedules import known_schedules, resolve_scheduler_class
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler, LinearBetaScheduler, ScheduleWarning
from logsnr.tasks.load import load

HONEST = [cls for cls in scheduler_classes() if honours_trained_betas(cls)]
# These aren't samplers of the data's distribution: two go from image to noise, two are for distilled models.
NOT_SAMPLERS = {"DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler", "LCMScheduler", "TCDScheduler"}
SOLVERS = [cls for cls in HONEST if cls.__name__ not in NOT_SAMPLERS]
pytestmark = pytest.mark.filterwarnings(  # stock's numpy 1 habits, and torchsde on the last digit of its interval
    "ignore:__array:DeprecationWarning", "ignore:Should have t:UserWarning"
)
NAMES = {0: "cat", 1: "dog", 2: "seven"}


def unet_2d(classes: int | None = None, channels: int = 1, seed: int = 0, **config: Any) -> Any:
    torch.manual_seed(seed)
    return UNet2DModel(
        **{
            "sample_size": 8,
            "in_channels": channels,
            "out_channels": channels,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "num_class_embeds": None if classes is None else classes + 1,
            **config,
        }
    ).eval()


def pipeline(unet: Any, scheduler: Any = None, **arguments: Any) -> Any:
    scheduler = CosineBetaScheduler(prediction_type="v_prediction") if scheduler is None else scheduler
    pipe = PixelDiffusionPipeline(unet, scheduler, **arguments)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def gaussian(scheduler: Any, **config: Any) -> Any:
    unet = GaussianUNet(scheduler.alphas_cumprod.tolist(), scheduler.config["prediction_type"], **config)
    return pipeline(unet, scheduler)


def final_sample(pipe: Any, **arguments: Any) -> torch.Tensor:
    """The last sample itself: images are clipped to [0, 1]."""
    kept = []

    def keep(_pipe: Any, _step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        kept[:] = [tensors["sample"]]
        return tensors

    pipe(output_type="pt", callback_on_step_end=keep, **arguments)
    return torch.as_tensor(kept[0])


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What diffusers logs as a warning or worse."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("diffusers").addHandler(handler)
    yield lines
    logging.getLogger("diffusers").removeHandler(handler)


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
    arguments |= {"eta": 0.0} if cls.__name__ == "TCDScheduler" else {}
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
    pipe._guidance_scale = 2.0
    with torch.no_grad():
        guided = pipe._predict(x, t, torch.cat([null, label]))
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
        ({"guidance_scale": 2.0}, "guidance_scale needs class_labels"),
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
    with pytest.raises(ValueError, match="guidance_scale needs a class-conditional model"):
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


# -- swaps ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unconditional model, which every form of loading takes."""
    path = tmp_path_factory.mktemp("saved") / "model"
    pipeline(unet_2d(), LinearBetaScheduler(prediction_type="v_prediction")).save_pretrained(path)
    return path


def verdict(cls: Any) -> str:
    """Of a stock scheduler, before it is tried: what becomes of it on a model of ours."""
    if "trained_betas" not in inspect.signature(cls).parameters:
        return "not applicable"  # flow matching, Karras' sigmas, tokens: no betas could be given to it
    return "same schedule" if honours_trained_betas(cls) else "refused"


@pytest.mark.parametrize("cls", scheduler_classes(), ids=lambda c: f"{c.__name__}: {verdict(c)}")
def test_each_scheduler_of_diffusers_on_a_loaded_model(cls: Any, saved: Path, log: list[str]) -> None:
    pipe, stock = load(saved), DDPMPipeline.from_pretrained(saved)
    pipe.set_progress_bar_config(disable=True)
    own, before = pipe.scheduler, dict(pipe.config)
    if verdict(cls) == "same schedule":
        assert pipe.swap_scheduler(cls.__name__.removesuffix("Scheduler")) is pipe
        assert type(pipe.scheduler) is cls
        assert pipe.config["scheduler"] == ("diffusers", cls.__name__)
        assert torch.equal(pipe.scheduler.alphas_cumprod, own.alphas_cumprod)
        assert np.isfinite(pipe(num_inference_steps=5, generator=0, output_type="np").images).all()
        # whoever has stock diffusers alone swaps so
        assert torch.equal(cls.from_config(stock.scheduler.config).alphas_cumprod, own.alphas_cumprod)
        pipe.swap_scheduler("LinearBeta")
        assert type(pipe.scheduler) is LinearBetaScheduler
        assert torch.equal(pipe.scheduler.betas, own.betas)
        left = {k: v for k, v in own.config.items() if k != "_use_default_values"}
        assert left.items() <= pipe.scheduler.config.items()
        assert [line for line in log if "lower_order_final" not in line] == []  # DPMSolverSinglestep's, of itself
    else:
        with pytest.raises(
            ValueError, match=rf"{cls.__name__} can't sample this model: it (would use|has no|can't be)"
        ):
            pipe.swap_scheduler(cls)
        assert pipe.scheduler is own
        assert dict(pipe.config) == before


@pytest.mark.parametrize("name", known_schedules())
def test_each_scheduler_of_ours_on_a_loaded_model(name: str, saved: Path) -> None:
    pipe, cls = load(saved), resolve_scheduler_class(name)
    pipe.set_progress_bar_config(disable=True)
    own = pipe.scheduler
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ScheduleWarning)
        pipe.swap_scheduler(cls)
    assert type(pipe.scheduler) is cls
    assert torch.equal(pipe.scheduler.alphas_cumprod, own.alphas_cumprod)
    told = {str(w.message) for w in caught if "betas that aren't its own" in str(w.message)}
    assert bool(told) == (cls is not LinearBetaScheduler and not cls.learned)  # what is learned has none of its own
    assert np.isfinite(pipe(num_inference_steps=5, generator=0, output_type="np").images).all()


@pytest.mark.parametrize("cls", HONEST, ids=lambda c: c.__name__)
def test_swap_at_zero_terminal_snr_is_finite_or_refused(cls: Any) -> None:
    own = CosineBetaScheduler(prediction_type="v_prediction", zero_terminal_snr=True)
    pipe = gaussian(own, sample_size=8)
    try:
        pipe.swap_scheduler(cls)
    except ValueError:
        assert "rescale_betas_zero_snr" not in cls.__init__.__wrapped__.__code__.co_varnames
        return
    torch.testing.assert_close(pipe.scheduler.alphas_cumprod, own.alphas_cumprod, atol=1e-6, rtol=0)
    assert bool(final_sample(pipe, num_inference_steps=10, generator=0).isfinite().all())
    if cls in (DDPMScheduler, DDIMScheduler):
        assert torch.equal(pipe.scheduler.betas, own.betas)  # the flag isn't needed, and would move them
    pipe.swap_scheduler(CosineBetaScheduler)
    assert torch.equal(pipe.scheduler.betas, own.betas)


def test_swap_refuses_what_cannot_run_the_target_or_the_variance() -> None:
    pipe = pipeline(unet_2d(), CosineBetaScheduler(prediction_type="x0_minus_noise"))
    for cls in HONEST:
        with pytest.raises(ValueError, match="x0_minus_noise"):
            pipe.swap_scheduler(cls)
    pipe = pipeline(unet_2d(channels=3, out_channels=6), LinearBetaScheduler(variance_type="learned_range"))
    refused = set()
    for cls in HONEST:
        try:
            pipe.swap_scheduler(cls)
        except ValueError as error:
            refused.add((cls.__name__, "6 channels" in str(error)))
        else:
            pipe(num_inference_steps=6, generator=0)
            pipe.swap_scheduler("LinearBeta")
    assert all(told for _, told in refused)
    names = {name for name, _ in refused}
    assert {"DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler", "PNDMScheduler"} <= names
    assert not {"DDPMScheduler", "DPMSolverMultistepScheduler"} & names


def test_swap_finds_solvers_that_diverge() -> None:
    pipe = gaussian(CosineBetaScheduler(clip_sample=False))
    with pytest.raises(ValueError, match="timestep_spacing"):
        pipe.swap_scheduler("PNDM")
    assert pipe.swap_scheduler("PNDM", timestep_spacing="leading").scheduler.config["timestep_spacing"] == "leading"


def test_swap_names_and_options() -> None:
    pipe = pipeline(unet_2d())
    with pytest.raises(ValueError, match=r"Did you mean .*DPMSolverMultistep"):
        pipe.swap_scheduler("DPMSolverMultstep")
    with pytest.raises(ValueError, match="CosineBeta"):
        pipe.swap_scheduler("Dormand")
    with pytest.raises(ValueError, match="no option solver"):
        pipe.swap_scheduler("DDIM", solver="heun")
    with pytest.raises(ValueError, match="another noise schedule"):
        pipe.swap_scheduler("DDIM", trained_betas=None)
    with pytest.raises(ValueError, match="another noise schedule"):
        pipe.swap_scheduler("DDIM", num_train_timesteps=4000, trained_betas=[0.1] * 4000)
    assert pipe.swap_scheduler("DPMSolverMultistep", solver_order=3).scheduler.config["solver_order"] == 3
    with pytest.raises(ValueError, match="no alphas_cumprod to compare"):
        pipeline(unet_2d(), diffusers.EDMEulerScheduler()).swap_scheduler("DDIM")


def test_from_pipe_takes_the_parts_of_a_stock_pipeline() -> None:
    stock = DDPMPipeline(unet_2d(), DDPMScheduler(num_train_timesteps=3))
    pipe = PixelDiffusionPipeline.from_pipe(stock)
    assert pipe.unet is stock.unet
    assert type(pipe.swap_scheduler("DDIM").scheduler) is DDIMScheduler


def test_swap_between_stock_schedulers_keeps_what_was_left_at_its_default() -> None:
    pipe = pipeline(unet_2d(), DDPMScheduler(num_train_timesteps=400))
    betas = pipe.scheduler.betas
    pipe.swap_scheduler("LCM", original_inference_steps=20)  # whose own defaults are scaled_linear from 8.5e-4
    assert torch.equal(pipe.scheduler.betas, betas)


# -- folders ----------------------------------------------------------------------------------------------------------


def model_index(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "model_index.json").read_text()))


def assert_no_path(folder: Path, *paths: Path) -> None:
    for file in folder.rglob("*.json"):
        for path in (*paths, folder):
            assert str(path) not in file.read_text(), file


def test_unconditional_folder_is_stock(tmp_path: Path, log: list[str]) -> None:
    own = CosineBetaScheduler(prediction_type="v_prediction")
    pipe = pipeline(unet_2d(), own)
    pipe.save_pretrained(tmp_path / "a")
    index = model_index(tmp_path / "a")
    assert set(index) == {"_class_name", "_diffusers_version", "unet", "scheduler"}
    assert (index["_class_name"], index["scheduler"]) == ("DDPMPipeline", ["diffusers", "DDPMScheduler"])
    stock = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "a")
    assert type(stock) is DDPMPipeline
    assert torch.equal(stock.scheduler.betas, own.betas)
    assert stock.scheduler.config["_logsnr"] == own.config["_logsnr"]

    again = PixelDiffusionPipeline.from_pretrained(tmp_path / "a").swap_scheduler(CosineBetaScheduler)
    assert torch.equal(again.scheduler.betas, own.betas)
    again.set_progress_bar_config(disable=True)
    images = [p(num_inference_steps=3, generator=0, output_type="pt").images for p in (pipe, again)]
    assert_same_images(*images, evaluations=3)
    again.save_pretrained(tmp_path / "b")
    assert_no_path(tmp_path, tmp_path / "a", tmp_path / "b")
    assert log == []


def test_stock_solvers_that_the_stock_pipeline_cannot_run_are_saved_as_ddpm(tmp_path: Path) -> None:
    pipe = pipeline(unet_2d(), DDPMScheduler()).swap_scheduler("EulerDiscrete")
    with pytest.warns(UserWarning, match="EulerDiscreteScheduler is saved as DDPMScheduler"):
        pipe.save_pretrained(tmp_path)
    assert model_index(tmp_path)["scheduler"] == ["diffusers", "DDPMScheduler"]
    assert torch.equal(DDPMPipeline.from_pretrained(tmp_path).scheduler.betas, pipe.scheduler.betas)
    pipe.swap_scheduler("DDIM").save_pretrained(tmp_path)
    assert model_index(tmp_path)["scheduler"] == ["diffusers", "DDIMScheduler"]


def test_save_config_alone_is_not_pushed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="push_to_hub"):
        pipeline(unet_2d()).save_config(tmp_path, push_to_hub=True)


OTHERS_SCHEDULER = """
import torch
from logsnr.schedulers.scheduling_beta import BetaScheduler


class SquareBetaScheduler(BetaScheduler):
    @staticmethod
    def make_betas(num_train_timesteps, *, end=0.03):
        return torch.linspace(0.01, end**0.5, num_train_timesteps) ** 2
"""


def test_a_scheduler_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_schedules.py").write_text(OTHERS_SCHEDULER)
    monkeypatch.syspath_prepend(tmp_path)
    from my_schedules import SquareBetaScheduler  # type: ignore[import-not-found]

    own = SquareBetaScheduler()
    with pytest.warns(UserWarning, match="saved as DDPMScheduler"):
        pipeline(unet_2d(3), own).save_pretrained(tmp_path / "a")
    assert model_index(tmp_path / "a")["scheduler"] == ["diffusers", "DDPMScheduler"]
    assert torch.equal(DDPMScheduler.from_pretrained(tmp_path / "a" / "scheduler").betas, own.betas)
    with pytest.raises(ValueError, match=r"doesn't stand alone.*x0_minus_noise"):
        pipeline(unet_2d(), SquareBetaScheduler(prediction_type="x0_minus_noise")).save_pretrained(tmp_path / "b")


LOAD = """
import json, os, sys


class NoLogsnr:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "logsnr":
            raise ModuleNotFoundError(f"no {name} here", name=name)


sys.meta_path.insert(0, NoLogsnr())
import numpy as np
from diffusers import DDPMPipeline, DiffusionPipeline

root, stem = sys.argv[1:]
arguments = {"num_inference_steps": 3, "generator": 0, "output_type": "np"}


def run(name, folder, resave=None, labels=None, **how):
    pipe = DiffusionPipeline.from_pretrained(os.path.join(root, folder), **how)
    pipe.set_progress_bar_config(disable=True)
    if resave:
        pipe.save_pretrained(os.path.join(root, resave))
    if type(pipe) is DDPMPipeline:
        return
    np.save(os.path.join(root, name), pipe(class_labels=labels, **arguments).images)


run("a_stock", "plain")
run("a_own", "plain", custom_pipeline=stem, trust_remote_code=True, resave="plain2")
run("b", "classes", labels="dog", trust_remote_code=True, resave="classes2")
run("b2", "classes2", labels=["dog"], trust_remote_code=True)
run("c", "ours_only", trust_remote_code=True)
try:
    run("d", "classes")
except ValueError as error:
    assert "trust_remote_code" in str(error)
else:
    raise AssertionError("ran remote code unasked")
assert not any(m.split(".")[0] == "logsnr" for m in sys.modules)
"""


def test_folders_load_where_logsnr_is_not_installed(tmp_path: Path) -> None:
    own = CosineBetaScheduler(prediction_type="v_prediction")
    plain, classes = pipeline(unet_2d(), own), pipeline(unet_2d(3), own, id2label=NAMES)
    ours_only = pipeline(unet_2d(), LinearBetaScheduler(prediction_type="x0_minus_noise"))
    plain.save_pretrained(tmp_path / "plain")
    classes.save_pretrained(tmp_path / "classes")
    ours_only.save_pretrained(tmp_path / "ours_only")
    index = model_index(tmp_path / "classes")
    stem, cls = index["_class_name"]
    assert cls == "PixelDiffusionPipeline"
    assert (tmp_path / "classes" / f"{stem}.py").is_file()
    assert index["id2label"] == {"0": "cat", "1": "dog", "2": "seven"}
    assert (tmp_path / "classes" / "scheduler" / f"{index['scheduler'][0]}.py").is_file()

    cache = {"HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path), stem],
        env={**os.environ, **cache},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "were not found in your environment" not in done.stderr, done.stderr
    assert "are not expected" not in done.stderr, done.stderr
    assert "Expected types" not in done.stderr, done.stderr

    arguments = {"num_inference_steps": 3, "generator": 0, "output_type": "np"}
    saved = {name: np.load(tmp_path / f"{name}.npy") for name in ("a_own", "b", "b2", "c")}
    ddpm = pipeline(plain.unet, DDPMScheduler.from_config(own.config))
    assert_same_images(saved["a_own"], ddpm(**arguments).images, evaluations=3)
    assert_same_images(saved["b"], classes(class_labels=1, **arguments).images, evaluations=3)
    assert_same_images(saved["b2"], saved["b"], evaluations=3)
    assert_same_images(saved["c"], ours_only(**arguments).images, evaluations=3)
    for name in ("plain", "classes"):  # saved again by the remote code: the same files
        assert model_index(tmp_path / name) == model_index(tmp_path / f"{name}2")
        files = [
            sorted(p.relative_to(f).as_posix() for p in f.rglob("*.*"))
            for f in (tmp_path / name, tmp_path / f"{name}2")
        ]
        assert files[0] == files[1]
        assert_no_path(tmp_path / f"{name}2", tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("label", [None, 1, "seven"])
def test_to_stock_is_the_same_network(label: Any, dtype: torch.dtype) -> None:
    pipe = pipeline(unet_2d(3).to(dtype), id2label=NAMES)
    stock = pipe.to_stock(label)
    x, t = torch.randn(2, 1, 8, 8, dtype=dtype), torch.tensor(300)
    index = 3 if label is None else pipe.get_label_ids(label)[0]
    with torch.no_grad():
        ours = pipe.unet(x, t, class_labels=torch.full((2,), index)).sample
        its = stock.unet(x, t).sample
    torch.testing.assert_close(
        its, ours, **({"atol": 1e-10, "rtol": 0} if dtype == torch.float64 else {"atol": 1e-5, "rtol": 1e-4})
    )
    assert (type(stock), type(stock.unet), type(stock.scheduler)) == (DDPMPipeline, UNet2DModel, DDPMScheduler)
    assert stock.unet.config["num_class_embeds"] is None
    assert set(stock.unet.config) - {"_use_default_values"} <= set(pipe.unet.config)
    assert torch.equal(stock.scheduler.betas, pipe.scheduler.betas)


def test_to_stock_copies_an_unconditional_model_and_refuses_what_has_no_stock_form(tmp_path: Path) -> None:
    pipe = pipeline(unet_2d())
    stock = pipe.to_stock()
    for name, weight in pipe.unet.state_dict().items():
        assert torch.equal(weight, stock.unet.state_dict()[name])
        assert weight.data_ptr() != stock.unet.state_dict()[name].data_ptr()
    stock.save_pretrained(tmp_path)
    assert torch.equal(DDPMPipeline.from_pretrained(tmp_path).scheduler.betas, pipe.scheduler.betas)
    with pytest.raises(ValueError, match="class-conditional"):
        pipe.to_stock(1)
    with pytest.raises(ValueError, match="no stock form"):
        pipeline(unet_2d(), CosineBetaScheduler(prediction_type="x0_minus_noise")).to_stock()
