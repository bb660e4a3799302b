"""What a condition must do for training and guidance: be encoded, be dropped, be nothing in particular."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from logsnr.base.errors import did_you_mean
from logsnr.data.seeded import Condition


class Conditioner(Protocol):
    """Between the condition of a batch, as the data have it, and the keywords of the network.

    Frozen encoders live here; one that learns is part of the network.
    """

    def encode(self, raw: Condition, device: torch.device) -> Condition:
        """The network's keywords for the condition of a batch, on its device; of none, none.

        Raises ValueError for what it doesn't know: a condition that nobody looks at would be lost in silence.
        """
        ...

    def null(self, count: int, device: torch.device) -> Condition:
        """The keywords of `count` samples of nothing in particular, which guidance moves away from."""
        ...

    def drop(self, condition: Condition, coins: Tensor) -> Condition:
        """The same with the null condition where `coins`, bool (batch,), say so: what training shows.

        Raises ValueError where there is nothing to drop, and the network would learn of the null condition alone.
        """
        ...

    def in_turn(self, count: int, device: torch.device) -> Condition:
        """The keywords of `count` samples of all there is, in turn: what is drawn where nobody asks for anything."""
        ...


class Unconditioned:
    """The conditioner of a network that has no condition. A batch that has one is refused."""

    def encode(self, raw: Condition, device: torch.device) -> Condition:
        if raw:
            name = next(iter(raw))
            raise ValueError(
                f"A batch has the condition {name!r}, and the denoiser knows of no conditions: the network wouldn't be "
                f"shown it. Say what it means, Denoiser(network, schedule, ClassLabel(K, {name!r})) for K classes, or "
                "leave it out of the batch."
            )
        return {}

    def null(self, count: int, device: torch.device) -> Condition:
        return {}

    def drop(self, condition: Condition, coins: Tensor) -> Condition:
        return {}

    def in_turn(self, count: int, device: torch.device) -> Condition:
        return {}


def refuse_unknown(raw: Condition, *keywords: str) -> None:
    """Raise ValueError where the condition of a batch has another keyword than those that are known."""
    if unknown := [name for name in raw if name not in keywords]:
        raise ValueError(
            f"A batch has the condition {unknown[0]!r}, and the denoiser's conditioner knows "
            f"{' and '.join(map(repr, keywords))} alone.{did_you_mean(unknown[0], keywords)} Call it so in the batch, "
            "give the conditioner the other keyword, or leave it out."
        )
