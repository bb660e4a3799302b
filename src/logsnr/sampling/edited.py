"""The picture that `logsnr sample --image` changes, as arguments of the pipeline."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch

from logsnr.base.errors import DataError, ModelError
from logsnr.base.words import one_line
from logsnr.data.picture_files import read_content, read_mask
from logsnr.data.pixels import Pixels, decode, fit
from logsnr.pipelines.picture_editing import USUAL_STRENGTH
from logsnr.settings.options import SampleOptions
from logsnr.tasks.parts import parts_of_pipeline


def edited(pipeline: Any, options: SampleOptions) -> dict[str, Any]:
    """`image`, `strength` and `mask_image` of the pipeline's call; empty where no picture is given.

    The middle of the picture is taken, and brought to the model's size and channels, as in training; of the mask too.
    Raises DataError for files that can't be read, or a mask of another size than the picture's, and ModelError where
    the model isn't one of pictures.
    """
    if options.image is None:
        return {}
    if "mask_image" not in inspect.signature(type(pipeline).__call__).parameters:
        raise ModelError(f"image is for models of pictures, and this one is a {type(pipeline).__name__}. Leave it out.")
    channels, resolution, _ = parts_of_pipeline(pipeline).shape(pipeline)
    pixels = _pixels(options.image)
    usual = USUAL_STRENGTH if options.mask_image is None else 1.0
    found: dict[str, Any] = {
        "image": _fitted(pixels, resolution, channels),
        "strength": usual if options.strength is None else options.strength,
    }
    if options.mask_image is not None:
        white = ~read_mask(options.mask_image).numpy()
        if white.shape != pixels.shape[:2]:
            sizes = [f"{width}×{height}" for height, width in (pixels.shape[:2], white.shape)]
            raise DataError(
                f"mask_image must have the size of image, {sizes[0]}, and {options.mask_image} is {sizes[1]}."
            )
        found["mask_image"] = _fitted(white[..., None].astype(np.uint8) * 255, resolution, 1)
    return found


def _pixels(path: Path) -> Pixels:
    data = read_content(path)
    try:
        return decode(data, path.name).pixels
    except DataError:
        raise
    except Exception as error:  # a damaged file may bring about whatever Pillow raises
        raise DataError(f"{path} can't be read: {one_line(error)}.") from error


def _fitted(pixels: Pixels, resolution: int, channels: int) -> torch.Tensor:
    """(1, channels, resolution, resolution) in [0, 1]."""
    values = fit(pixels, resolution, channels)
    return torch.from_numpy(values.astype(np.float32) / np.iinfo(values.dtype).max)[None]
