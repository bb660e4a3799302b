"""Damage in words -> the operator that does it to pictures of one size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from logsnr.base.errors import ConfigError
from logsnr.pipelines.restoration_operators import (
    Blur,
    Clip,
    Composition,
    Downscale,
    Fourier,
    Gray,
    Identity,
    Jpeg,
    Mask,
    Operator,
    Radon,
    RandomProjections,
    gaussian_kernel,
    motion_kernel,
)
from logsnr.settings.damage import WHERE, Damage, Step

Shape = tuple[int, int, int]
_ALWAYS_TAKEN = 0.08
"""Share of the lines of frequencies, the lowest, that `fourier` always takes, as fastMRI does at an acceleration of 4
(Zbontar et al. 2018, arXiv 1811.08839)."""


def make_operator(damage: Damage, shape: Shape, mask: Tensor | None = None, seed: int = 0) -> Operator:
    """The operator on clean pictures of `shape`, (channels, height, width) in [0, 1].

    mask: bool (height, width), True where a pixel is known, for the step `mask`; of the size that the picture has
        when that step comes.
    seed: decides what `missing`, `projections` and `fourier` measure; the same for all pictures of a size.

    Raises ConfigError where the damage can't be done to such pictures.
    """
    if mask is not None and "mask" not in damage.names:
        raise ConfigError(
            f'mask is for the step mask, and {WHERE} is "{damage}". Write "mask + {damage}" or leave it out.'
        )
    operators: list[Operator] = []
    for place, step in enumerate(damage.steps):
        noise_std = damage.noise_std if place == len(damage.steps) - 1 else 0.0
        size = shape if not operators else operators[-1].measurement_shape
        try:
            made = _made(step, (size[0], size[1], size[2]), noise_std, mask, seed)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{WHERE}: {step} can't be done to {_in_words(size)}: {error}") from error
        operators.append(made)
    if not operators:
        return Identity(shape, damage.noise_std)
    return operators[0] if len(operators) == 1 else Composition(*reversed(operators))


def _made(step: Step, shape: Shape, noise_std: float, mask: Tensor | None, seed: int) -> Operator:
    if step.name == "mask":
        return Mask(_given(mask, shape), noise_std)
    if step.name == "gray" and shape[0] != 3:
        raise ConfigError(f"{WHERE}: gray needs pictures in RGB, and this is {_in_words(shape)}. Leave gray out.")
    if step.name in ("down", "bicubic") and (shape[1] % step.values[0] or shape[2] % step.values[0]):
        factor = int(step.values[0])
        raise ConfigError(
            f"{WHERE}: {step} needs a width and a height that are multiples of {factor}, and this is "
            f"{_in_words(shape)}. Cut it to {shape[2] // factor * factor}x{shape[1] // factor * factor}."
        )
    return _MAKERS[step.name](shape, step.values, noise_std, seed)


def _given(mask: Tensor | None, shape: Shape) -> Tensor:
    if mask is None:
        raise ConfigError(f"{WHERE}: the step mask needs a mask: a picture whose white is what is hidden, by --mask.")
    if tuple(mask.shape) != shape[1:]:
        raise ConfigError(
            f"mask must have the picture's size, {shape[2]}x{shape[1]}, and has {mask.shape[1]}x{mask.shape[0]}. "
            "Paint it over a copy of that picture."
        )
    require_hole(mask)
    return mask.expand(shape)


def require_hole(mask: Tensor) -> None:
    """Raise ConfigError where a mask, True where a pixel is known, hides nothing or all."""
    hidden = int((~mask).sum())
    if hidden in (0, mask.numel()):
        what, why = ("all", "") if hidden else ("none", ", or transparent where you painted")
        raise ConfigError(
            f"mask must hide some pixels and show others, and hides {what}. White is hidden and to be repaired, black "
            f"is kept: is it inverted{why}?"
        )


def _missing(shape: Shape, values: tuple[float, ...], noise_std: float, seed: int) -> Operator:
    """That share of the pixels to the nearest whole number, in all channels alike."""
    _, height, width = shape
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
    hidden = min(max(round(values[0] * height * width), 1), height * width - 1)
    known = torch.ones(height * width, dtype=torch.bool)
    known[order[:hidden]] = False
    return Mask(known.view(1, height, width).expand(shape), noise_std)


def _box(shape: Shape, values: tuple[float, ...], noise_std: float, seed: int) -> Operator:
    known = torch.ones(shape, dtype=torch.bool)
    (high, top), (wide, left) = (
        (side, (whole - side) // 2) for whole in shape[1:] if (side := max(round(values[0] * whole), 1))
    )
    known[:, top : top + high, left : left + wide] = False
    return Mask(known, noise_std)


def _fourier(shape: Shape, values: tuple[float, ...], noise_std: float, seed: int) -> Operator:
    """Whole lines of frequencies, as a scanner takes them: the lowest, and others at random."""
    _, height, width = shape
    taken = min(max(round(width / values[0]), 1), width)
    frequencies = torch.fft.fftfreq(width).abs()
    lowest = frequencies.argsort(stable=True)[: min(taken, max(1, round(_ALWAYS_TAKEN * width)))]
    lines = torch.zeros(width, dtype=torch.bool)
    lines[lowest] = True
    others = (~lines).nonzero()[:, 0]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    lines[others[order[: taken - len(lowest)]]] = True
    return Fourier(shape, lines.expand(height, width), noise_std)


def _projections(shape: Shape, values: tuple[float, ...], noise_std: float, seed: int) -> Operator:
    rows = max(1, round(values[0] * shape[0] * shape[1] * shape[2]))
    return RandomProjections(shape, rows, noise_std, seed)


_MAKERS: dict[str, Callable[[Shape, tuple[float, ...], float, int], Operator]] = {
    "missing": _missing,
    "box": _box,
    "down": lambda shape, v, noise_std, _: Downscale(shape, int(v[0]), noise_std),
    "bicubic": lambda shape, v, noise_std, _: Downscale(shape, int(v[0]), noise_std, kernel="bicubic"),
    "blur": lambda shape, v, noise_std, _: Blur(shape, gaussian_kernel(v[0]), noise_std),
    "motion": lambda shape, v, noise_std, _: Blur(shape, motion_kernel(v[0], v[1]), noise_std),
    "gray": lambda shape, v, noise_std, _: Gray(shape, noise_std),
    "projections": _projections,
    "fourier": _fourier,
    "radon": lambda shape, v, noise_std, _: Radon(shape, torch.arange(int(v[0])) * (180 / v[0]), noise_std),
    "jpeg": lambda shape, v, noise_std, _: Jpeg(shape, int(v[0]), noise_std),
    "clip": lambda shape, v, noise_std, _: Clip(shape, v[0], v[1], noise_std),
}
"""By the word: shape, values, noise_std and seed -> the operator."""


def _in_words(shape: tuple[int, ...]) -> str:
    kind = {1: "a gray picture", 3: "an RGB picture", 4: "an RGBA picture"}.get(shape[0], f"{shape[0]} channels")
    return f"{kind} of {shape[2]}x{shape[1]} pixels"
