"""One tiny pipeline for each file of pipelines/, in the form that needs the file's own code, and a call that samples.

It is made where there is torch and diffusers and nothing of ours: the class is handed in.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from tiny_prompted import tiny_prompted_unet, tiny_text_encoder, tiny_tokenizer
from tiny_text import letters, tiny_modern_bert
from tiny_unet import tiny_unet

Made = tuple[Any, dict[str, Any]]


def pixel(pipeline_class: Any) -> Made:
    """With classes, for without it is stock's DDPMPipeline that is saved."""
    pipeline = pipeline_class(tiny_unet(2), DDIMScheduler(), id2label={0: "dark", 1: "light"})
    call = {"class_labels": ["light", "dark"], "guidance_scale": 2.0, "generator": 3, "output_type": "np"}
    return pipeline, call | {"num_inference_steps": 3}


def restoration(pipeline_class: Any) -> Made:
    """Of a picture larger than the network's, half of whose pixels are missing."""
    pipeline = pipeline_class(tiny_unet(2), DDIMScheduler(), id2label={0: "dark", 1: "light"})
    operator = pipeline.operators.Mask(torch.rand(1, 12, 8) > 0.5, noise_std=0.05)
    call = {"measurement": operator.measure(torch.rand(1, 1, 12, 8), 5), "operator": operator, "class_labels": "light"}
    return pipeline, call | {"num_samples": 2, "num_inference_steps": 3, "generator": 3, "output_type": "np"}


def text_to_image(pipeline_class: Any) -> Made:
    """Of two prompts, away from a third."""
    pipeline = pipeline_class(tiny_prompted_unet(), DDPMScheduler(), tiny_tokenizer(), tiny_text_encoder())
    call = {"prompt": ["a red fox", "green grass"], "negative_prompt": "a cat", "guidance_scale": 2.0, "generator": 3}
    return pipeline, call | {"num_inference_steps": 3, "output_type": "np"}


def text(pipeline_class: Any) -> Made:
    """Of a text with a blank. Its scheduler comes with its file."""
    tokenizer = letters()
    module = sys.modules[pipeline_class.__module__]
    scheduler = module.TransitionScheduler("uniform", len(tokenizer), num_train_timesteps=16)
    vocabulary = len(tokenizer) + module.TIME_BUCKETS
    pipeline = pipeline_class(tiny_modern_bert(vocabulary), scheduler, tokenizer)
    return pipeline, {"infill": "a [blank:4] cat", "batch_size": 2, "generator": 3, "num_inference_steps": 3}


FACTORIES: dict[str, Callable[[Any], Made]] = {
    "pipeline_pixel": pixel,
    "pipeline_restoration": restoration,
    "pipeline_text": text,
    "pipeline_text_to_image": text_to_image,
}
"""By the stem of the file: its class -> a pipeline, and arguments of a call that gives an array or equal values."""


def make(stem: str, pipeline_class: Any) -> Made:
    """The pipeline of that file, with the same weights each time."""
    torch.manual_seed(0)
    return FACTORIES[stem](pipeline_class)
