"""How is a model of texts best drawn from? Which masks are lifted first, remasking, temperature, by number of steps.

    logsnr train text-128 --data.source data/brown --condition.name none --out runs/brown --budget 15m
    python benchmarks/text_sampling.py runs/brown --words /usr/share/dict/words   # prints a table as it is measured

data/brown is made by benchmarks/corpora.py; what was measured is in benchmarks/text_sampling.md. Texts are drawn by the
pipeline, text k from seed k, and set beside as many held-out ones. The model's kernel is `absorbing`, and its network
computes in bfloat16, in which it is trained.

- words: the share of whole words that stand in the list, as `logsnr evaluate --words` has it.
- entropy: of the tokens' frequencies, in bits a token. A sampler that is surer than the model is has less.
- different 4-grams, and words: of all within 16 texts the share that are different, so that any number of texts can be
  compared; the mean over groups of 16.

Standard errors are over texts, or groups; those of the share of words and of the entropy by the delta method. They fall
with the root of the number of texts. With 64 texts of 128 characters a share of words near 0.55 has an error of 0.012,
with 256 of 0.006; the entropy 0.010 and 0.005.

64 texts need about 20 minutes of a busy core at 1.5 M parameters: 208 evaluations for each of eight ways. `--steps 16`
alone is a thirteenth of that.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from logsnr.data.texts import TextExamples
from logsnr.evaluation.judged import tokens_of
from logsnr.evaluation.ngrams import counted, distinct
from logsnr.evaluation.ratio import ratio
from logsnr.evaluation.subject import open_subject
from logsnr.evaluation.words import count_words, read_words, words

WAYS: list[dict[str, Any]] = [
    {},
    {"order": "confidence"},
    {"order": "entropy"},
    {"remask": 0.05},
    {"remask": 0.2},
    {"order": "confidence", "remask": 0.05},
    {"temperature": 0.9},
    {"temperature": 0.8},
]
"""Arguments of the pipeline, beside the steps."""
STEPS = [16, 64, 128]
GROUP, BATCH, ORDER = 16, 64, 4
COLUMNS = ("steps", "order", "remask", "temperature", "words", "entropy", f"different {ORDER}-grams", "different words")
Figure = tuple[float, float]
"""A value and its standard error."""


def entropy(sequences: Tensor, end: int) -> Figure:
    """Bits a token of the tokens' frequencies. Its error is that of the mean surprisal under them, to first order."""
    counts = counted(sequences, end)
    found = torch.bincount(sequences[counts])
    surprisal = -torch.log2(found.double() / found.sum())[sequences]
    return ratio(torch.where(counts, surprisal, 0.0).sum(1), counts.sum(1))


def mean(values: list[float]) -> Figure:
    each = torch.tensor(values, dtype=torch.float64)
    return float(each.mean()), float(each.std()) / math.sqrt(len(each))


def different_words(texts: list[str]) -> float:
    found = [word for text in texts for word in words(text)[1:-1]]
    return len(set(found)) / max(len(found), 1)


def figures(sequences: Tensor, examples: TextExamples, known: frozenset[str]) -> list[Figure]:
    """Of sequences (n, length): words, entropy, different n-grams and words."""
    end, texts = examples.codec.end_token_id, [examples.codec.decode(row) for row in sequences]
    there, of = count_words(texts, known)
    groups = range(0, len(texts), GROUP)
    return [
        ratio(there, of) if of.any() else (0.0, 0.0),
        entropy(sequences, end),
        mean([distinct(sequences[k : k + GROUP], end, ORDER) for k in groups]),
        mean([different_words(texts[k : k + GROUP]) for k in groups]),
    ]


def row(cells: list[str], measured: list[Figure]) -> str:
    return " | ".join(["", *cells, *(f"{value:.3f} ± {error:.3f}" for value, error in measured), ""]).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--words", type=Path, required=True, help="a list of words")
    parser.add_argument("--num", type=int, default=64, help=f"texts, a multiple of {GROUP}, two groups at least")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    arguments = parser.parse_args()
    num, known = arguments.num, read_words(arguments.words)
    if num % GROUP or num < 2 * GROUP:
        raise SystemExit(f"--num must be a multiple of {GROUP}, {2 * GROUP} at least, and is {num}.")
    subject = open_subject(arguments.run)
    pipe, examples = subject.pipeline(), subject.data.examples
    if pipe.kernel != "absorbing":
        raise SystemExit(f"The kernel of {arguments.run} is {pipe.kernel}, and order and remask are for masks.")
    held_out = torch.from_numpy(tokens_of(subject.data, "held_out", num))
    if len(held_out) < num:
        raise SystemExit(f"--num must be at most {len(held_out)}, the held-out texts there are, and is {num}.")
    pipe.set_progress_bar_config(disable=True)
    batches = [range(k, min(k + BATCH, num)) for k in range(0, num, BATCH)]
    with tqdm(total=len(WAYS) * sum(arguments.steps) * len(batches), desc="Drawing", unit="step") as bar:

        def after_step(*_: Any) -> dict[str, Any]:
            bar.update()
            return {}

        def say(line: str) -> None:
            bar.clear()
            print(line, flush=True)
            bar.refresh()

        say(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        say(row(["", "held-out text", "", ""], figures(held_out, examples, known)))
        for steps in arguments.steps:
            for way in WAYS:
                with torch.autocast(pipe.device.type, torch.bfloat16):
                    drawn = [
                        pipe(
                            batch_size=len(seeds),
                            num_inference_steps=steps,
                            generator=seeds[0],
                            output_type="seq",
                            callback_on_step_end=after_step,
                            **way,
                        ).sequences
                        for seeds in batches
                    ]
                how = [way.get("order", "random"), f"{way.get('remask', 0):g}", f"{way.get('temperature', 1):g}"]
                say(row([str(steps), *how], figures(torch.cat(drawn).cpu(), examples, known)))


if __name__ == "__main__":
    main()
