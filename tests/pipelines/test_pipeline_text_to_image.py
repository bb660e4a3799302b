"""Drawing by prompt: the same images as stock's IFPipeline, and folders that are one."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.deepfloyd_if.pipeline_if import IFPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from loopback_hub import LoopbackHub
from rounding import assert_same_images
from stock_python import link_packages, run_stock_python
from tiny_prompted import WIDTH, tiny_prompted_unet, tiny_text_encoder, tiny_tokenizer

from logsnr.pipelines.pipeline_text_to_image import TextToImagePipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # stock's numpy 1 habits
PROMPTS = ["a Red fox ", "green grass"]


def pipeline(scheduler: Any = None, channels: int = 1, **config: Any) -> Any:
    scheduler = CosineBetaScheduler(prediction_type="v_prediction") if scheduler is None else scheduler
    unet = tiny_prompted_unet(channels, **config)
    pipe = TextToImagePipeline(unet, scheduler, tiny_tokenizer(), tiny_text_encoder())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, **arguments: Any) -> Any:
    return pipe(**{"num_inference_steps": 3, "generator": 0, "output_type": "np"} | arguments).images


def stock_of(pipe: Any) -> Any:
    """IFPipeline with the same scheduler."""
    stock: Any = pipe.to_stock()
    stock.scheduler = copy.deepcopy(pipe.scheduler)
    stock.set_progress_bar_config(disable=True)
    return stock


def draw_stock(stock: Any, seed: int = 0, **arguments: Any) -> Any:
    """Two images of the prompts by IFPipeline, from the noise of that seed."""
    made = {"prompt": PROMPTS, "guidance_scale": 1.0, "num_inference_steps": 3, "output_type": "np"}
    generators = [torch.Generator().manual_seed(seed + k) for k in range(2)]
    return stock(**made | arguments, generator=generators, clean_caption=False).images


# -- As stock ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["DDPM", "DDIM", "DPMSolverMultistep", "UniPCMultistep", "EulerDiscrete"])
def test_the_same_noise_gives_the_images_of_stock(target: str) -> None:
    pipe = pipeline(CosineBetaScheduler(prediction_type="v_prediction"), channels=3).swap_scheduler(target)
    stock = stock_of(pipe)
    for how in (
        {},
        {"guidance_scale": 3.0},
        {"guidance_scale": 3.0, "negative_prompt": ["a cat", "on grass"]},
    ):
        images = draw(pipe, prompt=PROMPTS, num_inference_steps=5, **how)
        np.testing.assert_allclose(images, draw_stock(stock, num_inference_steps=5, **how), rtol=0, atol=1e-4)


def test_a_learned_variance_is_stock_s_too() -> None:
    pipe = pipeline(DDPMScheduler(variance_type="learned_range"), out_channels=2)
    stock = pipe.to_stock()
    stock.set_progress_bar_config(disable=True)
    assert stock.unet is pipe.unet
    assert stock.scheduler.config["variance_type"] == "learned_range"
    images = draw(pipe, prompt=PROMPTS, guidance_scale=2.0)
    np.testing.assert_allclose(images, draw_stock(stock, guidance_scale=2.0), rtol=0, atol=1e-4)
    pipe.swap_scheduler("DDPM", variance_type="fixed_small")  # half of the channels is dropped
    assert not np.allclose(images, draw(pipe, prompt=PROMPTS, guidance_scale=2.0), atol=1e-4)
    np.testing.assert_allclose(draw(pipe, prompt=PROMPTS), draw_stock(stock_of(pipe)), rtol=0, atol=1e-4)


def test_padding_changes_nothing() -> None:
    pipe = pipeline()
    padded = pipe.to_stock()
    assert padded.unet.config["out_channels"] == 2
    assert not padded.unet.conv_out.weight[1:].any()
    for name, weight in pipe.unet.state_dict().items():
        its = padded.unet.state_dict()[name]
        assert torch.equal(weight, its[: len(weight)])
        assert weight.data_ptr() != its.data_ptr()
    wide = TextToImagePipeline(padded.unet, pipe.scheduler, pipe.tokenizer, pipe.text_encoder)
    wide.set_progress_bar_config(disable=True)
    for target in (CosineBetaScheduler, "DDIM", "EulerDiscrete"):
        images = [draw(p.swap_scheduler(target), prompt=PROMPTS, guidance_scale=2.0) for p in (pipe, wide)]
        assert_same_images(*images, evaluations=3)


def test_to_stock_has_the_model_s_own_schedule() -> None:
    own = CosineBetaScheduler(prediction_type="v_prediction", variance_type="fixed_large")
    stock = pipeline(own).swap_scheduler("EulerDiscrete").to_stock()
    assert (type(stock), type(stock.scheduler)) == (IFPipeline, DDPMScheduler)
    assert torch.equal(stock.scheduler.betas, own.betas)
    assert stock.scheduler.config["variance_type"] == "fixed_large"
    distilled = ConsistencyScheduler.from_config(own.config, distilled_steps=2, contrasts=[1.0, 1.1])
    few = pipeline(distilled).to_stock()
    assert type(few.scheduler) is DDIMScheduler
    few.set_progress_bar_config(disable=True)
    assert np.isfinite(draw_stock(few)).all()
    with pytest.raises(ValueError, match="no stock form"):
        pipeline(CosineBetaScheduler(prediction_type="x0_minus_noise")).to_stock()


# -- Words -------------------------------------------------------------------------------------------------------------


def test_words_make_a_difference_and_case_and_spaces_none() -> None:
    pipe = pipeline()
    red, green = draw(pipe, prompt=["a red fox", "green grass"], generator=[0, 0])
    assert np.abs(red - green).max() > 0.01
    assert_same_images(red, draw(pipe, prompt=" A RED fox")[0], evaluations=3)


def test_guidance_goes_from_the_null_prompt_to_the_prompt() -> None:
    pipe = pipeline()
    null, cat, red = (draw(pipe, prompt=prompt)[0] for prompt in (None, "a cat", "a red fox"))
    assert_same_images(null, draw(pipe, prompt="")[0], evaluations=3)
    assert_same_images(null, draw(pipe, prompt="a red fox", guidance_scale=0)[0], evaluations=3)
    assert_same_images(null, draw(pipe, guidance_scale=0)[0], evaluations=3)
    assert_same_images(cat, draw(pipe, prompt="a red fox", negative_prompt="a cat", guidance_scale=0)[0], evaluations=3)
    away = draw(pipe, negative_prompt="a cat", guidance_scale=2.0)
    assert_same_images(away, draw(pipe, prompt="", negative_prompt="a cat", guidance_scale=2.0), evaluations=3)
    with pytest.warns(UserWarning, match="negative_prompt has no weight at guidance_scale 1"):
        assert_same_images(red, draw(pipe, prompt="a red fox", negative_prompt="a cat")[0], evaluations=3)


def test_evaluations_of_the_network() -> None:
    pipe, sizes = pipeline(), []
    pipe.unet.register_forward_hook(lambda _m, args, _out: sizes.append(len(args[0])))
    for w, expected in ((0, 2), (1, 2), (0.5, 4), (3.0, 4)):
        sizes.clear()
        draw(pipe, prompt=PROMPTS, guidance_scale=w, num_inference_steps=2)
        assert sizes == [expected, expected]


def test_embeddings_in_place_of_prompts() -> None:
    pipe = pipeline()
    embeds, null = pipe.encode_prompt(PROMPTS), pipe.encode_prompt(["a cat"])
    assert embeds.shape == (2, 77, WIDTH)
    by_words = draw(pipe, prompt=PROMPTS, negative_prompt="a cat", guidance_scale=2.0)
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": null, "guidance_scale": 2.0}
    assert_same_images(by_words, draw(pipe, **given), evaluations=3)
    one = draw(pipe, prompt_embeds=embeds[:1], batch_size=2)
    assert_same_images(one, draw(pipe, prompt=PROMPTS[0], batch_size=2), evaluations=3)


def test_what_is_cut_off_is_named() -> None:
    pipe = pipeline()
    with pytest.warns(UserWarning, match="more than 77 tokens; cut off: 'cat on'"):
        long = pipe.encode_prompt([" ".join(["fox"] * 75 + ["cat", "on"])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(long, pipe.encode_prompt([" ".join(["fox"] * 75)]))


# -- Images ------------------------------------------------------------------------------------------------------------


def test_an_image_is_the_same_in_any_batch() -> None:
    pipe = pipeline(channels=3)
    arguments = {"guidance_scale": 2.0, "negative_prompt": "a cat"}
    prompts = ["a red fox", "green grass", "a cat on grass"]
    whole = draw(pipe, prompt=prompts, generator=10, **arguments)
    for k, prompt in enumerate(prompts):
        assert_same_images(draw(pipe, prompt=prompt, generator=10 + k, **arguments)[0], whole[k], evaluations=3)
    own = [torch.Generator().manual_seed(12), 10]
    assert_same_images(
        draw(pipe, prompt=[prompts[2], prompts[0]], generator=own, **arguments), whole[[2, 0]], evaluations=3
    )


def test_output_types_and_callback() -> None:
    pipe, calls = pipeline(channels=3, sample_size=(8, 12)), []

    def keep(_: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        calls.append((step, int(t), tensors["model_output"].shape))
        return {}

    pil = pipe(
        "a cat",
        batch_size=2,
        num_inference_steps=2,
        callback_on_step_end=keep,
        callback_on_step_end_tensor_inputs=["model_output"],
    ).images
    assert [(image.mode, image.size) for image in pil] == [("RGB", (12, 8))] * 2
    assert calls == [(0, 999, (2, 3, 8, 12)), (1, 499, (2, 3, 8, 12))]
    assert draw(pipe, prompt="a cat", output_type="pt").shape == (1, 3, 8, 12)
    assert pipe(num_inference_steps=1, return_dict=False)[0][0].size == (12, 8)


def test_bfloat16_unet_with_a_float32_chain_and_encoder() -> None:
    pipe = pipeline()
    pipe.unet.to(torch.bfloat16)
    seen: list[Any] = []
    pipe.unet.register_forward_hook(lambda _m, args, kwargs, _out: seen.append(kwargs), with_kwargs=True)
    images = draw(pipe, prompt=PROMPTS, guidance_scale=2.0, output_type="pt")
    assert images.dtype == torch.float32
    assert {kwargs["encoder_hidden_states"].dtype for kwargs in seen} == {torch.bfloat16}
    assert pipe.encode_prompt(PROMPTS).dtype == torch.float32
    assert pipe.to_stock().unet.dtype == torch.bfloat16


def test_a_swap_keeps_the_schedule_or_is_refused() -> None:
    pipe = pipeline()
    own = pipe.scheduler
    assert torch.equal(pipe.swap_scheduler("DPMSolverMultistep").scheduler.alphas_cumprod, own.alphas_cumprod)
    assert type(pipe.swap_scheduler("CosineBeta").scheduler) is CosineBetaScheduler
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler can't sample this model"):
        pipe.swap_scheduler("FlowMatchEulerDiscrete")
    with pytest.raises(ValueError, match="target 'Eler' is no scheduler"):
        pipe.swap_scheduler("Eler")


# -- Folders -----------------------------------------------------------------------------------------------------------

STOCK = """
import sys

import numpy as np
import torch
from diffusers import DiffusionPipeline, IFImg2ImgPipeline, IFInpaintingPipeline

folder, out = sys.argv[1:3]
arguments = {"prompt": ["a red fox"], "guidance_scale": 2.0, "num_inference_steps": 3, "clean_caption": False}
arguments |= {"output_type": "np"}
pipe = DiffusionPipeline.from_pretrained(folder)
assert type(pipe).__name__ == "IFPipeline", type(pipe)
pipe.set_progress_bar_config(disable=True)
np.save(out, pipe(generator=[torch.Generator().manual_seed(0)], **arguments).images)
image, mask = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
for cls, more in ((IFImg2ImgPipeline, {}), (IFInpaintingPipeline, {"mask_image": mask})):
    other = cls.from_pretrained(folder)
    other.set_progress_bar_config(disable=True)
    images = other(image=image, strength=0.7, **more, **arguments).images
    assert images.shape == (1, 8, 8, 1), images.shape
    assert np.isfinite(images).all()
try:
    DiffusionPipeline.from_pretrained(folder, custom_pipeline=sys.argv[3], trust_remote_code=True)
except ValueError as error:
    assert "disabled globally" in str(error), error
else:
    raise AssertionError("ran remote code")
assert not any(name.split(".")[0] == "logsnr" for name in sys.modules)
"""


def test_stock_loads_and_draws_without_code(tmp_path: Path) -> None:
    pipe = pipeline()
    pipe.save_pretrained(tmp_path / "model")
    (own,) = (tmp_path / "model").glob("pipeline_text_to_image_*.py")
    site = tmp_path / "site"
    site.mkdir()
    variables = {"DIFFUSERS_DISABLE_REMOTE_CODE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    printed = run_stock_python(
        link_packages(site, "torch", "diffusers", "transformers"),
        STOCK,
        *(tmp_path / "model", tmp_path / "stock.npy", own.stem),
        cwd=tmp_path,
        variables=variables,
    )
    assert "safety checker" not in printed
    assert "are not expected" not in printed
    pipe.swap_scheduler("DDPM", variance_type="fixed_small")
    images = draw(pipe, prompt="a red fox", guidance_scale=2.0)
    np.testing.assert_allclose(np.load(tmp_path / "stock.npy"), images, rtol=0, atol=1e-4)


def test_a_folder_is_stock_and_keeps_the_schedule(tmp_path: Path, diffusers_log: list[str]) -> None:
    pipe = pipeline()
    own = pipe.scheduler
    pipe.save_pretrained(tmp_path / "a")
    index = json.loads((tmp_path / "a" / "model_index.json").read_text())
    assert (index["_class_name"], index["requires_safety_checker"]) == ("IFPipeline", False)
    assert index["scheduler"] == ["diffusers", "DDPMScheduler"]
    assert pipe.unet.config["out_channels"] == 1  # as it was

    again = TextToImagePipeline.from_pretrained(tmp_path / "a")
    assert again.scheduler.config["_logsnr"] == own.config["_logsnr"]
    again.swap_scheduler(CosineBetaScheduler)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(again.scheduler.betas, own.betas)
    assert_same_images(draw(pipe, prompt=PROMPTS), draw(again, prompt=PROMPTS), evaluations=3)
    again.save_pretrained(tmp_path / "b")
    files = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in (tmp_path / "a", tmp_path / "b")]
    assert files[0] == files[1]
    for path in (tmp_path / "b").rglob("*.json"):
        text = path.read_text()
        assert str(tmp_path) not in text, path
        assert "name_or_path" not in text, path
        assert text == (tmp_path / "a" / path.relative_to(tmp_path / "b")).read_text()
    assert diffusers_log == []


def test_a_stock_solver_is_saved_as_ddpm(tmp_path: Path) -> None:
    pipe = pipeline().swap_scheduler("DPMSolverMultistep")
    with pytest.warns(UserWarning, match="DPMSolverMultistepScheduler is saved as DDPMScheduler"):
        pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="push_to_hub"):
        pipe.save_config(tmp_path, push_to_hub=True)


def test_a_repo_has_a_card_and_draws(at_hub: LoopbackHub) -> None:
    pipe = pipeline()
    pipe.push_to_hub("ada/foxes")
    card = at_hub.repo("ada/foxes").files()["README.md"].decode()
    assert "pipeline_tag: text-to-image" in card
    program = card.split("```python\n")[1].split("```")[0]
    assert 'from_pretrained("ada/foxes")' in program
    loaded: Any = DiffusionPipeline.from_pretrained("ada/foxes")
    assert type(loaded) is IFPipeline
    assert type(TextToImagePipeline.from_pretrained("ada/foxes").unet) is type(pipe.unet)


# -- What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": []}, "prompt must hold at least one string"),
        ({"prompt": 5}, "prompt must be a string or a list of strings, and is 5"),
        ({"prompt": ["a", 5]}, "prompt must hold strings, and has 5"),
        ({"prompt": ("a", "b")}, "prompt must be a string or a list"),
        ({"prompt": ["a", "b"], "batch_size": 3}, "batch_size must be the number of rows of prompt, 2, and is 3"),
        ({"prompt": ["a", "b"], "generator": [1]}, "generator must be one, or one for each of 2 images"),
        ({"prompt": ["a", "b"], "negative_prompt": ["c"]}, "negative_prompt must be one string, or one for each of 2"),
        ({"negative_prompt": []}, "negative_prompt must hold at least one"),
        ({"negative_prompt": 1.0}, "negative_prompt must be a string"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"guidance_scale": 2.0}, "guidance_scale 2.0 needs a prompt, a negative_prompt or a guide"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be finite"),
        ({"prompt": "a", "prompt_embeds": torch.zeros(1, 77, WIDTH)}, "both are given"),
        ({"prompt_embeds": torch.zeros(1, 5, WIDTH)}, rf"must be \(n, 77, {WIDTH}\).*\(1, 5, {WIDTH}\)"),
        ({"prompt_embeds": torch.zeros(2, 77, WIDTH), "batch_size": 3}, "number of rows of prompt_embeds, 2"),
        (
            {"prompt": ["a"] * 3, "negative_prompt_embeds": torch.zeros(2, 77, WIDTH)},
            "negative_prompt_embeds must be a tensor of one row, or of one for each of 3 images: 2",
        ),
        ({"num_inference_steps": 0}, r"num_inference_steps must be in 1\.\.1000"),
        ({"output_type": "latent"}, "output_type must be"),
        ({"eta": 1.5}, r"eta must be in \[0, 1\]"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    pipe = pipeline()
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


def test_encode_prompt_wants_a_list_of_strings() -> None:
    for wrong in ("a cat", [], [5]):
        with pytest.raises(ValueError, match="prompts must be a list of one or more strings"):
            pipeline().encode_prompt(wrong)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"out_channels": 3}, "out_channels must be 1"),
        ({"num_class_embeds": 3}, "num_class_embeds must be None"),
        ({"class_embed_type": "timestep"}, "class_embed_type must be None"),
        ({"cross_attention_dim": 24}, "hidden_size must be 24"),
        ({"encoder_hid_dim": 20}, "hidden_size must be 20"),
    ],
)
def test_wrong_networks(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(**config)


def test_wrong_parts() -> None:
    with pytest.raises(ValueError, match="'learned_range' needs a unet of 2 output channels"):
        pipeline(DDPMScheduler(variance_type="learned_range"))
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="pad_token must be set"):
        TextToImagePipeline(tiny_prompted_unet(), DDPMScheduler(), tokenizer, tiny_text_encoder())
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["blue"])
    with pytest.raises(ValueError, match="at most the 11 tokens that text_encoder knows, and has 12"):
        TextToImagePipeline(tiny_prompted_unet(), DDPMScheduler(), tokenizer, tiny_text_encoder())
