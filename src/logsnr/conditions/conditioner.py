"""What a condition must do for training and guidance: be encoded, be dropped, be nothing in particular."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from logsnr.data.seeded import Condition


class Conditioner(Protocol):
    """Between the condition of a batch, as the data have it, and the keywords of the network.

    Frozen encoders live here; one that learns is part of the network.
    """

    def encode(self, raw: Condition, device: torch.device) -> Condition:
        """The network's keywords for the condition of a batch, on its device."""
        ...

    def null(self, count: int, device: torch.device) -> Condition:
        """The keywords of `count` samples of nothing in particular, which guidance moves away from."""
        ...

    def drop(self, condition: Condition, coins: Tensor) -> Condition:
        """The same with the null condition where `coins`, bool (batch,), say so."""
        ...

    def in_turn(self, count: int, device: torch.device) -> Condition:
        """The keywords of `count` samples of all there is, in turn: what is drawn where nobody asks for anything."""
        ...


class Unconditioned:
    """The conditioner of a network that has no condition: whatever data say, it isn't shown."""

    def encode(self, raw: Condition, device: torch.device) -> Condition:
        return {}

    def null(self, count: int, device: torch.device) -> Condition:
        return {}

    def drop(self, condition: Condition, coins: Tensor) -> Condition:
        return {}

    def in_turn(self, count: int, device: torch.device) -> Condition:
        return {}
