"""Pixel pipelines that are tested: of a network with random weights, and of one that is right on Gaussian data."""

from typing import Any

import torch
from gaussian_unet import GaussianUNet, honours_trained_betas, scheduler_classes
from tiny_unet import tiny_unet

from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler

HONEST = [cls for cls in scheduler_classes() if honours_trained_betas(cls)]
"""Stock schedulers that run betas that they are given."""
NAMES = {0: "cat", 1: "dog", 2: "seven"}


def unet_2d(classes: int | None = None, channels: int = 1, **config: Any) -> Any:
    """Of two levels, with attention between them."""
    return tiny_unet(classes, channels, **{"block_out_channels": (8, 16), "add_attention": True} | config)


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
