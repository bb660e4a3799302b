"""The pipeline of repair around tiny networks, and around one that is exactly right."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from gaussian_unet import MEAN, STD, TARGETS, GaussianUNet
from PIL import Image
from tiny_unet import tiny_unet
from torch import Tensor

from logsnr.pipelines.pipeline_restoration import RestorationPipeline, sources
from logsnr.pipelines.restoration_operators import Blur, Downscale, Identity, Jpeg, Mask, Operator, gaussian_kernel
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler

SHAPE = (1, 8, 8)


def tiny(classes: int | None = None, **names: Any) -> RestorationPipeline:
    pipe = RestorationPipeline(tiny_unet(classes), CosineBetaScheduler(), **names)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def exact(prediction_type: str = "epsilon", size: int = 8, classes: int | None = None) -> RestorationPipeline:
    """Of independent pixels, normal with mean .2 and standard deviation .25 in [-1, 1]; float64 inside."""
    scheduler = CosineBetaScheduler(prediction_type=prediction_type)
    embeds = None if classes is None else classes + 1
    unet = GaussianUNet(scheduler.alphas_cumprod.tolist(), prediction_type, sample_size=size, num_class_embeds=embeds)
    pipe = RestorationPipeline(unet, scheduler)  # type: ignore[arg-type]
    pipe.set_progress_bar_config(disable=True)
    return pipe


def measured(operator: Operator, count: int = 1) -> Tensor:
    return operator.measure(torch.rand(count, *operator.shape, generator=torch.Generator().manual_seed(1)), 5)


HALF = Mask((torch.arange(64) % 2 == 0).view(SHAPE), 0.05)
FAST: dict[str, Any] = {"num_inference_steps": 4, "output_type": "pt", "generator": 3}


@pytest.mark.parametrize("prediction_type", TARGETS)
def test_noise_is_taken_off_as_bayes_says(prediction_type: str) -> None:
    """Independent pixels, y = x + n: posterior mean and deviation are known for each."""
    pipe, operator = exact(prediction_type), Identity(SHAPE, 0.1)
    y = measured(operator)
    out = pipe(y, operator, num_samples=200, num_inference_steps=40, generator=0, output_type="pt")
    sd, mean = STD / 2, (MEAN + 1) / 2  # on [0, 1]
    posterior = math.sqrt(1 / (1 / sd**2 + 1 / 0.1**2))
    expected = posterior**2 * (mean / sd**2 + y / 0.1**2)
    inside = (expected > 0.25) & (expected < 0.75)  # pictures are clipped to [0, 1]
    assert float((out.mean - expected)[inside].abs().mean()) < 3 * posterior / math.sqrt(200)
    assert float(out.std[inside].mean()) == pytest.approx(posterior, rel=0.05)
    assert float(out.fit.mean()) == pytest.approx(
        math.sqrt(float((y - expected).square().mean()) + posterior**2) / 0.1, rel=0.1
    )


def test_samples_have_seeds_of_their_own_in_any_batch() -> None:
    pipe = tiny()
    y = measured(HALF, 2)
    together = pipe(y, HALF, num_samples=3, **FAST).images
    for batch_size in (1, 4):
        torch.testing.assert_close(pipe(y, HALF, num_samples=3, batch_size=batch_size, **FAST).images, together)
    alone = pipe(y[1], HALF, **FAST | {"generator": 3 + 3 + 2}).images
    torch.testing.assert_close(alone[0, 0], together[1, 2])
    given = [torch.Generator().manual_seed(3 + k) for k in range(6)]
    torch.testing.assert_close(pipe(y, HALF, num_samples=3, **FAST | {"generator": given}).images, together)
    assert not torch.equal(pipe(y, HALF, **FAST | {"generator": None}).images, together[:, :1])


def test_what_is_returned() -> None:
    pipe = tiny()
    y = measured(HALF, 2)
    call = FAST | {"num_samples": 3}
    tensors, arrays = pipe(y, HALF, **call), pipe(y, HALF, **call | {"output_type": "np"})
    assert tensors.images.shape == (2, 3, 1, 8, 8)
    assert arrays.images.shape == (2, 3, 8, 8, 1)
    torch.testing.assert_close(tensors.mean, tensors.images.mean(1))
    torch.testing.assert_close(tensors.std, tensors.images.std(1))
    assert tensors.fit.shape == arrays.fit.shape == (2, 3)
    pictures = pipe(y, HALF, **call | {"output_type": "pil"}).images
    assert len(pictures) == 6
    assert isinstance(pictures[0], Image.Image)
    assert pictures[0].mode == "L"
    one = pipe(y, HALF, **FAST)
    assert float(one.std.abs().max()) == 0
    assert len(pipe(y, HALF, **FAST, return_dict=False)) == 4
    noiseless = Mask(HALF.mask)
    assert bool(pipe(y, noiseless, **FAST).fit.isnan().all())


def test_larger_pictures_are_seen_in_tiles_without_seams() -> None:
    """Of independent pixels the network's estimate is the same in any tile: with tiles and without agree."""
    operator = Blur((1, 20, 27), gaussian_kernel(1.0), 0.05)
    y = measured(operator, 2)
    for method in ("moment", "diffpir"):
        call = FAST | {"method": method, "num_samples": 2}
        whole = exact(size=8)
        whole.unet.register_to_config(sample_size=(20, 27))
        tiled, once = exact()(y, operator, **call).images, whole(y, operator, **call).images
        torch.testing.assert_close(tiled, once, rtol=0, atol=2e-3)  # round-off may end the solver an iteration later


def test_a_real_network_repairs_a_larger_picture() -> None:
    operator = Downscale((1, 12, 20), 2, 0.05)
    out = tiny(2)(measured(operator), operator, class_labels=1, guidance_scale=2.0, **FAST)
    assert out.images.shape == (1, 1, 1, 12, 20)
    assert bool(torch.isfinite(out.images).all())


def test_classes_and_guidance_reach_the_network() -> None:
    """The exact network's class k has mean .2 + .1 k, the null class -.1: where nothing is measured this is drawn."""
    pipe = exact(classes=4)
    nothing = Mask(torch.zeros(SHAPE, dtype=torch.bool), 0.05)
    y = torch.zeros(1, *SHAPE)
    for labels, guidance, expected in ((None, 1.0, -0.1), (3, 1.0, 0.5), (3, 0.0, -0.1), (0, 1.5, 0.35)):
        call = FAST | {"num_inference_steps": 20, "num_samples": 30}
        found = pipe(y, nothing, class_labels=labels, guidance_scale=guidance, **call).mean
        assert float(2 * found.mean() - 1) == pytest.approx(expected, abs=0.03)
    names = tiny(2, id2label={0: "dark", 1: "light"})
    by_name, by_index = (names(measured(HALF), HALF, class_labels=label, **FAST).images for label in ("light", 1))
    torch.testing.assert_close(by_name, by_index)


def test_strength_keeps_what_is_larger_than_the_noise() -> None:
    pipe = exact()
    nothing = Mask(torch.zeros(SHAPE, dtype=torch.bool), 0.05)
    image = torch.zeros(SHAPE)
    image[:, :, 4:] = 1.0
    y = torch.zeros(1, *SHAPE)

    def edge(strength: float) -> float:
        found = pipe(y, nothing, image=image, strength=strength, num_samples=20, **FAST | {"num_inference_steps": 20})
        return float(found.mean[..., 4:].mean() - found.mean[..., :4].mean())

    assert edge(0.05) > 0.8 > edge(0.3) > 0.05
    assert edge(1.0) == pytest.approx(0, abs=0.05)


def test_the_networks_weights_learn_as_before() -> None:
    pipe = tiny()
    pipe(measured(HALF), HALF, **FAST)
    assert all(parameter.requires_grad for parameter in pipe.unet.parameters())


def test_what_it_costs_is_known_before() -> None:
    pipe = tiny()
    assert pipe.evaluations("diffpir", 30) == 30
    assert pipe.evaluations("moment", 10, {"num_iterations": 4}) == 50
    assert pipe.memory("moment") > pipe.memory("diffpir") > 0
    assert pipe.memory("particles", {"num_particles": 8}) == 8 * pipe.memory("moment")
    seen = []
    pipe(measured(HALF), HALF, callback_on_step_end=lambda p, i, t, kept: seen.append((i, t)), **FAST)
    assert [i for i, _ in seen] == [0, 1, 2, 3]


def test_it_travels_with_a_scheduler_of_stock(tmp_path: Path) -> None:
    pipe = tiny(2, id2label={0: "dark", 1: "light"})
    pipe.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == set(sources())
    again: Any = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    again.set_progress_bar_config(disable=True)
    assert type(again.scheduler) is DDPMScheduler
    operators = again.operators
    assert operators is not pipe.operators
    same = operators.Mask(HALF.mask, 0.05)
    y = measured(HALF)
    call = FAST | {"class_labels": "light"}
    torch.testing.assert_close(again(y, same, **call).images, pipe(y, HALF, **call).images, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"measurement": torch.zeros(1, 1, 7, 8)}, "measurement must be (n, *(1, 8, 8))"),
        ({"measurement": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)}, "floats in [0, 1], and is torch.uint8"),
        ({"measurement": torch.full(SHAPE, math.nan)}, "measurement must be finite"),
        ({"operator": Identity((1, 6, 8))}, "at least 8×8 pixels"),
        ({"operator": Identity((3, 8, 8))}, "must have 1 channels"),
        ({"operator": Jpeg(SHAPE, 10)}, "method moment needs a linear operator, and Jpeg isn't"),
        ({"operator": Blur(SHAPE, gaussian_kernel(1.0)), "method": "repaint"}, "method repaint is for masks"),
        ({"operator": Identity(SHAPE, 0.1), "method": "repaint"}, "for masks that hide something"),
        ({"method": "magic"}, "method must be one of moment"),
        ({"num_samples": 0}, "num_samples must be 1 or more"),
        ({"strength": 0.0}, "strength must be above 0"),
        ({"strength": 0.5, "image": torch.zeros(3, 8, 8)}, "image must be (1, *(1, 8, 8))"),
        ({"output_type": "gif"}, "output_type must be"),
        ({"class_labels": 5}, "class_labels has 5, which is no class. Classes: dark, light"),
        ({"class_labels": "blue"}, "Classes: dark, light"),
        ({"class_labels": [0, 1]}, "one for each of 1 measurements"),
        ({"guidance_scale": 2.0}, "guidance_scale needs class_labels"),
        ({"num_inference_steps": 5000}, "num_inference_steps must be in 1.."),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"generator": [1, 2]}, "one for each of 1 samples"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    pipe = tiny(2, id2label={0: "dark", 1: "light"})
    call = {"measurement": torch.zeros(SHAPE), "operator": HALF, "num_inference_steps": 2} | change
    with pytest.raises(ValueError, match=r".") as error:
        pipe(**call)
    assert words in str(error.value)


def test_models_that_do_not_estimate_are_refused() -> None:
    distilled = CosineBetaScheduler()
    distilled.register_to_config(_consistency=2)
    with pytest.raises(ValueError, match="distilled"):
        RestorationPipeline(tiny_unet(), distilled)
    with pytest.raises(ValueError, match="alphas_cumprod"):
        RestorationPipeline(tiny_unet(), FlowMatchEulerDiscreteScheduler())  # type: ignore[arg-type]
