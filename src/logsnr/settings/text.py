"""The settings of texts: where they come from, how they become sequences of tokens, and the network that writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from logsnr.base.errors import ConfigError
from logsnr.settings.kind import Kind
from logsnr.settings.rules import require
from logsnr.settings.schedule import TransitionConfig

CHARACTERS, BYTES, WORD_PIECES = "characters", "bytes", "word-pieces"
MADE_HERE = frozenset({CHARACTERS, BYTES, WORD_PIECES})
"""Values of `data.tokens` that name no tokenizer, even where a folder of that name lies."""
VOCABULARY_SIZE = 2048
"""Of word pieces, where `data.vocabulary_size` isn't given."""
SMALLEST_VOCABULARY = 256 + 2
"""Bytes, the end of a document, and the mask."""

DocumentKind = Literal["found", "files", "paragraphs", "lines"]
Packing = Literal["packed", "padded"]
Others = Literal["refuse", "space"]


@dataclass(frozen=True)
class TextDataConfig:
    """Where the texts come from, and how they become sequences of tokens."""

    source: str
    """A text file in UTF-8, a folder of `.txt` files (sub-folders are classes), a FASTA file (.fasta, .fa, .faa, .fna),
    a table (.csv, .jsonl, .parquet, or a folder made by datasets' `save_to_disk`), or a data set id on the Hub."""
    documents: DocumentKind = "found"
    """What a document is in text files: it is held out or trained on as a whole. `files`: each file; `paragraphs`: what
    stands between blank lines; `lines`. `found`: in a folder files, in a lone file paragraphs, or its lines where no
    line is blank. A row of a table and a record of FASTA are always one."""
    text_column: str | None = None
    """Name of the column of texts in a table; `text`, or the only one of words, when not given."""
    label_column: str | None = None
    """Name of the label column in a table; `label`, or the only one whose values come back, when not given."""
    tokens: str = CHARACTERS
    """`characters`; `bytes` of UTF-8; `word-pieces`: frequent sequences of bytes in the training documents (BPE); or
    the folder or Hub repo of a tokenizer of transformers."""
    alphabet: str | None = None
    """With tokens `characters`: all of them, as " abcdefghijklmnopqrstuvwxyz"; found in the documents when not
    given."""
    lower_case: bool = False
    """With tokens `characters`: make letters small first."""
    others: Others = "refuse"
    """Characters that `alphabet` lacks. `refuse`: they stop the run. `space`: each run of them and of spaces becomes
    one space."""
    vocabulary_size: int | None = None
    """With tokens `word-pieces`: tokens in all, 2048 when not given. Among them are 256 bytes, an end and a mask."""
    length: int = 128
    """Of a sequence, in tokens."""
    packing: Packing = "packed"
    """`packed`: documents end to end, a token for the end after each, cut in sequences; in training each cut moves at
    random. `padded`: a document a sequence, without what is too long, or filled up with tokens for the end."""
    held_out_fraction: float = 0.1
    """Share of the documents kept from training, for the held-out loss: half of them at most. Chosen by a fixed seed;
    documents that are alike are held out together."""

    def __post_init__(self) -> None:
        require(bool(self.source), "data.source", "a file, a folder or a data set id", self.source)
        for name, allowed in (("documents", DocumentKind), ("packing", Packing), ("others", Others)):
            value, words = getattr(self, name), get_args(allowed)
            require(value in words, f"data.{name}", f"{', '.join(words[:-1])} or {words[-1]}", value)
        named = "characters, bytes, word-pieces, a folder or a repo"
        require(bool(self.tokens), "data.tokens", named, self.tokens)
        require(self.length >= 2, "data.length", "at least 2", self.length)
        fraction = self.held_out_fraction
        require(0 <= fraction <= 0.5, "data.held_out_fraction", "in [0, 0.5], as most are for training", fraction)
        self._require_tokens()

    def _require_tokens(self) -> None:
        for name, value, owner in (
            ("alphabet", self.alphabet is not None, CHARACTERS),
            ("lower_case", self.lower_case, CHARACTERS),
            ("others", self.others != "refuse", CHARACTERS),
            ("vocabulary_size", self.vocabulary_size is not None, WORD_PIECES),
        ):
            if value and self.tokens != owner:
                raise ConfigError(
                    f"data.{name} is a setting of tokens {owner}, and data.tokens is {self.tokens}: it would do "
                    f"nothing. Give --data.tokens {owner} or leave it out."
                )
        size = self.vocabulary_size
        rule = f"more than {SMALLEST_VOCABULARY}: 256 bytes, an end and a mask, and then some pieces"
        require(size is None or size > SMALLEST_VOCABULARY, "data.vocabulary_size", rule, size)
        letters = self.alphabet
        if letters is None:
            if self.others != "refuse":
                raise ConfigError(
                    f"data.others is {self.others}, but the alphabet is found in the documents and lacks nothing. Give "
                    "--data.alphabet, or leave data.others out."
                )
            return
        twice = sorted({letter for letter in letters if letters.count(letter) > 1})
        require(not twice and len(letters) >= 2, "data.alphabet", "two characters or more, each once", letters)
        if self.lower_case and any(letter.lower() != letter for letter in letters):
            raise ConfigError(
                f"data.alphabet must have no capitals with data.lower_case, which makes all letters small, and is "
                f"{letters!r}. Leave one of the two out."
            )
        if self.others == "space" and " " not in letters:
            raise ConfigError(
                f"data.alphabet must have a space with data.others space, and is {letters!r}. Write one into it."
            )


@dataclass(frozen=True)
class TextModelConfig:
    """The network: a `ModernBertForMaskedLM` of transformers, every layer of which sees the whole sequence."""

    hidden_size: int = 192
    """Numbers that stand for a token inside."""
    num_hidden_layers: int = 4
    """Layers."""
    num_attention_heads: int = 6
    """Heads of attention in each; must divide hidden_size, with an even number of numbers a head."""
    intermediate_size: int = 384
    """Width of the gated part of a layer."""
    dropout: float = 0.0
    """Dropout in embeddings, attention and layers; 0.1 helps small data sets."""

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            require(getattr(self, name) >= 1, f"model.{name}", "at least 1", getattr(self, name))
        require(
            self.hidden_size % (2 * self.num_attention_heads) == 0,
            "model.hidden_size",
            f"a multiple of {2 * self.num_attention_heads}, twice model.num_attention_heads",
            self.hidden_size,
        )
        require(0 <= self.dropout < 1, "model.dropout", "in [0, 1)", self.dropout)


def _any_go_together(data: TextDataConfig, model: TextModelConfig) -> None:
    """Any network reads any sequence."""


TEXT = Kind(
    name="text",
    data=TextDataConfig,
    model=TextModelConfig,
    parts="logsnr.tasks.text:TEXTS",
    pipelines=("TextPipeline", "LLaDA2Pipeline"),
    placeholders={"data.source": "path/to/texts", "data.tokens": "path/to/tokenizer"},
    check=_any_go_together,
    schedule=TransitionConfig,
    bundled=MADE_HERE,
)
