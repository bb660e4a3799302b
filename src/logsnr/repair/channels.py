"""How the channels of a picture meet those of a model.

| picture | gray model | RGB model | RGBA model |
|---|---|---|---|
| gray | as it is | a gray picture of one in colour, whose luma is written | repeated, and the luma is written |
| RGB | refused, but where it is gray in truth | as it is | with full alpha, which isn't written |
| alpha | kept as it is | kept as it is | restored with the colours |

A gray picture isn't repeated for an RGB model, since three equal channels with the same noise are nothing that such a
model expects; that it is the luma of a picture in colour is true, and the noise is then right too. Where the damage is
`gray` itself, colours are what is asked for, and they are written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from logsnr.base.errors import DataError
from logsnr.data.picture_files import Picture
from logsnr.pipelines.restoration_operators import LUMA
from logsnr.settings.damage import Damage, Step

Parts = tuple[Tensor, Tensor | None]
"""Colour (1 or 3, height, width), and alpha (1, height, width) or None; in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Meeting:
    """What a model is shown of a picture.

    damage: what was done to a picture with the model's channels.
    measurement: (channels, height, width) in [0, 1].
    parts: a restored picture (the model's channels, height, width) -> what is written.
    """

    damage: Damage
    measurement: Tensor
    parts: Callable[[Tensor], Parts]


def meet(picture: Picture, damage: Damage, channels: int, name: str) -> Meeting:
    """What a model of so many channels is shown of a picture file called `name`. Raises DataError where they don't
    fit."""
    color, alpha = picture.color, picture.alpha
    written = len(color)
    if channels == 4:
        opaque = torch.ones_like(color[:1])
        shown = torch.cat([color.expand(3, -1, -1), opaque if alpha is None else alpha])

        def four(restored: Tensor) -> Parts:
            return _as_gray(restored[:3], written), None if alpha is None else restored[3:]

        return Meeting(damage, shown, four)
    if channels not in (1, 3):
        raise DataError(f"{name}: pictures have 1, 3 or 4 channels, and the model has {channels}.")

    def kept(restored: Tensor) -> Tensor | None:
        return None if alpha is None else resized(alpha, restored)

    if channels == 1:
        return Meeting(
            damage,
            _flat(color, f"{name}: the model is of gray pictures", "take a model of RGB pictures"),
            lambda x: (x.expand(written, -1, -1), kept(x)),
        )
    if "gray" in damage.names:
        return Meeting(
            damage, _flat(color, f"{name}: the operator says gray", "leave gray out"), lambda x: (x, kept(x))
        )
    if written == 1:
        damage = replace(damage, steps=(Step("gray"), *damage.steps))
    return Meeting(damage, color, lambda x: (_as_gray(x, written), kept(x)))


def _flat(color: Tensor, because: str, otherwise: str) -> Tensor:
    """The one channel of a picture that is gray, whatever its file has."""
    if not torch.equal(color, color[:1].expand_as(color)):
        raise DataError(f"{because}, and this one has colours. Save it as gray, or {otherwise}.")
    return color[:1]


def _as_gray(color: Tensor, channels: int) -> Tensor:
    if channels == 3:
        return color
    return torch.einsum("c,chw->hw", color.new_tensor(LUMA), color)[None]


def resized(alpha: Tensor, like: Tensor) -> Tensor:
    """Alpha in the size of another picture of (channels, height, width)."""
    size = like.shape[1:]
    if alpha.shape[1:] == size:
        return alpha
    return F.interpolate(alpha[None], size=size, mode="bilinear", antialias=True)[0]
