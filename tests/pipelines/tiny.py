"""One tiny pipeline for each file of pipelines/, in the form that needs the file's own code, and a call that samples.

It is made where there is torch and diffusers and nothing of ours: the class is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

Made = tuple[Any, dict[str, Any]]


def pixel(pipeline_class: Any) -> Made:
    """With classes, for without it is stock's DDPMPipeline that is saved."""
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        add_attention=False,
        num_class_embeds=3,
    )
    pipeline = pipeline_class(unet, DDIMScheduler(), id2label={0: "dark", 1: "light"})
    call = {"class_labels": ["light", "dark"], "guidance_scale": 2.0, "generator": 3, "output_type": "np"}
    return pipeline, call | {"num_inference_steps": 3}


FACTORIES: dict[str, Callable[[Any], Made]] = {"pipeline_pixel": pixel}
"""By the stem of the file: its class -> a pipeline, and arguments of a call that gives an array or equal values."""


def make(stem: str, pipeline_class: Any) -> Made:
    """The pipeline of that file, with the same weights each time."""
    torch.manual_seed(0)
    return FACTORIES[stem](pipeline_class)
