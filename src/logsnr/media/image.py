"""Images: grids, film strips and PNG files. Samples are (n, channels, height, width) in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from logsnr.media.film import Frame
from logsnr.media.medium import Medium
from logsnr.media.plots import cell_size, image_grid, labelled_grid, save_png, to_pil


class ImageMedium(Medium):
    """The medium of pictures."""

    def show(self, samples: Tensor, columns: int | None = None, row_labels: Sequence[str] = ()) -> Image.Image:
        """A grid, about a square where `columns` isn't given; with labels, a row for each."""
        if not row_labels:
            return image_grid(samples, columns)
        cells, columns = to_pil(samples), len(samples) // len(row_labels)
        return labelled_grid([cells[k : k + columns] for k in range(0, len(cells), columns)], row_labels)

    def film(self, frames: Sequence[Frame]) -> Image.Image:
        """Frames from left to right under their shares of noise, two rows for each of their images."""
        seen, predicted = (torch.stack([getattr(f, name) for f in frames], 1) for name in ("sample", "predicted"))
        rows = [to_pil(row / 2 + 0.5) for pair in zip(seen, predicted, strict=True) for row in pair]
        shares = [100 * frame.noise for frame in frames]
        above = [f"{share:.0f} %" if share >= 1 else f"{share:.1f} %" for share in shares]
        return labelled_grid(rows, ["seen xₜ", "predicted x₀"] * len(seen), above, "noise")

    def write(self, samples: Tensor, folder: Path, names: Sequence[str]) -> None:
        """A PNG each."""
        for image, name in zip(to_pil(samples), names, strict=True):
            save_png(image, folder / f"{name}.png")

    def across(self, shape: tuple[int, ...], width: int) -> int:
        return math.ceil(width / cell_size((shape[-1], shape[-2])).width)
