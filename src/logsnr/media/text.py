"""Texts: tokens and back, sheets for a page or a terminal, and text files. Samples are int64, (n, length).

A tokenizer is one of transformers, which loads its folder alone. It has every token of the data, and two that stand for
no text: the end of a document, between two or as often as it takes to fill a sequence; and the mask, for a place that
isn't known yet.
"""

from __future__ import annotations

import functools
import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from logsnr.base.files import digest_of, write_atomically
from logsnr.media.film import Frame
from logsnr.media.medium import Medium
from logsnr.media.plots import INK, image_grid, labelled_grid

END, MASK = "<|end|>", "<|mask|>"
"""The tokens that stand for no text, where a tokenizer has none of its own."""
SHOWN_MASK = "░"
_BETWEEN = "\n\n"
"""What is shown between two documents."""
_FONT_SIZE, _LINE, _MARGIN = 13, 17, 8
"""In pixels, as is the distance of two lines."""
_LEAST_LINES = 4


class TextCodec:
    """Between texts and tokens.

    Args:
        tokenizer: a `PreTrainedTokenizerFast` with `eos_token` and `mask_token`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True  # a text that holds their words holds no such tokens

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, the mask included."""
        return len(self.tokenizer)

    @property
    def end_token_id(self) -> int:
        """The end of a document."""
        return int(self.tokenizer.eos_token_id)

    @property
    def mask_token_id(self) -> int:
        """A place that isn't known yet; no text has it. The last of all, unless the tokenizer came with one."""
        return int(self.tokenizer.mask_token_id)

    @functools.cached_property
    def digest(self) -> str:
        """Hash of all that decides which tokens a text has."""
        decisive = json.loads(self._backend.to_str())
        content = json.dumps([decisive, self.end_token_id, self.mask_token_id], sort_keys=True)
        return digest_of(content.encode())

    def encode(self, text: str) -> NDArray[np.int64]:
        """The tokens of a text, (tokens,), without an end.

        Raises ValueError for a text with characters that the tokenizer doesn't know."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """The tokens of each text."""
        try:
            found = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # tokenizers knows no other class
            raise ValueError(
                f"A text has a character that is none of the {self.vocab_size - 2} that the tokenizer knows: {error}."
            ) from None
        return [np.array(each.ids, np.int64) for each in found]

    def decode(self, tokens: NDArray[np.integer[Any]] | Tensor) -> str:
        """The text of a sequence, (tokens,): documents with a blank line between them, and `░` for each mask."""
        values = np.asarray(tokens)
        documents = np.split(values, np.flatnonzero(values == self.end_token_id))
        texts = [self._decode_document(each[each != self.end_token_id]) for each in documents]
        while len(texts) > 1 and not texts[-1]:
            texts.pop()
        return _BETWEEN.join(texts)

    def _decode_document(self, values: NDArray[np.integer[Any]]) -> str:
        runs = np.split(values, np.flatnonzero(np.diff(values == self.mask_token_id)) + 1)
        masked = [bool(len(run)) and run[0] == self.mask_token_id for run in runs]
        texts = (
            SHOWN_MASK * len(run) if hidden else self._backend.decode(run.tolist(), skip_special_tokens=False)
            for run, hidden in zip(runs, masked, strict=True)
        )
        return "".join(texts)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON has it; the inverse of `from_json`."""
        marks = {name: str(mark) for name, mark in self.tokenizer.special_tokens_map.items() if isinstance(mark, str)}
        return {"tokenizer": json.loads(self.tokenizer.backend_tokenizer.to_str()), "marks": marks}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> TextCodec:
        """What `to_json` said."""
        return _with_marks(Tokenizer.from_str(json.dumps(said["tokenizer"])), said["marks"])

    def save(self, folder: Path) -> None:
        """As a folder that transformers loads alone: `PreTrainedTokenizerFast.from_pretrained(folder)`."""
        self.tokenizer.save_pretrained(folder)


# Tokenizers that are made here


def character_codec(alphabet: str, lower_case: bool = False, others_to_space: bool = False) -> TextCodec:
    """A token for each character of `alphabet`, in its order.

    lower_case: letters are made small before; others_to_space: each run of other characters and spaces becomes one
    space, which is in the alphabet.
    """
    backend = Tokenizer(models.WordLevel({character: k for k, character in enumerate(alphabet)}))
    steps: list[Any] = [normalizers.Lowercase()] if lower_case else []
    if others_to_space:
        steps.append(normalizers.Replace(Regex(outside(alphabet)), " "))
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return _codec(backend)


def outside(alphabet: str) -> str:
    """The regular expression of a run of characters that aren't in `alphabet`, and of spaces."""
    letters = "".join(re.escape(character) for character in alphabet if character != " ")
    return f"[^{letters}]+"


def byte_codec() -> TextCodec:
    """A token for each byte of UTF-8: its value."""
    backend = Tokenizer(models.BPE({character: value for value, character in enumerate(_byte_characters())}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return _codec(backend)


def word_piece_codec(texts: Sequence[str], vocab_size: int) -> TextCodec:
    """Tokens for bytes, and for the sequences of bytes within words that are most frequent in `texts` (byte-level BPE:
    Sennrich et al., 1508.07909; Radford et al. 2019). Any text has tokens, and comes back as it was. The same texts
    give the same tokens.

    vocab_size: how many there are, with the end and the mask; fewer where the texts have no more pieces.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    bytes_ = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - 2, initial_alphabet=bytes_, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return _codec(backend)


def open_codec(name: str) -> TextCodec:
    """A tokenizer of transformers, from a folder or a repo of the Hub. What it lacks is added: a mask, and an end,
    for which its token for the end or that between two texts serves.

    Raises ValueError where it can't be loaded, or isn't one of the library tokenizers."""
    folder = Path(name).expanduser()
    options = {"local_files_only": True} if folder.is_dir() else {}
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder) if options else name, **options)
    if not tokenizer.is_fast:
        raise ValueError("it isn't one of the library tokenizers")
    if tokenizer.eos_token is None:
        tokenizer.add_special_tokens({"eos_token": tokenizer.sep_token or END})
    if tokenizer.mask_token is None:
        tokenizer.add_special_tokens({"mask_token": MASK})
    return TextCodec(tokenizer)


def _codec(backend: Tokenizer) -> TextCodec:
    backend.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in (END, MASK)])
    return _with_marks(backend, {"eos_token": END, "pad_token": END, "mask_token": MASK})


def _with_marks(backend: Tokenizer, marks: Mapping[str, str]) -> TextCodec:
    """`marks` are the tokens that mean something, by what transformers calls them."""
    cls: Any = transformers.PreTrainedTokenizerFast
    return TextCodec(cls(tokenizer_object=backend, **marks, clean_up_tokenization_spaces=False))


def _byte_characters() -> list[str]:
    """The character that stands for each byte in tokenizers' byte level: itself where it can be seen."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(value if value in seen else next(others)) for value in range(256)]


# For people


class TextMedium(Medium):
    """The medium of texts, by the tokenizer of a model."""

    in_words = True

    def __init__(self, codec: TextCodec) -> None:
        self.codec = codec

    def texts(self, samples: Tensor) -> list[str]:
        """The text of each sample."""
        return [self.codec.decode(sample) for sample in samples.cpu()]

    def sheet(self, samples: Tensor, width: int = 80) -> str:
        """Samples under one another for a terminal of that width, each under a line with its number, from 0."""
        parts = []
        for k, text in enumerate(self.texts(samples)):
            parts += [f"-- {k} ".ljust(width, "-"), *_wrapped(text, width)]
        return "\n".join(parts)

    def show(self, samples: Tensor, columns: int | None = None, row_labels: Sequence[str] = ()) -> Image.Image:
        """The texts beside and under one another; with labels, a row for each."""
        cells = self._cells(samples)
        if row_labels:
            columns = len(cells) // len(row_labels)
            return labelled_grid([cells[k : k + columns] for k in range(0, len(cells), columns)], row_labels)
        return image_grid(cells, columns or min(len(cells), 2))

    def film(self, frames: Sequence[Frame]) -> Image.Image:
        """Frames from left to right under their shares of noise, two rows for each of their sequences."""
        seen, predicted = (torch.stack([getattr(f, name) for f in frames], 1) for name in ("sample", "predicted"))
        cells = self._cells(torch.stack([seen, predicted], 1).flatten(0, 2))
        rows = [cells[k : k + len(frames)] for k in range(0, len(cells), len(frames))]
        shares = [f"{100 * frame.noise:.0f} %" for frame in frames]
        return labelled_grid(rows, ["seen xₜ", "predicted x₀"] * len(seen), shares, "noise")

    def write(self, samples: Tensor, folder: Path, names: Sequence[str]) -> None:
        """A text file each, in UTF-8."""
        for text, name in zip(self.texts(samples), names, strict=True):
            write_atomically(folder / f"{name}.txt", text)

    def across(self, shape: tuple[int, ...], width: int) -> int:
        return max(1, width // _cell_width(shape[-1]))

    def _cells(self, samples: Tensor) -> list[Image.Image]:
        """A picture of each text, all of one size."""
        letters = _letters(samples.shape[-1])
        lines = [_wrapped(text, letters) for text in self.texts(samples)]
        height = _LINE * max(_LEAST_LINES, *map(len, lines)) + 2 * _MARGIN
        cells = []
        for each in lines:
            cell = Image.new("RGB", (_cell_width(samples.shape[-1]), height), "white")
            draw = ImageDraw.Draw(cell)
            for k, line in enumerate(each):
                draw.text((_MARGIN, _MARGIN + k * _LINE), line, fill=INK, font=_font())
            cells.append(cell)
        return cells


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans Mono"), _FONT_SIZE)


def _letters(length: int) -> int:
    """Letters in a line of the picture of a sequence: about four lines where tokens are characters."""
    return max(24, min(64, length // 4))


def _cell_width(length: int) -> int:
    return math.ceil(_font().getlength("m") * _letters(length)) + 2 * _MARGIN


def _wrapped(text: str, width: int) -> list[str]:
    """The lines of a text, none longer than `width`, in which nothing steers a terminal."""
    lines = [
        piece
        for line in "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text).split("\n")
        for piece in textwrap.wrap(line, width, replace_whitespace=False, drop_whitespace=False) or [""]
    ]
    return [line.rstrip() for line in lines]
