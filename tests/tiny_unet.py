"""A U-Net of a few channels for images of 8 pixels a side: a real network, made and run in no time.

It imports torch and diffusers alone, so it can be made where there is nothing of ours.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel


def tiny_unet(
    classes: int | None = None, channels: int = 1, block_out_channels: tuple[int, ...] = (8,), **config: Any
) -> Any:
    """A `UNet2DModel` with one level for each of `block_out_channels`, and the same random weights each time.

    With `classes` it has an embedding for each, and one more for no class. `config` is UNet2DModel's, and goes before
    what is set here. Seeds torch's global generator with 0.
    """
    levels = len(block_out_channels)
    made = {
        "sample_size": 8,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": block_out_channels,
        "down_block_types": ("DownBlock2D",) * levels,
        "up_block_types": ("UpBlock2D",) * levels,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "add_attention": False,
        "num_class_embeds": None if classes is None else classes + 1,
    }
    torch.manual_seed(0)
    return UNet2DModel(**(made | config)).eval()
