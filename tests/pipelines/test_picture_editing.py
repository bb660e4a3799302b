"""Pictures changed by the pipelines: as stock changes them, as theory has it on Gaussian data, and masks that hold."""

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.deepfloyd_if.pipeline_if_img2img import IFImg2ImgPipeline
from diffusers.pipelines.deepfloyd_if.pipeline_if_inpainting import IFInpaintingPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from gaussian_unet import MEAN, STD
from PIL import Image
from pixel_parts import NAMES, final_sample, gaussian, unet_2d
from pixel_parts import pipeline as pixel_pipeline
from rounding import assert_same_images
from tiny_prompted import tiny_prompted_unet, tiny_text_encoder, tiny_tokenizer

from logsnr.pipelines.pipeline_text_to_image import TextToImagePipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.schedulers.scheduling_few_step import FewStepScheduler

pytestmark = pytest.mark.filterwarnings(  # stock's numpy 1 habits, and torchsde on the last digit of its interval
    "ignore:__array:DeprecationWarning", "ignore:Should have t:UserWarning"
)
SCHEDULERS = [
    *("DDPM", "DDIM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "EulerDiscrete", "HeunDiscrete"),
    *("EulerAncestralDiscrete", "KDPM2Discrete", "PNDM", FewStepScheduler, CosineBetaScheduler),
]
PROMPTS = ["a red fox", "green grass"]
EVALUATIONS = 5


def pipeline(channels: int = 3) -> Any:
    scheduler = CosineBetaScheduler(prediction_type="v_prediction")
    pipe = TextToImagePipeline(tiny_prompted_unet(channels), scheduler, tiny_tokenizer(), tiny_text_encoder())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photographs(count: int = 2, mode: str = "RGB") -> list[Image.Image]:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    values = np.random.default_rng(0).integers(0, 256, (count, 8, 8, *channels), np.uint8)
    return [Image.fromarray(value, mode) for value in values]


def hole(columns: int = 4) -> Image.Image:
    """White at the left."""
    values = np.zeros((8, 8), np.uint8)
    values[:, :columns] = 255
    return Image.fromarray(values)


def draw(pipe: Any, **arguments: Any) -> Any:
    made = {"prompt": PROMPTS, "num_inference_steps": 2 * EVALUATIONS, "generator": 0, "output_type": "np"}
    return pipe(**made | arguments).images


def stock_of(cls: Any, pipe: Any) -> Any:
    """A pipeline of stock's with the same parts and scheduler."""
    stock = cls(**pipe.to_stock().components, requires_safety_checker=False)
    stock.scheduler = copy.deepcopy(pipe.scheduler)
    stock.set_progress_bar_config(disable=True)
    return stock


def draw_stock(stock: Any, **arguments: Any) -> Any:
    generators = [torch.Generator().manual_seed(k) for k in range(2)]
    made = {"num_inference_steps": 2 * EVALUATIONS, "output_type": "np", "clean_caption": False}
    return stock(PROMPTS, generator=generators, **made | arguments).images


# -- As a whole --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["DDPM", "DDIM", "DPMSolverMultistep", "UniPCMultistep", "EulerDiscrete", "few"])
def test_the_same_noise_gives_the_pictures_of_stock(target: str) -> None:
    pipe = pipeline().swap_scheduler(FewStepScheduler if target == "few" else target)
    stock = stock_of(IFImg2ImgPipeline, pipe)
    for strength in (0.3, 0.75):
        guidance = 1.0 if target == "few" else 3.0
        how = {"image": photographs(), "strength": strength, "guidance_scale": guidance}
        np.testing.assert_allclose(draw(pipe, **how), draw_stock(stock, **how), rtol=0, atol=1e-6)
        assert pipe.num_timesteps == int(2 * EVALUATIONS * strength)


def of_gaussian(noise_again: bool, t: int, picture: float) -> tuple[float, float]:
    """Mean and standard deviation of x_0 drawn from x_t = a picture + s noise, of pixels N(MEAN, STD²).

    By the reverse SDE it is x_0 | x_t; by the ODE the map of x_t's distribution to that of x_0, which is linear.
    """
    alpha_bar = float(CosineBetaScheduler().alphas_cumprod[t].double())
    a, s, total = alpha_bar**0.5, (1 - alpha_bar) ** 0.5, alpha_bar * STD**2 + 1 - alpha_bar
    gain = a * STD**2 / total if noise_again else STD / total**0.5
    rest = STD**2 * s**2 / total if noise_again else 0.0
    return MEAN + gain * a * (picture - MEAN), ((gain * s) ** 2 + rest) ** 0.5


@pytest.mark.parametrize("strength", [0.3, 0.6])
@pytest.mark.parametrize(
    ("target", "steps", "noise_again"),
    [
        (CosineBetaScheduler, 500, True),
        ("DDPM", 500, True),
        ("EulerAncestralDiscrete", 500, True),
        ("DPMSolverMultistep", 50, False),
        ("UniPCMultistep", 50, False),
        ("HeunDiscrete", 50, False),
        (FewStepScheduler, 50, False),
    ],
)
def test_of_gaussian_data_strength_does_what_theory_says(
    target: Any, steps: int, noise_again: bool, strength: float
) -> None:
    pipe = gaussian(CosineBetaScheduler(prediction_type="v_prediction", clip_sample=False))
    pipe.swap_scheduler(target, **({"timestep_spacing": "trailing"} if isinstance(target, str) else {}))
    x = final_sample(
        pipe, image=torch.full((1, 64, 64), 0.9), strength=strength, num_inference_steps=steps, generator=0
    )
    mean, std = of_gaussian(noise_again, round(1000 * strength) - 1, 0.8)
    assert float(x.mean()) == pytest.approx(mean, abs=0.012)  # three standard errors of 4,096 pixels
    assert float(x.std()) == pytest.approx(std, rel=0.05)


def test_at_strength_1_nothing_of_the_picture_is_left() -> None:
    pipe = pipeline()
    for target in (CosineBetaScheduler, "EulerDiscrete"):
        pipe.swap_scheduler(target)
        np.testing.assert_array_equal(draw(pipe, image=photographs(), strength=1.0), draw(pipe))


def test_less_strength_stays_nearer() -> None:
    pipe, (picture, _) = pipeline(), photographs()
    clean = np.asarray(picture) / 255
    far = [
        np.abs(draw(pipe, image=picture, strength=strength) - clean).mean() for strength in (0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    assert far == sorted(far)
    np.testing.assert_array_equal(draw(pipe, image=picture), draw(pipe, image=picture, strength=0.7))


# -- With a mask -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", SCHEDULERS)
def test_what_is_black_in_the_mask_is_kept_exactly(target: Any) -> None:
    pipe = pipeline().swap_scheduler(target)
    for strength in (None,) if target == "PNDM" else (None, 0.6):
        images = draw(pipe, image=photographs(), mask_image=hole(), strength=strength, output_type="pil")
        for image, picture in zip(images, photographs(), strict=True):
            np.testing.assert_array_equal(np.asarray(image)[:, 4:], np.asarray(picture)[:, 4:])
            assert (np.asarray(image)[:, :4] != np.asarray(picture)[:, :4]).mean() > 0.8


@pytest.mark.parametrize("target", ["DDPM", "DPMSolverMultistep", "EulerDiscrete", "KDPM2Discrete", FewStepScheduler])
def test_the_network_is_shown_what_is_known_as_it_is(target: Any) -> None:
    """Of pixels that are independent the hole is then as if there were no picture."""
    pipe = gaussian(CosineBetaScheduler(prediction_type="v_prediction", clip_sample=False)).swap_scheduler(target)
    white = torch.zeros(1, 64, 64)
    white[:, :, :32] = 1
    shown = []
    pipe.unet.register_forward_hook(lambda _m, args, _out: shown.append(args[0][..., 32:]))
    how = {"image": torch.full((1, 64, 64), 0.9), "mask_image": white, "num_inference_steps": 40, "generator": 0}
    x = pipe(output_type="pt", **how).images
    for known in shown:
        torch.testing.assert_close(known, torch.full_like(known, 0.8))
    alone = pipe(output_type="pt", num_inference_steps=40, generator=0).images
    torch.testing.assert_close(x[..., :32], alone[..., :32])
    torch.testing.assert_close(x[..., 32:], torch.full_like(x[..., 32:], 0.9))


@pytest.mark.parametrize("target", ["DDPM", "DDIM", "DPMSolverMultistep", "UniPCMultistep"])
def test_the_same_noise_gives_the_inpainting_of_stock(target: str) -> None:
    pipe = pipeline().swap_scheduler(target)
    stock = stock_of(IFInpaintingPipeline, pipe)
    how = {"image": photographs(), "mask_image": hole(), "strength": 0.75, "guidance_scale": 3.0}
    np.testing.assert_allclose(draw(pipe, **how), draw_stock(stock, **how), rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", ["DDPM", "DDIM", "DPMSolverMultistep", "UniPCMultistep"])
def test_at_strength_1_stock_begins_with_a_trace_of_what_is_hidden_and_ours_does_not(target: str) -> None:
    """sqrt(alpha_bar_T) x_0 of it. Of mid-gray, x_0 = 0, that is nothing, and the pictures are the same."""
    pipe = pipeline().swap_scheduler(target)
    stock = stock_of(IFInpaintingPipeline, pipe)
    pictures = torch.from_numpy(np.stack(photographs())).movedim(-1, 1) / 255
    how = {"mask_image": hole(), "guidance_scale": 3.0}
    images = draw(pipe, image=pictures, **how)
    assert np.abs(images - draw_stock(stock, image=2 * pictures - 1, **how)).max() < 1e-4
    gray = pictures.clone()
    gray[..., :4] = 0.5
    np.testing.assert_allclose(images, draw(pipe, image=gray, **how), rtol=0, atol=2e-6)
    np.testing.assert_allclose(images, draw_stock(stock, image=2 * gray - 1, **how), rtol=0, atol=2e-6)


def test_a_mask_of_its_own_for_each_picture_and_a_picture_of_its_own() -> None:
    pipe = pipeline()
    pictures, masks = photographs(), [hole(2), hole(6)]
    both = draw(pipe, image=pictures, mask_image=masks)
    for k in range(2):
        alone = draw(pipe, prompt=PROMPTS[k], image=pictures[k], mask_image=masks[k], generator=k)
        assert_same_images(both[k], alone[0], evaluations=2 * EVALUATIONS)
    whole = draw(pipe, prompt="a cat", image=pictures)
    assert_same_images(whole[1], draw(pipe, prompt="a cat", image=pictures[1], generator=1)[0], evaluations=7)


def test_classes_change_pictures_too() -> None:
    pipe = pixel_pipeline(unet_2d(3), id2label=NAMES)
    pictures = photographs(mode="L")
    how = {"num_inference_steps": 6, "generator": 0, "mask_image": hole(), "output_type": "np"}
    images = pipe(class_labels="dog", image=pictures, **how).images
    assert images.shape == (2, 8, 8, 1)
    np.testing.assert_allclose(images[:, :, 4:, 0], np.stack(pictures)[:, :, 4:] / 255, atol=1e-6)
    cats = pipe(class_labels=["cat", "cat"], image=pictures, **how).images
    assert np.abs(images - cats)[:, :, :4].max() > 1e-3


# -- What is given -----------------------------------------------------------------------------------------------------


def test_pil_numpy_and_torch_say_the_same() -> None:
    pipe, pictures = pipeline(), photographs()
    array = np.stack(pictures).astype(np.float32) / 255
    tensor, white = torch.from_numpy(array).movedim(-1, 1), np.asarray(hole()) > 127
    expected = draw(pipe, image=pictures, mask_image=hole())
    given = [
        (array, white),
        (list(array), white[..., None]),
        (tensor, torch.from_numpy(white)),
        (list(tensor), torch.from_numpy(white)[None, None]),
        (tensor, [hole(), hole()]),
        (pictures, hole().convert("RGBA")),
    ]
    for image, mask in given:
        np.testing.assert_array_equal(draw(pipe, image=image, mask_image=mask), expected)


def test_channels_become_the_models_and_what_is_transparent_is_white_or_unmasked() -> None:
    gray, clear = pipeline(1), Image.new("RGBA", (8, 8))
    (picture,) = photographs(1)
    np.testing.assert_array_equal(draw(gray, image=picture), draw(gray, image=picture.convert("L")))
    np.testing.assert_array_equal(draw(gray, image=clear), draw(gray, image=Image.new("L", (8, 8), 255)))
    clear.paste((255, 255, 255, 255), (0, 0, 4, 8))
    masked = [draw(gray, image=picture, mask_image=mask) for mask in (clear, hole())]
    np.testing.assert_array_equal(*masked)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strength": 0.5}, "strength is for a picture that is changed, and there is no image. Give one"),
        ({"mask_image": hole()}, "mask_image is for a picture"),
        ({"image": photographs(), "strength": 0.0}, "strength must be above 0 and at most 1, and is 0.0"),
        ({"image": photographs(), "strength": 1.5}, "strength must be above 0 and at most 1, and is 1.5"),
        ({"image": photographs(), "strength": 0.05}, r"strength must leave one .* the 10 steps.* Use more than 0.1,"),
        ({"image": Image.new("L", (9, 7))}, r"image must be 8×8 pixels.* and is 9×7. Use image.resize\(\(8, 8\)\)"),
        ({"image": np.zeros((8, 9, 3))}, r"image must be 8×8 pixels.* of shape \(8, 9, 3\). Resize it"),
        ({"image": photographs(), "mask_image": Image.new("L", (4, 4))}, "mask_image must be 8×8 pixels"),
        ({"image": photographs(), "mask_image": Image.new("L", (8, 8))}, "mask_image must be white where"),
        ({"image": photographs(3)}, "image must be one, or one for each of 2 images; there are 3"),
        ({"image": photographs(), "mask_image": [hole()] * 3}, "mask_image must be one, or one for each of 2"),
        ({"image": []}, "image must be a picture or a list of pictures, and is an empty list"),
        ({"image": "fox.png"}, "image must be of PIL, NumPy or torch, and is str"),
        ({"image": np.zeros((8, 8, 3), np.uint8)}, "image must hold floats .*uint8. Divide it by 255"),
        ({"image": torch.zeros(4, 8, 8)}, "image must have 3 channels, and has 4"),
        ({"image": torch.full((3, 8, 8), 2.0)}, r"image must lie in \[0, 1\].* lies in \[2, 2\]"),
        ({"image": Image.new("I;16", (8, 8))}, "image has the mode I;16: give it as floats"),
    ],
)
def test_says_what_is_wrong(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw(pipeline(), **arguments)


def test_some_schedulers_can_t_begin_in_the_middle() -> None:
    for name in ("PNDM", "DDIMInverse"):
        with pytest.raises(ValueError, match=f"strength must be 1 with {name}Scheduler.* is 0.7. Or swap to another"):
            final_sample(
                gaussian(CosineBetaScheduler(prediction_type="v_prediction"), sample_size=8).swap_scheduler(name),
                image=np.zeros((8, 8)),
            )


def test_a_tuned_table_is_left_where_the_beginning_is() -> None:
    table = {"timesteps": [999, 499], "coefficients": [[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]] * 2}
    scheduler = FewStepScheduler(prediction_type="v_prediction", tuned={"2": table})
    x, output = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    for begin, expected in ((0, scheduler.to_original(output, 499, x)), (1, None)):
        scheduler.set_timesteps(2)
        scheduler.set_begin_index(begin)
        after = scheduler.step(output, 499, x, return_dict=False)[0]
        whole = FewStepScheduler(prediction_type="v_prediction")
        whole.set_timesteps(timesteps=[499])
        expected = whole.step(output, 499, x, return_dict=False)[0] if expected is None else expected
        torch.testing.assert_close(after, expected)


def test_what_is_saved_changes_pictures(tmp_path: Path) -> None:
    pipe = pipeline()
    pipe.save_pretrained(tmp_path)
    (own,) = tmp_path.glob("pipeline_text_to_image_*.py")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stock's, of a text encoder that isn't T5
        loaded: Any = DiffusionPipeline.from_pretrained(tmp_path, custom_pipeline=own.stem, trust_remote_code=True)
    loaded.set_progress_bar_config(disable=True)
    pipe.swap_scheduler("DDIM")
    loaded.swap_scheduler("DDIM")
    how = {"image": photographs(), "mask_image": hole()}
    assert_same_images(draw(loaded, **how), draw(pipe, **how), evaluations=2 * EVALUATIONS)
