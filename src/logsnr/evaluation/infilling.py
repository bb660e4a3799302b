"""How often a model knows the tokens of a gap: spans of held-out sequences are masked, and the network asked once.

All that isn't masked stands where it stands, on both sides. The likeliest token is right in a share of places, and one
drawn from p(x_0 | x_t) in less: on average in the mean of the right token's probability, which is what is reported, as
it has no chance of its own. Beside it stands what is known without a network:

    unigrams   the frequencies of the tokens, whatever stands around the gap
    bigrams    a Markov chain of the training tokens, and its exact answer given both sides of the gap:
               p(x_i | a, b) proportional to (A^i)[a, x_i] (A^(k + 1 - i))[x_i, b] of a gap of k between a and b

with Witten and Bell's estimate (1991) from counts c, and d(a) different tokens after a,

    A[a, x] = (c(a x) + d(a) p(x)) / (c(a) + d(a)),    p(x) = (c(x) + d / K) / (c + d).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor
from tqdm import tqdm

from logsnr.base.seeds import sample_seeds
from logsnr.data.seeded import Batch
from logsnr.evaluation.ngrams import counted
from logsnr.evaluation.state_bound import nearest_timesteps
from logsnr.models.denoiser import Denoises

SHARE, SPAN = 0.25, 4
"""Of the tokens, how many are masked, in gaps of how many."""
LEAST = 3
"""The shortest sequence that can have a gap with something on both sides."""

Tokens = NDArray[np.int64]
Weights = NDArray[np.float64]


class Bigrams:
    """A Markov chain of tokens, counted on training tokens (tokens,), of `states` different ones."""

    def __init__(self, training: Tokens, states: int) -> None:
        counts = np.bincount(training, minlength=states).astype(np.float64)
        different = np.count_nonzero(counts)
        self.unigrams: Weights = (counts + different / states) / (counts.sum() + different)
        pairs, times = np.unique(training[:-1] * states + training[1:], return_counts=True)
        self._pairs = csr_array((times.astype(np.float64), np.divmod(pairs, states)), shape=(states, states))
        followed = self._pairs.sum(1)
        self._kinds = np.bincount(pairs // states, minlength=states).astype(np.float64)
        self._kinds[followed == 0] = 1  # what nothing is known of is followed by anything
        self._total = followed + self._kinds

    def after(self, weights: Weights) -> Weights:
        """Of what comes next, where these are the chances of what is there: (n, K) times A."""
        scaled = weights / self._total
        found: Weights = (self._pairs.T @ scaled.T).T + (scaled @ self._kinds)[:, None] * self.unigrams
        return found

    def before(self, weights: Weights) -> Weights:
        """How likely what comes next is after each token: A times (n, K)."""
        seen = (self._pairs @ weights.T).T + (weights @ self.unigrams)[:, None] * self._kinds
        found: Weights = seen / self._total
        return found

    def between(self, left: Tokens, right: Tokens, span: int) -> Weights:
        """The law of each token of gaps of that span between tokens left (n,) and right (n,): (n, span, K)."""
        forward, backward = [self._certain(left)], [self._certain(right)]
        for _ in range(span):
            forward.append(_normalised(self.after(forward[-1])))
            backward.append(_normalised(self.before(backward[-1])))
        return _normalised(np.stack(forward[1:], 1) * np.stack(backward[:0:-1], 1))

    def _certain(self, tokens: Tokens) -> Weights:
        weights = np.zeros((len(tokens), len(self.unigrams)))
        weights[np.arange(len(tokens)), tokens] = 1
        return weights


def _normalised(weights: Weights) -> Weights:
    found: Weights = weights / weights.sum(-1, keepdims=True)
    return found


@dataclass(frozen=True, eq=False)
class Infilling:
    """Of each sequence, how many masked tokens there are, and how many are right; (n,), float64."""

    masked: Tensor
    likeliest: Tensor
    """Where the likeliest token is taken."""
    drawn: Tensor
    """Where one is drawn, on average."""


@torch.no_grad()
def infilling(
    denoiser: Denoises, batches: Iterable[Batch], bigrams: Bigrams, end: int, *, num_sequences: int, seed: int = 0
) -> dict[str, Infilling]:
    """What the model, unigrams and bigrams know of gaps in all sequences of `batches`, by these three names.

    denoiser: of the kernel absorbing: under another one nothing tells the network what is missing.
    num_sequences: how many there are in `batches`, for the progress bar. seed: of where the gaps are.
    """
    schedule, found = denoiser.schedule, dict[str, list[Tensor]]()
    with tqdm(total=num_sequences, desc="Infilling", unit=" sequences", leave=False, delay=2) as bar:
        for batch in batches:
            clean = batch.clean
            begins, span = gaps(clean.shape[1], batch.positions.numpy(), seed)
            places = torch.from_numpy(begins).unsqueeze(2) + torch.arange(span)
            rows = torch.arange(len(clean)).reshape(-1, 1, 1).expand(places.shape)
            hidden = torch.zeros_like(clean, dtype=torch.bool)
            hidden[rows, places] = True
            x_t = clean.masked_fill(hidden, schedule.mask_token_id)
            t = nearest_timesteps(schedule, hidden.double().mean(1))
            condition = denoiser.conditioner.encode(batch.condition, denoiser.device)
            logits = denoiser(x_t, t, condition).output[rows, places].double()
            left, right = (clean[rows[..., 0], places[..., k] + offset].numpy() for k, offset in ((0, -1), (-1, 1)))
            between = bigrams.between(left.ravel(), right.ravel(), span).reshape(logits.shape)
            laws = {
                "model": logits.softmax(-1),
                "unigrams": torch.from_numpy(bigrams.unigrams).expand(logits.shape),
                "bigrams": torch.from_numpy(between),
            }
            true = clean[rows, places]
            counts = counted(clean, end)[rows, places].double()
            for name, law in laws.items():
                right_ones = (law.argmax(-1) == true).double(), law.gather(-1, true.unsqueeze(-1)).squeeze(-1)
                sums = [(each * counts).sum((1, 2)) for each in (torch.ones_like(counts), *right_ones)]
                found.setdefault(name, []).append(torch.stack(sums))
            bar.update(len(clean))
    return {name: Infilling(*torch.cat(sums, 1)) for name, sums in found.items()}


def gaps(length: int, positions: Tokens, seed: int) -> tuple[Tokens, int]:
    """Where gaps begin in sequences of these positions (n,), (n, gaps), and their span. They are evenly spread, each
    moved at random within its share, with a token at least on both sides. `length` is LEAST or more."""
    span = min(SPAN, (length - 1) // 2)
    number = max(1, min(round(SHARE * length / span), (length - 1) // (span + 1)))
    width = (length - 1) // number
    u = sample_seeds(seed, (positions[:, None] << 16) + np.arange(number), "gaps") / 2.0**63
    moved = np.minimum(np.floor(u * (width - span)), width - span - 1).astype(np.int64)
    return np.arange(number) * width + 1 + moved, span
