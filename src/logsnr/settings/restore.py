"""What is asked of `logsnr degrade` and `logsnr restore`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from logsnr.base.errors import ConfigError, did_you_mean
from logsnr.settings.damage import Damage, read_damage
from logsnr.settings.rules import require, require_seed

METHODS: Mapping[str, str] = {
    "moment": "the default, for what is linear",
    "particles": "several modes, and the honest spread",
    "diffpir": "no gradient: fast on a processor",
    "dps": "anything with a gradient",
    "gibbs": "anything, exact in the limit",
    "repaint": "masks alone",
}
"""How RestorationPipeline restores, and what each is for."""


@dataclass(frozen=True)
class DegradeOptions:
    """What is done to clean pictures."""

    operator: str
    """What is done to the pictures, from left to right: "blur 2.0 + noise 0.05", where the standard deviation of the
    noise is stated on [0, 1]. There are none, mask, missing, box, down, bicubic, blur, motion, gray, jpeg, clip and
    noise."""
    mask: Path | None = None
    """For the step mask: a picture of the same size whose white is hidden."""
    seed: int = 0
    """Of the noise, another for each file by its name, and of the pixels that are missing."""

    def __post_init__(self) -> None:
        _require_files(self.damage, self.mask)
        require_seed(self.seed)

    @cached_property
    def damage(self) -> Damage:
        """The operator, read."""
        return read_damage(self.operator, of_files=True)


@dataclass(frozen=True)
class RestoreOptions:
    """How pictures are restored."""

    operator: str
    """What was done to the pictures, from left to right: "blur 2.0 + noise 0.05", where the standard deviation of the
    noise is stated on [0, 1]. There are none, mask, missing, box, down, bicubic, blur, motion, gray, jpeg, clip and
    noise."""
    mask: Path | None = None
    """For the step mask: a picture of the same size whose white is to be repaired."""
    method: str = "moment"
    """moment, particles (several modes, and the honest spread), diffpir (no gradient: fast on a processor), dps, gibbs,
    or repaint (masks alone)."""
    samples: int = 1
    """Draws of each picture. With 2 or more their mean and a map of their standard deviation are written too."""
    steps: int | None = None
    """Steps of a draw; when not given moment 20, particles 50, diffpir 20, dps 100, gibbs 200, repaint 20. A step is
    one evaluation of the network, of moment 9, particles 80, dps 2, repaint 5 at most."""
    class_label: str | None = None
    """Name or number of the class of the pictures, of a model with classes; none in particular when not given."""
    guidance_scale: float = 1.0
    """1 is the plain model of the class, more is nearer to the class. Needs --class-label."""
    strength: float = 1.0
    """Above 0, and 1 at most. Below 1 it begins from a partly noised first guess, and stays nearer to that."""
    seed: int = 0
    """Of the draws, another for each file by its name, and of the pixels that are missing."""
    batch_size: int | None = None
    """Draws at once; as many as the memory holds when not given. Doesn't change them."""

    def __post_init__(self) -> None:
        _require_files(self.damage, self.mask)
        require_seed(self.seed)
        if self.method not in METHODS:
            raise ConfigError(
                f"method must be one of {', '.join(METHODS)}, and is {self.method!r}."
                f"{did_you_mean(self.method, METHODS)}"
            )
        if self.method in ("moment", "particles") and (step := self.damage.not_linear):
            best = "dps" if step.startswith("clip") else "diffpir"
            raise ConfigError(
                f"method must be diffpir, dps or gibbs for {step}, which isn't linear, and is {self.method!r}. "
                f"Take {best}."
            )
        if self.method == "repaint" and not self.damage.hides:
            raise ConfigError(
                f'method repaint is for mask, missing and box alone, and operator is "{self.damage}". Take moment or '
                "diffpir."
            )
        for name in ("samples", "steps", "batch_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, "at least 1", value)
        require(self.guidance_scale >= 0, "guidance_scale", "0 or more", self.guidance_scale)
        require(0 < self.strength <= 1, "strength", "above 0, and 1 at most", self.strength)
        if self.guidance_scale != 1 and self.class_label is None:
            raise ConfigError(
                f"guidance_scale needs a class, and is {self.guidance_scale:g}. Give --class-label, or leave it at 1."
            )

    @cached_property
    def damage(self) -> Damage:
        """The operator, read."""
        return read_damage(self.operator, of_files=True)


def _require_files(damage: Damage, mask: Path | None) -> None:
    if damage.no_picture is not None:
        raise ConfigError(
            f"operator: {damage.no_picture} makes no picture, so no picture file can hold what it makes. It is for "
            "Python and for logsnr evaluate --restore."
        )
    if "mask" in damage.names and mask is None:
        raise ConfigError("operator: the step mask needs a picture whose white is hidden: --mask M.png.")
    if "mask" not in damage.names and mask is not None:
        words = str(damage) if damage.steps else f"noise {damage.noise_std:g}" if damage.noise_std else ""
        better = f"mask + {words}" if words else "mask"
        raise ConfigError(f'mask is for the step mask, and operator is "{damage}". Write "{better}", or leave it out.')
