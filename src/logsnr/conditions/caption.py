"""A caption as the condition: its tokens, and the hidden states that a text encoder makes of them.

The null condition is the encoded "", as stock `IFPipeline` has it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from logsnr.conditions.conditioner import refuse_unknown
from logsnr.data.seeded import Condition

_KEYWORDS = ("input_ids", "attention_mask")


class Caption:
    """The conditioner of a network that is told a text.

    Args:
        null: `input_ids` and `attention_mask` of "", int64, (1, length) each.
        prompts: those of captions to draw where nobody asks for any, (captions, length) each.
        encode: a frozen encoder: input_ids and attention_mask, (n, length) each -> hidden states (n, length, width),
            which the network gets as `encoder_hidden_states`. None where the network takes the tokens itself.
    """

    def __init__(
        self, null: Condition, prompts: Condition, encode: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> None:
        self._encode, self._prompts = encode, prompts
        self._null = self._encoded(null)

    def _encoded(self, tokens: Condition) -> Condition:
        if self._encode is None:
            return dict(tokens)
        return {"encoder_hidden_states": self._encode(tokens["input_ids"], tokens["attention_mask"])}

    def encode(self, raw: Condition, device: torch.device) -> Condition:
        refuse_unknown(raw, *_KEYWORDS)
        return {name: values.to(device) for name, values in self._encoded(raw).items()} if raw else {}

    def null(self, count: int, device: torch.device) -> Condition:
        return {name: values.to(device).expand(count, *values.shape[1:]) for name, values in self._null.items()}

    def drop(self, condition: Condition, coins: Tensor) -> Condition:
        if not condition:
            raise ValueError(
                "A training batch has no condition, and the denoiser's conditioner knows captions: the network would "
                "learn of none. Make the batch with input_ids and attention_mask."
            )
        return {
            name: torch.where(coins.view(-1, *[1] * (values.ndim - 1)), self._null[name].to(values.device), values)
            for name, values in condition.items()
        }

    def in_turn(self, count: int, device: torch.device) -> Condition:
        rows = torch.arange(count) % len(self._prompts["input_ids"])
        return self.encode({name: values[rows] for name, values in self._prompts.items()}, device)
