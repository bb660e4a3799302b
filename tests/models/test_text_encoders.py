"""What a frozen text encoder says of texts."""

from __future__ import annotations

import torch
from tiny_prompted import WIDTH, tiny_text_encoder, tiny_tokenizer

from logsnr.models.text_encoders import TextEncoder, Tokenizer


def test_a_meaning_is_the_mean_of_the_states_of_all_tokens_but_padding() -> None:
    encoder = TextEncoder(Tokenizer(tiny_tokenizer()), tiny_text_encoder())
    texts = ["a red fox on grass", "cat", "a cat", *["green"] * 70]
    meanings = encoder.meanings(texts)
    assert meanings.shape == (73, WIDTH)
    tokens = encoder.tokenizer.tensors(texts)
    states = encoder(**tokens)
    for row, count in ((0, 7), (1, 3), (2, 4), (72, 3)):
        assert int(tokens["attention_mask"][row].sum()) == count
        mean = states[row, :count].mean(0)
        assert torch.allclose(meanings[row], mean / mean.norm(), atol=1e-5)


def test_a_tokenizer_that_was_called_or_saved_is_the_same() -> None:
    """What was encoded of captions is found again: a call leaves its truncation and padding in the tokenizer."""
    fresh, called = Tokenizer(tiny_tokenizer()), Tokenizer(tiny_tokenizer())
    called(["a red fox"])
    assert called.digest == fresh.digest
    other = tiny_tokenizer()
    other.add_tokens(["badger"])
    assert Tokenizer(other).digest != fresh.digest
