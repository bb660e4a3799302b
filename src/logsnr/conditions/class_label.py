"""A class as the condition: an index, for which the network has an embedding, and one more for "no class"."""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.data.seeded import Condition


class ClassLabel:
    """The conditioner of a network with an embedding for each of K classes, 0 to K - 1, and one, K, for no class.

    Args:
        num_classes: K.
        keyword: what the network calls the class, int64 (batch,).
    """

    def __init__(self, num_classes: int, keyword: str = "class_labels") -> None:
        self.null_label, self.keyword = num_classes, keyword

    def encode(self, raw: Condition, device: torch.device) -> Condition:
        return {self.keyword: raw[self.keyword].to(device)} if self.keyword in raw else {}

    def null(self, count: int, device: torch.device) -> Condition:
        return {self.keyword: torch.full((count,), self.null_label, device=device)}

    def drop(self, condition: Condition, coins: Tensor) -> Condition:
        return {self.keyword: torch.where(coins, self.null_label, condition[self.keyword])}

    def in_turn(self, count: int, device: torch.device) -> Condition:
        return {self.keyword: torch.arange(count, device=device) % self.null_label}
