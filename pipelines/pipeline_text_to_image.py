"""A pixel-space diffusion model that draws what words say: a `UNet2DConditionModel`, a text encoder, any scheduler.

A prompt becomes 77 vectors, e = encoder(tokens of the prompt), which the unet attends to:

    model_output = unet(scheduler.scale_model_input(x, t), t, e)
    x            = scheduler.step(model_output, t, x)

Guidance (the file of that name) leads away from what the unet says of the empty prompt "", of a negative prompt, or
from what a weaker model says of the prompt. w = 1 is the plain model.

All this is as in diffusers' `IFPipeline`: a prompt is lower-cased, stripped and padded to 77 tokens, and no mask
reaches the cross-attention. So a model folder is an `IFPipeline`, which needs no code of ours. Without a mask the
vectors of the padding say something too: a model must be trained as it is sampled.

This file is copied, with those that it loads, into the folders that it saves.
"""

from __future__ import annotations

import inspect
import json
import os
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.deepfloyd_if.pipeline_if import IFPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .call_arguments import Callback, Seed, seeded, tensor_inputs
from .guidance import Guidance, require_guidance
from .picture_editing import read_edit
from .pixel_sampling import PixelSampling, is_stock
from .travelling_folder import OwnCard, forget_machine, rewrite_json, sources, warn_of_ddpm

MAX_TOKENS = 77
"""The length of every prompt, as in `IFPipeline`."""
_LEARNED = ("learned", "learned_range")
_FIXED = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
_CARD = """---
library_name: diffusers
pipeline_tag: text-to-image
tags:
- logsnr
---

# {name}

A diffusion model of {what}, drawn by prompt: a `UNet2DConditionModel`, a text encoder and their noise schedule.

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{repo_id}")
images = pipe("a red fox", guidance_scale=3.0, num_inference_steps={steps}, clean_caption=False).images
```
"""


class TextToImagePipeline(PixelSampling, OwnCard, DiffusionPipeline):
    """Images of prompts, from a `UNet2DConditionModel`, a text encoder and any scheduler.

    unet: C input channels and C or 2C output channels. With 2C the second half is the learned variance where the
        scheduler's `variance_type` says so, and otherwise padding, which is dropped.
    scheduler: any scheduler of the model's own noise schedule; see `swap_scheduler`.
    tokenizer: of transformers, with a padding token.
    text_encoder: of transformers; the first that it returns is (n, 77, width) for n prompts, of the unet's width.
    prompts: some that it knows how to draw, for whoever has no idea; kept beside model_index.json, in prompts.json.
    """

    model_cpu_offload_seq: Any = "text_encoder->unet"

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: PreTrainedModel,
        prompts: list[str] | None = None,
    ) -> None:
        super().__init__()
        config: Any = unet.config
        kind = scheduler.config.get("variance_type")  # type: ignore[attr-defined]
        channels, out_channels = config["in_channels"], config["out_channels"]
        for name in ("class_embed_type", "num_class_embeds"):
            if config[name] is not None:
                raise ValueError(f"unet.config.{name} must be None, and is {config[name]!r}: words are the condition.")
        for name, known in (("addition_embed_type", "text"), ("encoder_hid_dim_type", "text_proj")):
            if config[name] not in (None, known):
                raise ValueError(f"unet.config.{name} must be None or {known!r}, and is {config[name]!r}.")
        if out_channels not in (channels, 2 * channels):
            raise ValueError(
                f"unet.config.out_channels must be {channels} (= in_channels) or {2 * channels} (learned variance or "
                f"padding), and is {out_channels}."
            )
        if kind in _LEARNED and out_channels == channels:
            raise ValueError(
                f"scheduler.variance_type {kind!r} needs a unet of {2 * channels} output channels, and it has "
                f"{channels}. Use 'fixed_small'."
            )
        if tokenizer.pad_token is None:
            raise ValueError("tokenizer.pad_token must be set, for prompts are padded to 77 tokens, and is None.")
        width = getattr(text_encoder.config, "hidden_size", None)
        if width != _width(config):
            raise ValueError(
                f"text_encoder.config.hidden_size must be {_width(config)}, the width of text of the unet "
                f"(encoder_hid_dim, else cross_attention_dim), and is {width}."
            )
        embeddings: Any = text_encoder.get_input_embeddings()
        if len(tokenizer) > embeddings.num_embeddings:
            raise ValueError(
                f"tokenizer must have at most the {embeddings.num_embeddings} tokens that text_encoder knows, and has "
                f"{len(tokenizer)}. Give the one that it was trained with."
            )
        self.register_modules(unet=unet, scheduler=scheduler, tokenizer=tokenizer, text_encoder=text_encoder)  # type: ignore[no-untyped-call]
        self._keep_own_scheduler(scheduler)
        self.prompts = prompts

    # -- Sampling ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        batch_size: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        generator: Seed | list[Seed] | None = None,
        eta: float | None = None,
        timesteps: list[int] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        guider: Any = None,
        guide: Any = None,
        image: Any = None,
        strength: float | None = None,
        mask_image: Any = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw images. Raises `ValueError` for every argument out of its range.

        prompt: one for all images, or one for each. None is the empty prompt "", the model without words.
        negative_prompt: what takes the place of "" as the null prompt, one for all images or one for each. At
            guidance_scale 1 it has no weight, and a warning says so.
        batch_size: number of images of one prompt; of several it is the number of prompts.
        num_inference_steps: in 1..T. Solvers such as Heun evaluate the network more than once a step.
        guidance_scale: w. 1 is the prompt alone and 0 the null prompt alone, at one evaluation a step; any other
            value costs two, in one batch, and needs a prompt or a negative prompt: else there is nothing between
            which to go.
        generator: a `torch.Generator` for the whole batch; or one for each image. An int is a seed: image k then has
            its own generator with seed `generator + k` (on the CPU, so that devices agree). With a seed or
            generator for each image, an image is the same, up to round-off, in any batch. All noise comes from here.
        eta: in [0, 1]; 0 is deterministic, 1 ancestral (Song et al. 2020, arXiv 2010.02502, eq. 16), for
            schedulers that take it in `set_timesteps` or in `step`; None is the scheduler's own default, of ours 1. The
            others have a fixed amount of noise: stock DDPM is ancestral, whatever eta.
        timesteps: strictly descending, in [0, T), instead of num_inference_steps, where the scheduler takes them.
        output_type: "pil" (L, RGB or RGBA images), "np" (B, H, W, C) or "pt" (B, C, H, W), floats in [0, 1].
        callback_on_step_end: called as `f(pipe, step, timestep, {name: tensor})` after each evaluation, with the
            tensors named in `callback_on_step_end_tensor_inputs` ("sample", "model_output"); returns a dictionary,
            whose "sample" is taken over.
        prompt_embeds, negative_prompt_embeds: what `encode_prompt` returns, in place of the prompts; one row for all
            images, or one for each.
        guider: one of diffusers.guiders that mixes two outputs, in the place of guidance_scale: guidance in a part of
            the steps, rescaled, projected.
        guide: a loaded pipeline of a weaker model of the same data, to be led away from in the place of the empty
            prompt (autoguidance). It reads the prompts by its own encoder.
        image: a picture that is changed, or one for each image: of PIL, or floats in [0, 1] as `output_type` has them
            (NumPy (B, H, W, C), torch (B, C, H, W)), of the model's own size.
        strength: in (0, 1], the share of the steps that are run, from the picture with noise of that level on (SDEdit,
            Meng et al. 2021, arXiv 2108.01073). 1 begins from noise alone. None is 0.7, and 1 with a mask.
        mask_image: white where the picture is drawn anew, black where it is kept as it is; one for all images, or one
            for each. What is grayer than half counts as white.

        Noise and scheduler work in float32 (float64 with a float64 unet); the unet sees its own dtype, and the text
        encoder has its own.
        """
        guided = require_guidance(self, guidance_scale, guider, guide)
        edit = read_edit(image, mask_image, strength, self.unet.config.in_channels, self.unet.config.sample_size)
        batch = _batch(
            batch_size,
            prompt=prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt=negative_prompt,
            negative_prompt_embeds=negative_prompt_embeds,
            image=edit and edit.picture,
            mask_image=edit and edit.mask,
        )
        given = _rows("prompt", prompt, prompt_embeds, batch)
        null = _rows("negative_prompt", negative_prompt, negative_prompt_embeds, batch)
        if guided and given is None and null is None and guide is None:
            raise ValueError(f"{guided} needs a prompt, a negative_prompt or a guide. Leave it out.")
        if guide is not None and null is not None:
            raise ValueError("guide takes the place of negative_prompt, and both are given. Leave one out.")
        if guidance_scale == 1 and guider is None and null is not None:
            warnings.warn(
                "negative_prompt has no weight at guidance_scale 1. Use a larger one, such as 3.", stacklevel=3
            )
        weak = None
        if guide is not None:
            weak = guide._told(given, batch)
        elif guided or guidance_scale == 0:
            weak = self._told(null, batch)
        inputs = tensor_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        images = self._draw(
            batch,
            Guidance(self._told(given, batch), weak, guide and guide.unet, guider),
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            generators=seeded(generator, batch, "images"),
            eta=eta,
            timesteps=timesteps,
            output_type=output_type,
            callback_on_step_end=callback_on_step_end,
            tensor_inputs=inputs,
            edit=edit,
        )
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    @torch.no_grad()
    def encode_prompt(self, prompts: list[str]) -> torch.Tensor:
        """What the unet attends to, (n, 77, width), in the dtype of the text encoder; "" is the null prompt.

        Prompts are lower-cased and stripped. What doesn't fit into 77 tokens is cut off, and a warning names it.
        """
        if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise ValueError(f"prompts must be a list of one or more strings, and is {prompts!r}.")
        texts = [shown(prompt) for prompt in prompts]
        distinct = list(dict.fromkeys(texts))
        for text in distinct:
            if lost := self._lost(text):
                warnings.warn(f"prompt {text!r} has more than 77 tokens; cut off: {lost!r}.", stacklevel=3)
        tokens = tokenized(self.tokenizer, distinct).to(self._execution_device)
        embeds = self.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        return torch.as_tensor(embeds[[distinct.index(text) for text in texts]])

    def _lost(self, text: str) -> str:
        """The end of a prompt that doesn't fit."""
        tokens = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        kept = MAX_TOKENS - self.tokenizer.num_special_tokens_to_add()
        return str(self.tokenizer.decode(tokens[kept:])) if len(tokens) > kept else ""

    def _told(self, rows: list[str] | torch.Tensor | None, batch: int) -> dict[str, torch.Tensor]:
        """What the unet is told of one prompt for each image; None is the empty one."""
        return {"encoder_hidden_states": self._embeds(rows, batch).to(self.unet.dtype)}

    def _embeds(self, rows: list[str] | torch.Tensor | None, batch: int) -> torch.Tensor:
        """(batch, 77, width)"""
        if isinstance(rows, list) or rows is None:
            return self.encode_prompt(rows or [""] * batch)
        expected = (MAX_TOKENS, _width(self.unet.config))
        if rows.ndim != 3 or tuple(rows.shape[1:]) != expected:
            raise ValueError(
                f"prompt_embeds and negative_prompt_embeds must be (n, {expected[0]}, {expected[1]}), as encode_prompt "
                f"returns them, and one is {tuple(rows.shape)}."
            )
        return rows.to(self._execution_device, self.text_encoder.dtype).expand(batch, -1, -1)

    def _step_channels(self, scheduler: Any) -> int:
        channels = int(self.unet.config.in_channels)
        learned = scheduler.config.get("variance_type") in _LEARNED
        return min(int(self.unet.config.out_channels), 2 * channels if learned else channels)

    # -- Folders that travel -------------------------------------------------------------------------------------

    def to_stock(self) -> IFPipeline:
        """The same model as a plain `IFPipeline`, with the scheduler that the model's noise schedule has in stock.

        `IFPipeline` wants 2C output channels: a unet of C gets as many rows of zeros, in new tensors, and one of 2C is
        taken as it is. Raises `ValueError` for a target without a stock form (x0_minus_noise).
        """
        if self.scheduler.config["prediction_type"] == "x0_minus_noise":
            raise ValueError("prediction_type x0_minus_noise has no stock form; epsilon, sample and v_prediction have.")
        return IFPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            unet=_padded(self.unet),
            scheduler=self._stock_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            watermarker=None,
            requires_safety_checker=False,
        )

    def _stock_scheduler(self) -> Any:
        cls = getattr(diffusers, getattr(self.scheduler, "stock_form", "DDPMScheduler"))
        kind = self.scheduler.config.get("variance_type")
        kind = kind if kind in (*_LEARNED, *_FIXED) else "fixed_small"
        takes_it = "variance_type" in inspect.signature(cls).parameters
        scheduler = self._build_scheduler(cls, {"variance_type": kind} if takes_it else {})
        scheduler.register_to_config(variance_type=kind)  # of any scheduler IFPipeline reads it
        return scheduler

    def save_pretrained(self, save_directory: str | os.PathLike[Any], *args: Any, **kwargs: Any) -> None:
        """Write the model as an `IFPipeline`, which `DiffusionPipeline.from_pretrained(folder)` loads without code.

        This file lies beside it, for `from_pretrained(folder, custom_pipeline="<its stem>", trust_remote_code=True)`.
        The scheduler is that of `to_stock`; a warning says so of a stock solver. Raises `ValueError` for what has no
        stock form.
        """
        stock: Any = self.to_stock()
        cls, form = type(self.scheduler), type(stock.scheduler)
        if is_stock(cls) and cls is not form:
            cure = f"swap_scheduler({cls.__name__!r}) after loading"
            warn_of_ddpm(cls, "a folder holds the model's own process", cure)
        if (backend := getattr(self.tokenizer, "backend_tokenizer", None)) is not None:  # each call sets these anew
            backend.no_truncation()
            backend.no_padding()
        written = type(self)(
            unet=stock.unet,
            scheduler=stock.scheduler,
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            prompts=self.prompts,
        )
        DiffusionPipeline.save_pretrained(written, save_directory, *args, **kwargs)

    def save_config(self, save_directory: str | os.PathLike[Any], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write model_index.json and the source files; `save_pretrained` ends with this."""
        if push_to_hub:
            raise ValueError("save_config alone would push no weights. Use push_to_hub(repo_id) of the pipeline.")
        folder, files = Path(save_directory), sources(type(self))
        if files is None:
            raise ValueError(f"{type(self).__name__} can't be saved: its file doesn't stand alone (see {__name__}).")
        super().save_config(folder)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        if self.prompts is not None:
            text = json.dumps(self.prompts, indent=2, ensure_ascii=False)
            (folder / "prompts.json").write_text(text + "\n", encoding="utf-8")
        index: dict[str, Any] = {"_class_name": "IFPipeline", "_diffusers_version": diffusers.__version__}
        index |= {name: list(self.config[name]) for name in ("unet", "scheduler", "tokenizer", "text_encoder")}
        if index["tokenizer"][1] == "TokenizersBackend":  # its name of old, which every version of transformers has
            index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
        index |= {name: [None, None] for name in ("safety_checker", "feature_extractor", "watermarker")}
        rewrite_json(folder / "model_index.json", lambda _: {**index, "requires_safety_checker": False})
        for name in ("unet/config.json", "text_encoder/config.json", "tokenizer/tokenizer_config.json"):
            forget_machine(folder / name)

    def _card(self, repo_id: str) -> str:
        config = self.unet.config
        kind = {1: "gray", 3: "RGB", 4: "RGBA"}.get(config.in_channels, f"{config.in_channels}-channel")
        return _CARD.format(
            name=repo_id.split("/")[-1],
            repo_id=repo_id,
            what=f"{kind} images of {config.sample_size} pixels a side",
            steps=min(50, self.scheduler.config.num_train_timesteps),
        )


def shown(prompt: str) -> str:
    """A prompt as the text encoder is shown it."""
    return prompt.lower().strip()


def tokenized(tokenizer: Any, prompts: list[str]) -> Any:
    """`input_ids` and `attention_mask`, int64, (prompts, 77) each, as `IFPipeline` has them."""
    return tokenizer(
        [shown(prompt) for prompt in prompts],
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )


def _width(config: Any) -> int:
    """Of the vectors of text that a unet takes."""
    width = config["encoder_hid_dim"] or config["cross_attention_dim"]
    return int(width if isinstance(width, int) else width[0])


def _batch(batch_size: int | None, **given: Any) -> int:
    """The number of images, of the first that is given for each of them, else `batch_size` or 1."""
    if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
        raise ValueError(f"batch_size must be 1 or more, and is {batch_size}.")
    for name, value in given.items():
        if isinstance(value, list) and not value:
            raise ValueError(f'{name} must hold at least one string, and is empty. Use "" for no words.')
        if isinstance(value, list) or (isinstance(value, torch.Tensor) and len(value) > 1):
            if batch_size not in (None, len(value)):
                raise ValueError(f"batch_size must be the number of rows of {name}, {len(value)}, and is {batch_size}.")
            return len(value)
    return batch_size or 1


def _rows(
    name: str, texts: str | list[str] | None, embeds: torch.Tensor | None, batch: int
) -> list[str] | torch.Tensor | None:
    """One text for each image, or the given embeddings; None where neither is given."""
    if texts is not None and embeds is not None:
        raise ValueError(f"{name} and {name}_embeds say the same, and both are given. Leave one out.")
    if embeds is not None:
        if not isinstance(embeds, torch.Tensor) or len(embeds) not in (1, batch):
            has = len(embeds) if isinstance(embeds, torch.Tensor) else repr(embeds)
            raise ValueError(f"{name}_embeds must be a tensor of one row, or of one for each of {batch} images: {has}.")
        return embeds
    if texts is None:
        return None
    if not isinstance(texts, str | list):
        raise ValueError(f"{name} must be a string or a list of strings, and is {texts!r}.")
    every = [texts] * batch if isinstance(texts, str) else texts
    if wrong := [text for text in every if not isinstance(text, str)]:
        raise ValueError(f"{name} must hold strings, and has {wrong[0]!r}.")
    if len(every) != batch:
        raise ValueError(f"{name} must be one string, or one for each of {batch} images; there are {len(every)}.")
    return every


def _padded(unet: Any) -> Any:
    """The unet with 2C output channels: what it hasn't are zeros."""
    if type(unet).__name__ != "UNet2DConditionModel" or not is_stock(type(unet)):
        raise ValueError(f"unet must be a UNet2DConditionModel to have a stock form, and is a {type(unet).__name__}.")
    parameters, channels = inspect.signature(UNet2DConditionModel).parameters, unet.config["in_channels"]
    if unet.config["out_channels"] == 2 * channels:
        return unet
    config = {k: v for k, v in unet.config.items() if k in parameters} | {"out_channels": 2 * channels}
    weights = {name: weight.detach().clone() for name, weight in unet.state_dict().items()}
    for name in ("conv_out.weight", "conv_out.bias"):
        weights[name] = torch.cat([weights[name], torch.zeros_like(weights[name])])
    padded: Any = UNet2DConditionModel(**config).eval()
    padded.load_state_dict(weights, assign=True)  # takes over device and dtype
    return padded
