"""What a run's model writes, judged beside held-out text: words, variety, passages of its training texts; and what it
knows of gaps. Figures are kept in the run folder by all that decides them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from logsnr.base.columns import aligned
from logsnr.base.files import digest_of, write_atomically
from logsnr.data.seeded import Split
from logsnr.data.texts import TextData, TextExamples
from logsnr.evaluation.infilling import LEAST, SHARE, SPAN, Bigrams, infilling
from logsnr.evaluation.memorisation import COPIES, FEWEST_HELD_OUT, chance_below
from logsnr.evaluation.ngrams import distinct, unigram_entropy
from logsnr.evaluation.passages import longest_shared
from logsnr.evaluation.ratio import ratio
from logsnr.evaluation.subject import Subject, kept_json
from logsnr.evaluation.words import count_words, read_words, words
from logsnr.settings.options import EvaluateOptions

ORDERS = (1, 2, 3, 4)
"""Of n-grams."""
_PASSAGES = 20
_BATCH = 64
_WITHOUT_MASK = "Infilling isn't measured: under the kernel {} nothing tells the network what is missing."


def judged(subject: Subject, samples: Tensor, options: EvaluateOptions) -> dict[str, Any]:
    """The figures as they stand in metrics.json; samples are sequences (n, length). Writes nearest_passages.txt."""
    data: TextData = subject.data
    listed = None if options.words is None else read_words(options.words)
    name = list_name(options)
    kept = "" if listed is None else digest_of(" ".join(sorted(listed)).encode())
    decisive = (digest_of(samples.numpy().tobytes()), data.fingerprint, kept, name, subject.digest)
    path = subject.folder / f"judged-{digest_of(repr(decisive).encode())}.json"

    def make() -> dict[str, Any]:
        training = tokens_of(data, "train").ravel()
        known = words_of(data.examples, training) if listed is None else listed
        held_out = torch.from_numpy(tokens_of(data, "held_out", len(samples)))
        figures = words_and_variety(data.examples, samples, held_out, known, name)
        figures |= _passages(subject, samples, held_out, training, options.seed)
        if subject.schedule.kernel == "absorbing" and data.examples.length >= LEAST:
            figures |= _infilling(subject, training, len(held_out))
        return figures

    figures = kept_json(path, make)
    write_atomically(_passages_path(subject), "".join(figures["passages"].pop("texts")))
    return figures


def list_name(options: EvaluateOptions) -> str:
    """What the share of words is of."""
    return "the training documents" if options.words is None else options.words.name


def words_and_variety(
    examples: TextExamples, samples: Tensor, real: Tensor, known: frozenset[str], name: str
) -> dict[str, Any]:
    """The share of words in a list, unigram entropy and distinct n-grams of samples beside as many real sequences;
    no share where the data have no words."""
    return _words(examples, samples, real, known, name) | _variety(examples, samples, real)


def tokens_of(data: TextData, split: Split, limit: int | None = None) -> NDArray[np.int64]:
    """The sequences of that part, (n, length), with a progress bar."""
    total = len(data) if split == "train" else data.num_held_out
    with tqdm(desc="Reading sequences", total=limit or total, unit=" sequences", leave=False, delay=2) as bar:
        rows = []
        for batch in data.in_order(split, 1024, None if limit is None else min(limit, total)):
            rows.append(batch.clean.numpy())
            bar.update(len(batch.clean))
    return np.concatenate(rows)


def words_of(examples: TextExamples, stream: NDArray[np.int64]) -> frozenset[str]:
    """The words of documents that stand end to end in a stream of tokens, with a progress bar."""
    ends = np.flatnonzero(stream == examples.codec.end_token_id)
    found = set[str]()
    for document in tqdm(np.split(stream, ends), desc="Reading words", unit=" documents", leave=False, delay=2):
        found.update(words(examples.codec.decode(document)))
    return frozenset(found)


def _words(
    examples: TextExamples, samples: Tensor, held_out: Tensor, known: frozenset[str], name: str
) -> dict[str, Any]:
    (there, drawn), (of_text, real) = (
        count_words([examples.codec.decode(each) for each in sequences], known) for sequences in (samples, held_out)
    )
    if not real.any():  # they have no words, as proteins
        return {}
    of_held_out, its_error = ratio(of_text, real)
    value, error = ratio(there, drawn) if drawn.any() else (0.0, 0.0)
    return {
        "words": {
            "title": f"Share of its words in {name}",
            "direction": "higher is better",
            "value": value,
            "standard_error": error,
            "beside": f"{of_held_out:.4f} ± {its_error:.2g} of held-out text",
            "held_out": of_held_out,
            "held_out_standard_error": its_error,
            "num_words": int(drawn.sum()),
            "list": name,
            "list_words": len(known),
        }
    }


def _variety(examples: TextExamples, samples: Tensor, held_out: Tensor) -> dict[str, Any]:
    """Of as many sequences of both, since both figures depend on how many there are."""
    end, count = examples.codec.end_token_id, min(len(samples), len(held_out))
    drawn, real = samples[:count], held_out[:count]
    entropy, its = unigram_entropy(drawn, end), unigram_entropy(real, end)
    shares = {str(n): {"value": distinct(drawn, end, n), "held_out": distinct(real, end, n)} for n in ORDERS}
    last = shares[str(ORDERS[-1])]
    return {
        "unigram_entropy": {
            "title": f"Unigram entropy, bits a {examples.token}",
            "direction": "nearer to the data's is better",
            "value": entropy,
            "beside": f"{its:.4f} of as much held-out text",
            "held_out": its,
            "num_sequences": count,
        },
        "distinct": {
            "title": f"Share of different {ORDERS[-1]}-grams of {examples.token}s",
            "direction": "nearer to the data's is better",
            "value": last["value"],
            "beside": f"{last['held_out']:.4f} of as much held-out text",
            "by_order": shares,
            "num_sequences": count,
        },
    }


def _passages(
    subject: Subject, samples: Tensor, held_out: Tensor, training: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Longest runs that sequences share with the training texts, and under `texts` the longest of all."""
    examples: TextExamples = subject.data.examples
    both = torch.cat([samples, held_out]).numpy()
    runs = longest_shared(both, training, examples.codec.end_token_id)
    drawn, real = (torch.from_numpy(part[:, 1]) for part in np.split(runs, [len(samples)]))
    copying, z = chance_below(-drawn, -real)
    longest = drawn.argsort(descending=True, stable=True)[:_PASSAGES].tolist()
    texts = [
        f"{runs[k, 1]:5} {examples.token}s, seed {seed + k}: "
        f"{examples.codec.decode(both[k, runs[k, 0] : runs[k].sum()])!r}\n"
        for k in longest
    ]
    return {
        "passages": {
            "title": f"Longest run of {examples.token}s that training texts have too, median",
            "direction": "nearer to the data's is better",
            "value": float(drawn.double().median()),
            "beside": f"{real.double().median():g} of held-out sequences; a drawn one has the longer run in "
            f"{copying:.0%} of cases, 50 % is chance, much more would be copying",
            "held_out": float(real.double().median()),
            "longest": int(drawn.max()),
            "longest_held_out": int(real.max()),
            "copying": copying,
            "copying_z": z,
            "num_held_out": len(real),
            "texts": texts,
        }
    }


def _passages_path(subject: Subject) -> Path:
    return subject.folder / "nearest_passages.txt"


def _infilling(subject: Subject, training: NDArray[np.int64], count: int) -> dict[str, Any]:
    data, examples = subject.data, subject.data.examples
    found = infilling(
        subject.denoiser,
        data.in_order("held_out", _BATCH, count),
        Bigrams(training, subject.schedule.num_states),
        examples.codec.end_token_id,
        num_sequences=count,
    )
    shares = {
        name: {
            "likeliest": dict(zip(("value", "standard_error"), ratio(each.likeliest, each.masked), strict=True)),
            "drawn": dict(zip(("value", "standard_error"), ratio(each.drawn, each.masked), strict=True)),
        }
        for name, each in found.items()
    }
    best = {name: each["likeliest"]["value"] for name, each in shares.items()}
    return {
        "infilling": {
            "title": f"Share of {examples.token}s known in gaps of {SPAN}",
            "direction": "higher is better",
            **shares["model"]["likeliest"],
            "beside": f"by bigrams {best['bigrams']:.4f}, by unigrams {best['unigrams']:.4f}; {SHARE:.0%} of {count} "
            f"held-out {examples.noun}s masked",
            "by": shares,
            "share": SHARE,
            "span": SPAN,
            "num_sequences": count,
        }
    }


def in_words(subject: Subject, figures: dict[str, Any]) -> str:
    """The figures of `judged` as a table, and what there is to say of them."""
    token = subject.data.examples.token
    rows = [("", "drawn", "held-out")]
    if "words" in figures:
        each = figures["words"]
        shown = f"{each['value']:.4f} ± {each['standard_error']:.4f}"
        real = f"{each['held_out']:.4f} ± {each['held_out_standard_error']:.4f}"
        rows.append((f"share of words in {each['list']}", shown, real))
    for name, each in (
        (f"unigram entropy, bits a {token}", figures["unigram_entropy"]),
        *((f"different {n}-grams", each) for n, each in figures["distinct"]["by_order"].items()),
    ):
        rows.append((name, f"{each['value']:.4f}", f"{each['held_out']:.4f}"))
    runs = figures["passages"]
    rows += [
        (f"longest run of {token}s in training texts, median", f"{runs['value']:g}", f"{runs['held_out']:g}"),
        ("the longest of all", str(runs["longest"]), str(runs["longest_held_out"])),
    ]
    said = [aligned(rows)]
    if runs["num_held_out"] < FEWEST_HELD_OUT:
        said.append(f"{runs['num_held_out']} are too few held-out sequences to tell whether it copies.")
    else:
        verdict = "Signs of copying." if runs["copying_z"] > COPIES else "No sign of copying."
        said.append(
            f"Memorisation: {verdict} A drawn sequence shares a longer run with the training texts than a held-out one "
            f"does in {runs['copying']:.0%} of cases ({runs['copying_z']:+.1f} standard deviations from 50 %)."
        )
    said[-1] += f" The longest are in {_passages_path(subject)}."
    if "infilling" not in figures:
        return "\n".join([*said, _WITHOUT_MASK.format(subject.schedule.kernel)])
    filled = figures["infilling"]
    rows = [(f"gaps of {filled['span']}: right {token}s", "likeliest", "drawn")]
    for name, by in filled["by"].items():
        cells = (f"{by[how]['value']:.4f} ± {by[how]['standard_error']:.4f}" for how in ("likeliest", "drawn"))
        rows.append((name, *cells))
    return "\n".join([*said, aligned(rows)])
