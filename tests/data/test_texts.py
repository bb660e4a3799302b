"""logsnr.data.texts: what sequences are made of documents, and that none is both trained on and held out."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logsnr.base.errors import ConfigError, DataError
from logsnr.data.seeded import Split
from logsnr.data.sequences import pack
from logsnr.data.texts import TextData, open_texts
from logsnr.media.text import character_codec
from logsnr.settings.text import TextDataConfig

WORDS = ("ant", "bee", "cow", "doe", "elk", "fox", "gnu", "hen", "ibis", "jay")


def opened(path: Path, labelled: bool = True, **given: Any) -> TextData:
    return open_texts(TextDataConfig(str(path), **({"length": 8} | given)), labelled)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 documents of two classes, of 30 to 59 characters, each of a word of its own."""
    path = tmp_path_factory.mktemp("texts")
    for k, word in enumerate(WORDS):
        for kind in ("lower", "upper"):
            (path / kind).mkdir(exist_ok=True)
            text = " ".join([word if kind == "lower" else word.upper()] * 15)[: 30 + 3 * k]
            (path / kind / f"{word}.txt").write_text(text)
    return path


def stream(data: TextData, split: Split) -> str:
    """All sequences of that part end to end, `|` for the end of a document."""
    rows = torch.cat([batch.clean for batch in data.in_order(split, 4)])
    codec = data.examples.codec
    return "".join("|" if k == codec.end_token_id else codec.decode(np.array([k])) for k in rows.flatten().tolist())


# Packing


def test_documents_are_packed_end_to_end(folder: Path) -> None:
    data = opened(folder, labelled=False)
    documents = [path.read_text() for path in sorted(folder.rglob("*.txt"))]
    parts = {split: stream(data, split) for split in ("train", "held_out")}
    for split, text in parts.items():
        whole = "".join(f"{document}|" for document in documents if document[:20] in text)
        assert whole.startswith(text), split
        assert len(whole) - len(text) < 8
    held_out = [document for document in documents if document[:20] in parts["held_out"]]
    assert len(held_out) == 2  # a tenth
    assert not any(document[:20] in parts["train"] for document in held_out)
    assert data.examples.shape == (8,)
    assert data.description == (
        f"{len(data)} training and {data.num_held_out} held-out sequences, 8 characters long, of "
        f"{len(set(''.join(documents))) + 1} different, the end of a document included, out of 20 documents, no classes"
    )


def test_sequences_are_of_one_class(folder: Path) -> None:
    data = opened(folder)
    assert data.examples.class_names == ["lower", "upper"]
    for split in ("train", "held_out"):
        for batch in data.in_order(split, 5):
            for row, label in zip(batch.clean, batch.condition["class_labels"].tolist(), strict=True):
                letters = data.examples.codec.decode(row).replace(" ", "").replace("\n", "")
                assert letters.isupper() if label else letters.islower()
    assert Counter(c["class_labels"] for c in data.conditions("held_out")).keys() == {0, 1}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=6), st.integers(2, 5), st.data())
def test_every_token_is_as_likely_in_every_place(sizes: list[int], length: int, choice: st.DataObject) -> None:
    """Over all offsets each token of the stream comes as often in each place, as far as whole sequences go."""
    documents = [np.arange(size, dtype=np.uint8) for size in sizes]
    held_out = np.array([choice.draw(st.booleans()) for _ in sizes])
    packed = pack(documents, 10, length, held_out, None)
    for part in (False, True):
        whole = [k for d, out in zip(documents, held_out, strict=True) if out == part for k in (*d.tolist(), 10)]
        rows = np.flatnonzero(packed.held_out == part)
        assert len(rows) == len(whole) // length
        plain = [packed.read(row, None).tolist() for row in rows]
        assert list(itertools.chain(*plain)) == whole[: len(rows) * length]
        if len(whole) % length == 0 and whole:
            for place in range(length):
                seen = Counter(int(packed.read(row, seed)[place]) for row in rows for seed in range(length))
                assert seen == Counter(whole)


def test_a_seed_moves_training_sequences(folder: Path) -> None:
    data = opened(folder, labelled=False)
    one, again = data.examples.read(3, 8 * 10**9 + 5).clean, data.examples.read(3, 5).clean
    assert one.dtype == np.int64
    assert (one == again).all()
    both = np.concatenate([data.examples.read(k, None).clean for k in (3, 4)])
    assert (one == both[5:13]).all()


# Padding


def test_documents_are_padded_or_cut(tmp_path: Path) -> None:
    lines = ["a", "bb", "cccccccc", "dddddddddd", "ee"]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    data = opened(tmp_path / "a.txt", packing="padded", held_out_fraction=0.2)
    shown = sorted(data.examples.text(k) for k in range(5))
    assert shown == sorted(line[:8] for line in lines)
    assert stream(data, "train").count("|") + stream(data, "held_out").count("|") == 7 + 6 + 6
    assert data.num_held_out == 1
    assert data.examples.complaints == ["1 of 5 documents are cut after 8 tokens; the longest has 10"]


# Splits


def test_the_same_text_is_held_out_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(["anna", "otto", "anna", "hanna", "otto", "tony", "anna", "otto"]))
    data = opened(tmp_path / "a.txt", packing="padded", held_out_fraction=0.5)
    parts = [{data.examples.text(k) for k in data.indices(split)} for split in ("train", "held_out")]
    assert parts[0].isdisjoint(parts[1])
    assert min(map(len, parts)) >= 1


def test_too_little_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "one.txt").write_text("only one line")
    with pytest.raises(DataError, match=r"has one document, .* --data.held-out-fraction 0\."):
        opened(tmp_path / "one.txt")
    assert len(opened(tmp_path / "one.txt", held_out_fraction=0)) == 1
    with pytest.raises(DataError, match=r"trained on have 14 tokens, and a sequence has 15\. Take a shorter"):
        opened(tmp_path / "one.txt", held_out_fraction=0, length=15)
    with pytest.raises(DataError, match=r"of the class lower .* trained on have \d+ tokens"):
        opened(folder, length=1000)
    with pytest.raises(DataError, match=r"held out have \d+ tokens at most, .* --data.packing padded, or hold more"):
        opened(folder, labelled=False, length=150)


# Tokens


def test_the_alphabet_is_found_or_given(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Caf\u00e9s, caf\u00e9s\n\ncafes!!\n\nmore", encoding="utf-8")
    found = opened(path).examples
    assert found.codec.decode(np.arange(found.codec.end_token_id)) == "".join(
        sorted(set("Caf\u00e9s, caf\u00e9scafes!!more"))
    )
    assert opened(path, lower_case=True).examples.codec.vocab_size == found.codec.vocab_size - 1
    letters = " abcdefghijklmnopqrstuvwxyz"
    with pytest.raises(
        DataError, match=r"lacks 4 of the characters in .*: '!' 2, '\u00e9' 2, ',' 1, 'C' 1\. .*others space"
    ):
        opened(path, alphabet=letters)
    spelled = opened(path, alphabet=letters, lower_case=True, others="space", packing="padded", length=16)
    assert {spelled.examples.text(k) for k in range(3)} == {"caf s caf s", "cafes ", "more"}
    assert spelled.examples.complaints == [
        "5 characters that the alphabet lacks became spaces: '!' 2, '\u00e9' 2, ',' 1"
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cn"]), min_size=1),
    st.sets(st.characters(exclude_categories=["Cs", "Cn"])),
)
def test_the_tokenizer_spells_as_the_data_do(
    tmp_path_factory: pytest.TempPathFactory, text: str, more: set[str]
) -> None:
    """What was trained on and what is asked for later have the same tokens."""
    alphabet = "".join(sorted({" ", "a", "\u03c3"} | {c for c in more if c.lower() == c and len(c.lower()) == 1}))
    path = tmp_path_factory.getbasetemp() / "spelled.jsonl"
    text = f"\u0391\u03a3 a{text}"
    path.write_bytes(json_line(text))
    config = {"alphabet": alphabet, "lower_case": True, "others": "space", "held_out_fraction": 0, "packing": "padded"}
    examples = opened(path, length=4 * len(text) + 8, **config).examples
    tokens = examples.read(0, None).clean
    assert examples.codec.encode(text).tolist() == tokens[tokens != examples.codec.end_token_id].tolist()


def json_line(text: str) -> bytes:
    return json.dumps({"text": text}).encode() + b"\n"


def test_word_pieces_are_fitted_to_what_is_trained_on(folder: Path) -> None:
    data = opened(folder, labelled=False, tokens="word-pieces", vocabulary_size=300)
    assert data.examples.codec.vocab_size == 300
    pieces = set(data.examples.codec.tokenizer.get_vocab())
    for word in WORDS:
        trained_on = word in stream(data, "train")
        assert (f"\u0120{word}" in pieces) <= trained_on
    again = opened(folder, labelled=False, tokens="word-pieces", vocabulary_size=300)
    assert again.fingerprint == data.fingerprint


def test_a_tokenizer_may_be_named(folder: Path, tmp_path: Path) -> None:
    character_codec(" abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ").save(tmp_path / "letters")
    data = opened(folder, labelled=False, tokens=str(tmp_path / "letters"))
    assert data.examples.codec.vocab_size == 55
    assert stream(data, "train") == stream(opened(folder, labelled=False), "train")
    with pytest.raises(ConfigError, match=r"data.tokens is \S+nothing, which can't be loaded: .* Name characters"):
        opened(folder, tokens=str(tmp_path / "nothing"))


# As examples


def test_the_fingerprint_changes_with_the_data_alone(folder: Path, tmp_path: Path) -> None:
    first = opened(folder)
    assert opened(folder).fingerprint == first.fingerprint
    others = [
        opened(folder, labelled=False),
        opened(folder, length=9),
        opened(folder, packing="padded"),
        opened(folder, tokens="bytes"),
        opened(folder, held_out_fraction=0.2),
    ]
    for k, path in enumerate(sorted(folder.rglob("*.txt"))):
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text()[::-1] if k == 0 else path.read_text())
    others.append(opened(tmp_path))
    prints = [first.fingerprint, *(data.fingerprint for data in others)]
    assert len(set(prints)) == len(prints)


def test_batches_are_seeded_and_examples_can_be_pickled(folder: Path) -> None:
    data = opened(folder)
    batches = [next(iter(data.batches(seed=1, batch_size=6, start_step=k, num_steps=1))) for k in (0, 1)]
    both = list(data.batches(seed=1, batch_size=6, start_step=0, num_steps=2))
    assert all(torch.equal(one.clean, other.clean) for one, other in zip(batches, both, strict=True))
    assert both[0].clean.dtype == torch.int64
    again = pickle.loads(pickle.dumps(data.examples))
    assert (again.read(0, 3).clean == data.examples.read(0, 3).clean).all()


# Settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokens": "bytes", "lower_case": True}, "data.lower_case is a setting of tokens characters"),
        ({"tokens": "bytes", "alphabet": "ab"}, "data.alphabet is a setting of tokens characters"),
        ({"vocabulary_size": 500}, "data.vocabulary_size is a setting of tokens word-pieces"),
        ({"tokens": "word-pieces", "vocabulary_size": 200}, "data.vocabulary_size must be more than 258"),
        ({"others": "space"}, "the alphabet is found in the documents and lacks nothing"),
        ({"others": "space", "alphabet": "ab"}, "must have a space with data.others space"),
        ({"others": "drop", "alphabet": "ab"}, "data.others must be refuse or space, and is 'drop'"),
        ({"lower_case": True, "alphabet": "aB"}, "must have no capitals with data.lower_case"),
        ({"alphabet": "aa"}, "must be two characters or more, each once"),
        ({"length": 1}, "data.length must be at least 2"),
        ({"held_out_fraction": 0.7}, r"data.held_out_fraction must be in \[0, 0.5\]"),
        ({"packing": "tight"}, "data.packing must be packed or padded"),
        ({"documents": "pages"}, "data.documents must be found, files, paragraphs or lines"),
        ({"source": ""}, "data.source must be a file"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TextDataConfig("a"), **given)
