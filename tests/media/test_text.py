"""logsnr.media.text: texts survive the way to tokens and back, with transformers alone too, and can be looked at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text import letters

from logsnr.media.film import Frame
from logsnr.media.text import (
    SHOWN_MASK,
    TextCodec,
    TextMedium,
    byte_codec,
    character_codec,
    open_codec,
    word_piece_codec,
)

ALPHABET = "\n -abc]^é"
CHARACTERS, BYTES = character_codec(ALPHABET), byte_codec()
PIECES = word_piece_codec(["the cat and the hat", "the other cat"], 270)
CODECS = {"characters": CHARACTERS, "bytes": BYTES, "word-pieces": PIECES}


@pytest.fixture(scope="module", params=CODECS)
def codec(request: pytest.FixtureRequest) -> TextCodec:
    return CODECS[request.param]


@settings(max_examples=50, deadline=None)
@given(st.text(ALPHABET, min_size=1))
def test_characters_go_round(text: str) -> None:
    tokens = CHARACTERS.encode(text)
    assert tokens.tolist() == [ALPHABET.index(character) for character in text]
    assert CHARACTERS.decode(tokens) == text


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_goes_round_in_bytes_and_pieces(text: str) -> None:
    assert BYTES.encode(text).tolist() == list(text.encode())
    for codec in (BYTES, PIECES):
        assert codec.decode(codec.encode(text)) == text


def test_end_and_mask_come_last(codec: TextCodec) -> None:
    assert (codec.end_token_id, codec.mask_token_id) == (codec.vocab_size - 2, codec.vocab_size - 1)
    assert CHARACTERS.vocab_size == len(ALPHABET) + 2
    assert BYTES.vocab_size == 258
    assert PIECES.vocab_size <= 270


def test_ends_and_masks_are_shown(codec: TextCodec) -> None:
    one, two = codec.encode("ab"), codec.encode("c")
    end, mask = [codec.end_token_id], [codec.mask_token_id]
    assert codec.decode(np.concatenate([one, end, two])) == "ab\n\nc"
    assert codec.decode(np.concatenate([one, end, end, end])) == "ab"
    assert codec.decode(np.concatenate([mask, one, mask, mask, two])) == f"{SHOWN_MASK}ab{2 * SHOWN_MASK}c"


@pytest.mark.parametrize("name", ["bytes", "word-pieces"])
def test_a_text_that_spells_the_mask_holds_none(name: str) -> None:
    codec, text = CODECS[name], "a <|mask|> and an <|end|>"
    assert {codec.mask_token_id, codec.end_token_id}.isdisjoint(codec.encode(text).tolist())
    assert codec.decode(codec.encode(text)) == text


def test_it_goes_round_as_json(codec: TextCodec) -> None:
    again = TextCodec.from_json(json.loads(json.dumps(codec.to_json())))
    assert again.digest == codec.digest
    assert (again.vocab_size, again.end_token_id, again.mask_token_id) == (
        *(codec.vocab_size, codec.end_token_id, codec.mask_token_id),
    )
    assert again.encode("a-b c").tolist() == codec.encode("a-b c").tolist()
    assert again.tokenizer.pad_token == codec.tokenizer.pad_token


def test_so_does_a_tokenizer_of_another_s(tmp_path: Path) -> None:
    letters().save_pretrained(tmp_path)
    codec = open_codec(str(tmp_path))  # an end was added, behind its mask
    again = TextCodec.from_json(json.loads(json.dumps(codec.to_json())))
    assert again.digest == codec.digest
    assert again.tokenizer.special_tokens_map == codec.tokenizer.special_tokens_map
    assert again.decode(again.encode("the cat")) == "the cat"


def test_transformers_loads_it_alone(codec: TextCodec, tmp_path: Path) -> None:
    codec.save(tmp_path)
    for cls in (transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast):
        tokenizer = cls.from_pretrained(tmp_path)
        text = "a cab\n\nab -c"
        assert tokenizer(text)["input_ids"] == codec.encode(text).tolist()
        assert tokenizer.decode(codec.encode(text).tolist()) == text
        assert (tokenizer.eos_token_id, tokenizer.mask_token_id) == (codec.end_token_id, codec.mask_token_id)
    again = open_codec(str(tmp_path))
    assert (again.digest, again.vocab_size) == (codec.digest, codec.vocab_size)


def test_small_letters_and_spaces_are_part_of_the_tokenizer() -> None:
    codec = character_codec(" abc", lower_case=True, others_to_space=True)
    assert codec.decode(codec.encode("A,  b\n(C)d")) == "a b c "


def test_an_unknown_character_is_refused() -> None:
    with pytest.raises(ValueError, match="none of the 9 that the tokenizer knows"):
        CHARACTERS.encode("abz")


def test_a_tokenizer_of_transformers_is_given_what_it_lacks(tmp_path: Path) -> None:
    words = {word: k for k, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "c"])}
    transformers.DistilBertTokenizer(vocab=words).save_pretrained(tmp_path / "bert")
    bert = open_codec(str(tmp_path / "bert"))
    assert (bert.end_token_id, bert.mask_token_id, bert.vocab_size) == (3, 4, 8)
    assert bert.encode("ab c").tolist() == [5, 6, 7]
    assert bert.decode(bert.encode("ab c")) == "ab c"
    plain = transformers.PreTrainedTokenizerFast(tokenizer_object=BYTES.tokenizer.backend_tokenizer)
    plain.save_pretrained(tmp_path / "plain")
    assert open_codec(str(tmp_path / "plain")).decode(BYTES.encode("ab")) == "ab"


def test_it_can_be_looked_at_and_written(tmp_path: Path) -> None:
    medium = TextMedium(CHARACTERS)
    samples = torch.from_numpy(np.stack([CHARACTERS.encode(text) for text in ("abc-" * 20, "é\nb " * 20)]))
    sheet = medium.sheet(samples, 30).split("\n")
    assert sheet[0] == f"-- 0 {25 * '-'}"
    assert max(map(len, sheet)) == 30
    assert "".join(sheet[1:4]) == "abc-" * 20
    grid = medium.show(samples, 2)
    assert np.asarray(grid).min() < 128  # there are letters
    assert medium.show(samples, row_labels=["one", "two"]).height > grid.height
    frames = [Frame(t, t / 10, samples, samples) for t in (9.0, 1.0)]
    assert medium.film(frames).height > 0
    assert medium.across((80,), 3 * grid.width // 2) == 3
    medium.write(samples, tmp_path, ["000", "001"])
    assert (tmp_path / "001.txt").read_text(encoding="utf-8") == "é\nb " * 20


def test_a_terminal_is_not_steered() -> None:
    tokens = torch.from_numpy(BYTES.encode("a\x1b[2Jb"))[None]
    assert "\x1b" not in TextMedium(BYTES).sheet(tokens)
