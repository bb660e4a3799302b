"""How samples of a kind are shown and written."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from logsnr.media.film import Frame
from logsnr.media.plots import side_by_side


class Medium(abc.ABC):
    """A kind's eyes and hands. Samples are the tensors that its pipeline returns, (n, ...)."""

    @abc.abstractmethod
    def show(self, samples: Tensor, columns: int | None = None, row_labels: Sequence[str] = ()) -> Image.Image:
        """One picture of all samples; in rows of `columns` with a word beside each, where the kind has rows."""

    @abc.abstractmethod
    def write(self, samples: Tensor, folder: Path, names: Sequence[str]) -> None:
        """A file for each sample, of these names without their endings, into a folder that is there."""

    in_words: bool = False
    """Whether samples can be read; `sheet` then has them."""

    def sheet(self, samples: Tensor, width: int = 80) -> str:
        """Samples as lines for a terminal of that width."""
        raise NotImplementedError

    def film(self, frames: Sequence[Frame]) -> Image.Image:
        """How samples come out of noise: what the network sees above, what it predicts below, from left to right."""
        rows = [[self.show(getattr(frame, name)) for frame in frames] for name in ("sample", "predicted")]
        shares = [f"{100 * frame.noise:.0f} %" for frame in frames]
        return side_by_side(rows, ["seen xₜ", "predicted x₀"], shares, "noise")

    def across(self, shape: tuple[int, ...], width: int) -> int:
        """How many samples of this shape stand side by side in a picture about `width` pixels wide."""
        return 8
