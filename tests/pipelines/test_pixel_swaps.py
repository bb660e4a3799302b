"""Another scheduler in the pixel pipeline: the same noise schedule, or a refusal."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from gaussian_unet import honours_trained_betas, scheduler_classes
from pixel_parts import HONEST, final_sample, gaussian, pipeline, unet_2d

from logsnr.models.schedules import known_schedules, resolve_scheduler_class
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler, LinearBetaScheduler, ScheduleWarning
from logsnr.tasks.load import load

pytestmark = pytest.mark.filterwarnings(  # stock's numpy 1 habits, and torchsde on the last digit of its interval
    "ignore:__array:DeprecationWarning", "ignore:Should have t:UserWarning"
)


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
def test_each_scheduler_of_diffusers_on_a_loaded_model(cls: Any, saved: Path, diffusers_log: list[str]) -> None:
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
        of_itself = "lower_order_final"  # DPMSolverSinglestep's
        assert [line for line in diffusers_log if of_itself not in line] == []
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


OTHER_ENDS = {
    "Inverse": "goes from images to noise",
    "Ancestral": "adds noise",
    "DDPM": "adds noise",
    "SDE": "adds noise",
    "LCM": "adds noise, and takes few steps",
    "TCD": "adds noise, and takes few steps",
    "SASolver": "adds noise",
}
"""Parts of names of solvers that have no images to converge to."""
SOLVERS = [cls for cls in HONEST if not any(part in cls.__name__ for part in OTHER_ENDS)]


def guided_near_the_borders(**options: Any) -> Any:
    """At guidance 2 most pixels of class 1 would lie above 1."""
    scheduler = CosineBetaScheduler(prediction_type="v_prediction", **options)
    return gaussian(scheduler, mean=0.75, num_class_embeds=3, sample_size=8)


def drawn(pipe: Any, steps: int) -> torch.Tensor:
    asked = {"class_labels": [1] * 4, "guidance_scale": 2.0, "num_inference_steps": steps, "eta": 0.0}
    return final_sample(pipe, **asked, generator=0).clamp(-1, 1)


def rmse(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize("cls", SOLVERS, ids=lambda c: c.__name__)
def test_all_solvers_converge_to_the_same_guided_images_where_clipping_is_active(cls: Any) -> None:
    converged = drawn(guided_near_the_borders(clip_sample=False), 1000)
    assert float((converged == 1).float().mean()) > 0.5
    spacing = "timestep_spacing" in inspect.signature(cls).parameters and cls.__name__ != "PNDMScheduler"
    pipe = guided_near_the_borders()
    pipe.swap_scheduler(cls, **({"timestep_spacing": "trailing"} if spacing else {}))
    assert rmse(drawn(pipe, 100), converged) < 0.005


@pytest.mark.parametrize("name", ["DDIM", "DDIMParallel", "HeunDiscrete"])
def test_what_a_swap_sets_by_itself_is_undone_by_the_next(name: str) -> None:
    pipe = guided_near_the_borders()
    assert pipe.swap_scheduler(name).scheduler.config["clip_sample"] is False
    assert pipe.swap_scheduler(name).scheduler.config["clip_sample"] is False
    for target in ("DDPM", "DPMSolverMultistep", "CosineBeta"):
        assert pipe.swap_scheduler(target).scheduler.config["clip_sample"] is True
    assert pipe.swap_scheduler(name, clip_sample=True).scheduler.config["clip_sample"] is True
    assert pipe.swap_scheduler("CosineBeta", clip_sample=False).scheduler.config["clip_sample"] is False
    assert pipe.swap_scheduler(name).swap_scheduler("CosineBeta").scheduler.config["clip_sample"] is False


def test_stock_alone_converges_too_with_the_solver_that_was_saved(tmp_path: Path) -> None:
    """Stock's pipelines step as the saved configuration says; so they did with x_0 clipped and eps not."""
    pipe = gaussian(CosineBetaScheduler(prediction_type="v_prediction"), mean=0.95, sample_size=8)
    converged = final_sample(pipe.swap_scheduler("DDIM"), batch_size=4, num_inference_steps=1000, generator=0)
    pipe.swap_scheduler("DDIM", timestep_spacing="trailing").scheduler.save_pretrained(tmp_path)
    stock = DDIMPipeline(pipe.unet, DDIMScheduler.from_pretrained(tmp_path))
    stock.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(k) for k in range(4)]
    images = stock(batch_size=4, num_inference_steps=100, generator=generators, output_type="pt").images
    assert rmse(images * 2 - 1, converged.clamp(-1, 1)) < 0.005
