"""logsnr.evaluation.infilling: gaps, the exact answer of bigrams, and a model that knows as much."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from markov_chain import MarkovChain
from torch import Tensor

from logsnr.conditions.conditioner import Unconditioned
from logsnr.data.seeded import Batch
from logsnr.evaluation.infilling import Bigrams, Weights, gaps, infilling
from logsnr.evaluation.ratio import ratio
from logsnr.models.denoiser import Prediction
from logsnr.schedulers.scheduling_transition import TransitionScheduler


@pytest.mark.parametrize("length", [3, 4, 5, 8, 17, 128])
def test_gaps_have_something_on_both_sides(length: int) -> None:
    begins, span = gaps(length, np.arange(500), 0)
    assert span >= 1
    assert begins.min() >= 1
    assert (begins + span).max() <= length - 1
    assert (np.diff(begins, axis=1) > span).all()
    share = begins.shape[1] * span / length
    assert share <= 0.5
    if length >= 16:
        assert 0.2 < share < 0.3
        assert len(np.unique(begins[:, 0])) > 3


def matrix(training: list[int], states: int) -> Weights:
    """Witten and Bell's, by the formula."""
    counts = np.array([training.count(x) for x in range(states)], float)
    unigrams = (counts + (counts > 0).sum() / states) / (counts.sum() + (counts > 0).sum())
    rows = []
    for a in range(states):
        pairs = [b for left, b in itertools.pairwise(training) if left == a]
        different = len(set(pairs))
        seen = np.array([pairs.count(x) for x in range(states)], float)
        rows.append((seen + different * unigrams) / (len(pairs) + different) if pairs else unigrams)
    return np.array(rows)


def test_bigrams_are_witten_and_bell_s_and_fill_gaps_exactly() -> None:
    training = np.random.default_rng(0).choice(5, 60, p=[0.5, 0.3, 0.1, 0.1, 0])
    bigrams, moves = Bigrams(training, 5), matrix(training.tolist(), 5)
    one = np.eye(5)
    assert np.allclose(bigrams.after(one), moves)
    assert np.allclose(bigrams.before(one), moves.T)
    assert np.allclose(moves.sum(1), 1)
    law = bigrams.between(np.array([0, 4]), np.array([2, 1]), 3)
    for row, (a, b) in enumerate([(0, 2), (4, 1)]):
        joint = np.einsum("i,ij,jk,k->ijk", moves[a], moves, moves, moves[:, b])
        for place in range(3):
            alone = joint.sum(tuple({0, 1, 2} - {place}))
            assert np.allclose(law[row, place], alone / alone.sum())


class Exact:
    """The perfect denoiser of a chain, under masks."""

    device = torch.device("cpu")

    def __init__(self, chain: MarkovChain, states: int) -> None:
        self.chain, self.conditioner = chain, Unconditioned()
        self.schedule: Any = TransitionScheduler("absorbing", states)

    def __call__(self, x_t: Tensor, t: Tensor | int, condition: Any) -> Prediction:
        return Prediction(self.chain.denoise(x_t, self.schedule.cumulative_matrix(0)), None)


def test_of_a_markov_chain_the_perfect_model_knows_what_bigrams_know() -> None:
    torch.manual_seed(0)
    rows = torch.distributions.Dirichlet(torch.full((4,), 0.3, dtype=torch.float64)).sample((4,))
    chain = MarkovChain(rows, torch.full((4,), 0.25, dtype=torch.float64), 16)
    generator = torch.Generator().manual_seed(0)
    longer = MarkovChain(chain.rows, chain.start, 200)  # where one ends and the next begins counts little
    bigrams = Bigrams(longer.sample(400, generator).numpy().ravel(), 6)
    clean = chain.sample(1500, generator)
    batches = [Batch(clean, {}, torch.arange(1500))]
    found = infilling(Exact(chain, 6), batches, bigrams, end=4, num_sequences=1500)
    shares = {
        name: (ratio(each.likeliest, each.masked), ratio(each.drawn, each.masked)) for name, each in found.items()
    }
    model, fewer, least = (shares[name] for name in ("model", "bigrams", "unigrams"))
    assert found["model"].masked.tolist() == [4.0] * 1500
    for of_model, of_bigrams in zip(model, fewer, strict=True):
        assert of_bigrams[0] == pytest.approx(of_model[0], abs=0.02)
    assert model[0][0] > model[1][0]  # the likeliest is right more often than one drawn
    assert model[0][0] > least[0][0] + 0.1
    common = torch.bincount(clean.flatten()).double() / clean.numel()
    assert least[1][0] == pytest.approx(float(common.square().sum()), abs=0.02)
