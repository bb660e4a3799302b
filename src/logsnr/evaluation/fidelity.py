"""How near images are to the ones they should be, pair by pair: PSNR and SSIM of values in [0, 1].

    PSNR = -10 log10 mean (x - y)^2                                          in decibels; 20 at an error of 0.1
    SSIM = mean of (2 m_x m_y + c_1)(2 s_xy + c_2) / ((m_x^2 + m_y^2 + c_1)(s_x^2 + s_y^2 + c_2))

with means m, variances s^2 and covariances s_xy in a Gaussian window of 1.5 pixels, cut off at 11x11, around every
pixel of every channel; c_1 = 0.01^2, c_2 = 0.03^2 (Wang et al. 2004, "Image quality assessment: from error visibility
to structural similarity"). Images are mirrored at their borders, so that they may be smaller than the window, but for
the 6 pixels that a mirror of 5 needs. Both are torchmetrics'.

PSNR rewards the mean of all that is possible, which is blurred where much is: a single draw of the exact posterior has
twice the squared error of its mean, 3 dB less.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

_LEAST = 6


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """In decibels for each pair, (n,); images and originals are (n, channels, height, width) in [0, 1].

    100 where they are nearer than that, or equal. Raises ValueError for shapes that differ.
    """
    _require_pairs(images, originals, 1)
    found = peak_signal_noise_ratio(images, originals, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return found.clamp(max=100.0)


def ssim(images: Tensor, originals: Tensor) -> Tensor:
    """Structural similarity of each pair, (n,), 1 where both are equal.

    Images and originals are (n, channels, height, width) in [0, 1], at least 6 pixels a side. Raises ValueError.
    """
    _require_pairs(images, originals, _LEAST)
    found = structural_similarity_index_measure(images, originals, data_range=1.0, reduction="none", sigma=1.5)
    return cast(Tensor, found).reshape(len(images))


def _require_pairs(images: Tensor, originals: Tensor, least: int) -> None:
    if images.shape != originals.shape or images.ndim != 4 or min(images.shape[2:]) < least:
        raise ValueError(
            f"images and originals must have one shape (n, channels, height, width) with {least} pixels or more a "
            f"side, and have {tuple(images.shape)} and {tuple(originals.shape)}."
        )
