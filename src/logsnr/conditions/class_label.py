"""A class as the condition: an index, for which the network has an embedding, and one more for "no class"."""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.conditions.conditioner import refuse_unknown
from logsnr.data.seeded import Condition


class ClassLabel:
    """The conditioner of a network with an embedding for each of K classes, 0 to K - 1, and one, K, for no class.

    The network's table of embeddings hence has K + 1 rows, as in `torch.nn.Embedding(K + 1, width)`; the last is
    learned from the labels that training drops, and is what guidance moves away from.

    Args:
        num_classes: K, without "no class".
        keyword: what the network, and the condition of a batch, call the class: int64 (batch,), 0 to K - 1.
    """

    def __init__(self, num_classes: int, keyword: str = "class_labels") -> None:
        self.null_label, self.keyword = num_classes, keyword

    def encode(self, raw: Condition, device: torch.device) -> Condition:
        refuse_unknown(raw, self.keyword)
        if not raw:
            return {}
        labels = raw[self.keyword]
        if labels.device.type == "cpu":  # elsewhere a look at them would wait for the device
            self._require_classes(labels)
        return {self.keyword: labels.to(device)}

    def _require_classes(self, labels: Tensor) -> None:
        if labels.ndim != 1 or labels.is_floating_point():
            raise ValueError(
                f"{self.keyword!r} must be int64, (batch,), and is {labels.dtype}, {tuple(labels.shape)}. Convert it, "
                "as by `.long().flatten()`."
            )
        if bool(((labels < 0) | (labels >= self.null_label)).any()):
            raise ValueError(
                f"{self.keyword!r} must be classes from 0 to {self.null_label - 1}, as ClassLabel({self.null_label}) "
                f"says, and has {int(labels.min())} to {int(labels.max())}. Count classes from 0, or say how many "
                "there are, without the one for none."
            )

    def null(self, count: int, device: torch.device) -> Condition:
        return {self.keyword: torch.full((count,), self.null_label, device=device)}

    def drop(self, condition: Condition, coins: Tensor) -> Condition:
        if not condition:
            raise ValueError(
                f"A training batch has no condition, and the denoiser's conditioner, ClassLabel({self.null_label}), "
                f"knows {self.keyword!r}: the network would learn of no class. Make the batch with "
                f"{{{self.keyword!r}: labels}}, or the denoiser without a conditioner."
            )
        return {self.keyword: torch.where(coins, self.null_label, condition[self.keyword])}

    def in_turn(self, count: int, device: torch.device) -> Condition:
        return {self.keyword: torch.arange(count, device=device) % self.null_label}
