"""What a network that is told a text is shown: its caption, the empty one, or prompts in turn."""

from __future__ import annotations

import torch

from logsnr.conditions.caption import Caption
from logsnr.data.seeded import Condition

CPU = torch.device("cpu")


def tokens(*rows: list[int]) -> Condition:
    ids = torch.tensor(rows)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def states(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    return (input_ids * attention_mask).float()[..., None]


def test_prompts_come_in_turn_and_are_not_the_null_condition() -> None:
    caption = Caption(tokens([1, 0]), tokens([2, 0], [3, 4]), states)
    shown = caption.in_turn(3, CPU)["encoder_hidden_states"]
    assert torch.equal(shown, states(**tokens([2, 0], [3, 4], [2, 0])))
    assert not torch.equal(shown, caption.null(3, CPU)["encoder_hidden_states"])


def test_what_coins_say_is_dropped() -> None:
    caption = Caption(tokens([1, 0]), tokens([2, 0]))
    dropped = caption.drop(tokens([5, 6], [7, 8]), torch.tensor([True, False]))
    assert torch.equal(dropped["input_ids"], torch.tensor([[1, 0], [7, 8]]))
    assert torch.equal(dropped["attention_mask"], torch.tensor([[1, 0], [1, 1]]))
