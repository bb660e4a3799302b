"""A class as the condition: an index, for which the network has an embedding, and one more for "no class"."""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.data.seeded import Condition

KEYWORD = "class_labels"
"""Of diffusers' networks: int64 (batch,)."""


class ClassLabel:
    """Of K classes, 0 to K - 1; the null label is K."""

    def __init__(self, num_classes: int) -> None:
        self.null_label = num_classes

    def encode(self, raw: Condition, device: torch.device) -> Condition:
        return {KEYWORD: raw[KEYWORD].to(device)} if KEYWORD in raw else {}

    def null(self, count: int, device: torch.device) -> Condition:
        return {KEYWORD: torch.full((count,), self.null_label, device=device)}

    def drop(self, condition: Condition, coins: Tensor) -> Condition:
        return {KEYWORD: torch.where(coins, self.null_label, condition[KEYWORD])}

    def in_turn(self, count: int, device: torch.device) -> Condition:
        return {KEYWORD: torch.arange(count, device=device) % self.null_label}
