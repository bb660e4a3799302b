"""Texts as examples: documents found, made tokens of, and cut or filled up to sequences of one length."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from logsnr.base.errors import ConfigError, DataError
from logsnr.base.files import digest_of
from logsnr.base.words import LISTED, one_line
from logsnr.data.documents import Documents, open_documents
from logsnr.data.seeded import Example, SeededData, choose_held_out
from logsnr.data.sequences import Sequences, Tokens, pack, pad
from logsnr.media.text import TextCodec, byte_codec, character_codec, open_codec, outside, word_piece_codec
from logsnr.settings.text import BYTES, CHARACTERS, VOCABULARY_SIZE, WORD_PIECES, TextDataConfig

_NOUNS = {CHARACTERS: "character", BYTES: "byte"}
_BATCH = 64
_LAST_CHARACTER = 0x10FFFF


@dataclass(frozen=True, eq=False)
class TextExamples:
    """Sequences of tokens: int64, (length,), under `class_labels`, an int, where there are classes."""

    noun: ClassVar[str] = "sequence"
    bits: ClassVar[None] = None

    sequences: Sequences
    length: int
    """Tokens in each."""
    codec: TextCodec
    """Between texts and tokens."""
    token: str
    """What to call a token."""
    num_documents: int
    """Documents that the sequences are of."""
    class_names: list[str] | None
    """Names of the classes; None without classes: nothing to condition on."""
    complaints: list[str]
    """A line for each kind of thing that was left out or changed."""

    def __len__(self) -> int:
        return len(self.sequences.held_out)

    @property
    def shape(self) -> tuple[int]:
        """The length."""
        return (self.length,)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The class of each sequence, (sequences,); None without classes."""
        return self.sequences.labels

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all tokens, of what they stand for, and of the classes, hexadecimal."""
        labels = b"" if self.labels is None else self.labels.astype("<i8").tobytes()
        words = (self.sequences.digest, self.codec.digest, repr((self.length, self.class_names)))
        return digest_of(*(word.encode() for word in words), labels)

    @property
    def summary(self) -> str:
        """Their length, how many tokens there are, and of how many documents and classes they are."""
        classes = "no classes" if self.class_names is None else f"{len(self.class_names)} classes"
        return (
            f"{self.length} {self.token}s long, of {self.codec.vocab_size - 1:,} different, the end of a document "
            f"included, out of {self.num_documents:,} documents, {classes}"
        )

    def read(self, index: int, seed: int | None) -> Example:
        """The sequence at `index`. Of packed documents it begins up to length - 1 tokens later, as `seed` says."""
        return Example(self.sequences.read(index, seed), self.condition(index))

    def condition(self, index: int) -> Mapping[str, Any]:
        """The sequence's class, where there are classes."""
        return {} if self.labels is None else {"class_labels": int(self.labels[index])}

    def text(self, index: int) -> str:
        """The sequence at `index`, as `codec` shows it."""
        return self.codec.decode(self.sequences.read(index, None))


TextData: TypeAlias = SeededData[TextExamples]
"""Sequences of texts, split into training and held-out ones by document."""


def open_texts(config: TextDataConfig, labelled: bool = True) -> TextData:
    """Finds and reads all documents, makes tokens of them (with a progress bar on stderr if that takes over two
    seconds), and sequences of these; under their classes if they are wanted (`labelled`).

    A document is held out or trained on as a whole, and so are documents with the same text. Raises `DataError` for
    anything in the data that can't be used as asked, `ConfigError` where there is no such tokenizer.
    """
    documents = open_documents(config, labelled)
    labels = None if documents.labels is None else documents.labels.values
    held_out = _held_out(documents, labels, config)
    codec, tokens, notes = _tokens(documents, held_out, config)
    arrange = pack if config.packing == "packed" else pad
    sequences = arrange(tokens, codec.end_token_id, config.length, held_out, labels)
    if config.packing == "packed":
        _require_filled(tokens, held_out, labels, documents, config)
    elif long := [len(each) for each in tokens if len(each) > config.length]:
        notes.append(
            f"{len(long)} of {len(tokens)} documents are cut after {config.length} tokens; the longest has {max(long)}"
        )
    names = None if documents.labels is None else documents.labels.names
    token = _NOUNS.get(config.tokens, "token")
    complaints = [*documents.notes, *notes]
    examples = TextExamples(sequences, config.length, codec, token, len(tokens), names, complaints)
    return SeededData.divided(examples, sequences.held_out)


def _held_out(documents: Documents, labels: NDArray[np.int64] | None, config: TextDataConfig) -> NDArray[np.bool_]:
    """Which documents are held out. Those with the same text count as one."""
    first: dict[str, int] = {}
    same = np.array([first.setdefault(text, len(first)) for text in documents.texts])
    if len(first) < 2 and config.held_out_fraction:
        how = "" if config.documents in ("paragraphs", "lines") else " with --data.documents paragraphs or lines"
        raise DataError(
            f"{config.source} has one document, and at least 2 different ones are needed: one to train on and one to "
            f"hold out. Name more of them, divide it{how}, or hold none out with --data.held-out-fraction 0."
        )
    classes = None
    if labels is not None:
        classes = np.zeros(len(first), np.int64)
        classes[same[::-1]] = labels[::-1]  # of the first of them
    chosen: NDArray[np.bool_] = choose_held_out(len(first), config.held_out_fraction, classes)[same]
    return chosen


def _require_filled(
    tokens: Sequence[Tokens],
    held_out: NDArray[np.bool_],
    labels: NDArray[np.int64] | None,
    documents: Documents,
    config: TextDataConfig,
) -> None:
    """Raise DataError where what is packed to be trained on or held out comes to no sequence."""
    sizes = np.array([len(each) + 1 for each in tokens])
    classes = np.zeros(len(sizes), np.int64) if labels is None else labels
    cure = "Take a shorter --data.length, or --data.packing padded"
    of_class = np.bincount(classes[~held_out], sizes[~held_out], int(classes.max()) + 1).astype(int)
    for label in np.flatnonzero(of_class < config.length).tolist():
        of = "" if documents.labels is None else f" of the class {documents.labels.names[label]}"
        raise DataError(
            f"The documents{of} in {config.source} that are trained on have {of_class[label]} tokens, and a sequence "
            f"has {config.length}. {cure}."
        )
    each = "" if labels is None else " of a class"
    if held_out.any() and (most := int(np.bincount(classes[held_out], sizes[held_out]).max())) < config.length:
        raise DataError(
            f"The documents{each} in {config.source} that are held out have {most} tokens at most, and a sequence has "
            f"{config.length}. {cure}, or hold more out with --data.held-out-fraction."
        )


# Tokens


def _tokens(
    documents: Documents, held_out: NDArray[np.bool_], config: TextDataConfig
) -> tuple[TextCodec, list[Tokens], list[str]]:
    """The tokenizer, the tokens of each document, and lines about what was changed."""
    texts, notes = documents.texts, list[str]()
    if config.tokens == CHARACTERS:
        texts, alphabet, notes = _spelled(texts, config)
        space = config.others == "space"
        codec = character_codec(alphabet, config.lower_case, space)
        places = np.zeros(_LAST_CHARACTER + 1, _smallest(codec))
        places[[ord(character) for character in alphabet]] = np.arange(len(alphabet))
        return codec, [places[_characters(text)] for text in texts], notes
    if config.tokens == BYTES:
        codec = byte_codec()
        return codec, [np.frombuffer(text.encode(), np.uint8).astype(_smallest(codec)) for text in texts], notes
    if config.tokens == WORD_PIECES:
        training = [text for text, out in zip(texts, held_out, strict=True) if not out]
        codec = word_piece_codec(training, config.vocabulary_size or VOCABULARY_SIZE)
    else:
        codec = _named(config.tokens)
    tokens = list(_encoded(texts, codec))
    return codec, tokens, [*notes, *_unknown(tokens, codec)]


def _named(name: str) -> TextCodec:
    try:
        return open_codec(name)
    except Exception as error:  # transformers, the Hub and the files can each fail in many ways
        raise ConfigError(
            f"data.tokens is {name}, which can't be loaded: {one_line(error)}. Name characters, bytes, word-pieces, or "
            "a folder or a repo of the Hub with a tokenizer of transformers."
        ) from None


def _encoded(texts: list[str], codec: TextCodec) -> Iterator[Tokens]:
    kind = _smallest(codec)
    with tqdm(desc="Reading texts", total=len(texts), unit=" texts", leave=False, delay=2) as bar:
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            yield from (each.astype(kind) for each in codec.encode_all(batch))
            bar.update(len(batch))


def _unknown(tokens: list[Tokens], codec: TextCodec) -> list[str]:
    unknown = codec.tokenizer.unk_token_id
    count = 0 if unknown is None else sum(int((each == unknown).sum()) for each in tokens)
    total = sum(map(len, tokens))
    return [f"{count:,} of {total:,} tokens are {codec.tokenizer.unk_token}: unknown to the tokenizer"] if count else []


def _smallest(codec: TextCodec) -> type[np.integer[Any]]:
    """The smallest type that holds all tokens."""
    return next((kind for kind in (np.uint8, np.uint16) if codec.vocab_size <= np.iinfo(kind).max + 1), np.int32)


# Characters


def _spelled(texts: list[str], config: TextDataConfig) -> tuple[list[str], str, list[str]]:
    """The texts in the characters of the alphabet, the alphabet, and lines about what was changed."""
    if config.lower_case:
        # one character at a time, as tokenizers does: Python's own `lower` looks at what stands around a sigma
        small = {ord(c): c.lower() for c in set().union(*texts)}
        texts = [text.translate(small) for text in texts]
    counts = np.zeros(_LAST_CHARACTER + 1, np.int64)
    for text in texts:
        found, times = np.unique(_characters(text), return_counts=True)
        counts[found] += times
    if config.alphabet is None:
        return texts, "".join(map(chr, np.flatnonzero(counts))), []
    counts[[ord(character) for character in config.alphabet]] = 0
    foreign = sorted(np.flatnonzero(counts).tolist(), key=lambda code: (-counts[code], code))
    if not foreign:
        notes = []
    else:
        shown = ", ".join(f"{chr(code)!r} {counts[code]:,}" for code in foreign[:LISTED])
        more = f" and {len(foreign) - LISTED} more" if len(foreign) > LISTED else ""
        if config.others == "refuse":
            raise DataError(
                f"data.alphabet lacks {len(foreign)} of the characters in {config.source}: {shown}{more}. Write them "
                "into it, leave it out, or make spaces of them with --data.others space."
            )
        notes = [f"{counts.sum():,} characters that the alphabet lacks became spaces: {shown}{more}"]
    if config.others == "space":
        run = re.compile(outside(config.alphabet))
        texts = [run.sub(" ", text) for text in texts]
    return texts, config.alphabet, notes


def _characters(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)
