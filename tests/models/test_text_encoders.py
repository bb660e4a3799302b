"""What a frozen text encoder says of texts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_prompted import WIDTH, tiny_text_encoder, tiny_tokenizer

from logsnr.base.errors import ConfigError
from logsnr.models.text_encoders import TextEncoder, Tokenizer, open_text_encoder
from logsnr.settings.condition import CaptionConfig


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
    assert torch.allclose(encoder.meanings(texts[:65]), meanings[:65], atol=1e-5)  # one text in the last batch
    assert torch.allclose(encoder.states(["a cat", "cat"])[3:], states[2, :4], atol=1e-5)  # the shorter comes first


def test_a_tokenizer_that_was_called_or_saved_is_the_same() -> None:
    """What was encoded of captions is found again: a call leaves its truncation and padding in the tokenizer."""
    fresh, called = Tokenizer(tiny_tokenizer()), Tokenizer(tiny_tokenizer())
    called(["a red fox"])
    assert called.digest == fresh.digest
    other = tiny_tokenizer()
    other.add_tokens(["badger"])
    assert Tokenizer(other).digest != fresh.digest


def test_the_first_layers_say_what_the_whole_encoder_says_after_them(tmp_path: Path) -> None:
    whole = tiny_text_encoder(layers=3)
    whole.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    encoder = open_text_encoder(str(tmp_path), layers=2)
    tokens = encoder.tokenizer.tensors(["a red fox", "a cat"])
    after = whole(**tokens, output_hidden_states=True).hidden_states
    assert torch.allclose(encoder(**tokens), after[2], atol=1e-6)
    assert torch.allclose(open_text_encoder(str(tmp_path))(**tokens), after[3], atol=1e-6)

    encoder.model.save_pretrained(tmp_path / "first")
    tiny_tokenizer().save_pretrained(tmp_path / "first")
    assert open_text_encoder(str(tmp_path / "first")).digest == encoder.digest
    with pytest.raises(ConfigError, match=r"condition.text_layers must be at most 3, all that .* has, not 4"):
        open_text_encoder(str(tmp_path), layers=4)


def test_an_encoder_that_is_trained_along_has_the_layers_it_is_made_with() -> None:
    with pytest.raises(ConfigError, match=r"condition\.text_layers must be 0 for condition\.text_encoder scratch"):
        CaptionConfig(text_encoder="scratch", text_layers=2)
