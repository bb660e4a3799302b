"""The losses of states: on a Markov chain with a perfect denoiser they are what the mathematics says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from markov_chain import MarkovChain
from torch import Tensor

from logsnr.conditions.conditioner import Unconditioned
from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Prediction
from logsnr.objectives.cross_entropy import CrossEntropyObjective
from logsnr.objectives.objective import Context
from logsnr.objectives.states import noised_states
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.objectives.transition_bound import TransitionBoundObjective
from logsnr.objectives.weighted import WeightedObjective
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.schedulers.scheduling_transition import TransitionScheduler

CHAIN = MarkovChain.of_the_facts()
T, MASK = 8, 3
KERNELS: dict[str, dict[str, Any]] = {
    "absorbing": {"mask_token_id": MASK},
    "uniform": {},
    "mask_and_replace": {"mask_token_id": MASK, "replace_share": 0.3},
    "gaussian": {},
}
ROWS = CHAIN.sample(16_000, torch.Generator().manual_seed(1))
LOSSES = (CrossEntropyObjective, TransitionBoundObjective)


class Exact:
    """The perfect denoiser of the chain."""

    def __init__(self, schedule: TransitionScheduler) -> None:
        self.schedule, self.conditioner, self.device = schedule, Unconditioned(), torch.device("cpu")

    def __call__(self, x_t: Tensor, t: Tensor | int, condition: Any) -> Prediction:
        return Prediction(CHAIN.denoise(x_t, self.schedule.cumulative_matrix(torch.as_tensor(t))), None)


def scheduled(kernel: str, **more: Any) -> TransitionScheduler:
    states = 4 if "mask_token_id" in KERNELS[kernel] else 3
    return TransitionScheduler(kernel, states, T, **KERNELS[kernel], **more)


def batch(count: int, start: int = 0) -> Batch:
    return Batch(ROWS[start : start + count], {}, torch.arange(start, start + count))


def true_bound(schedule: TransitionScheduler) -> float:
    """The bound in bits a token by the scheduler alone, all sequences and all timesteps weighed, of the noise a lot."""
    exact, total = Exact(schedule), 0.0
    generator = torch.Generator().manual_seed(2)
    for t in range(T):
        x_0 = CHAIN.sample(4000, generator)
        at = torch.full((len(x_0),), t)
        x_t = schedule.add_noise(x_0, torch.rand(x_0.shape, dtype=torch.float64, generator=generator), at)
        total += float(schedule.bound(exact(x_t, at, {}).output, x_0, x_t, at).sum(1).mean())
    return total / math.log(2) / CHAIN.length


@pytest.mark.parametrize("kernel", KERNELS)
def test_both_measure_the_bound_and_one_trains_by_it(kernel: str) -> None:
    schedule = scheduled(kernel)
    b, expected = batch(len(ROWS)), true_bound(schedule)
    assert expected > CHAIN.entropy() / CHAIN.length - 0.02
    t = torch.from_numpy(draw_timesteps(0, b.positions.numpy(), T))
    for cls in LOSSES:
        objective = cls(schedule)
        errors = objective.errors(Exact(schedule), b, t, "held out")
        assert errors.shape == t.shape
        assert errors.dtype == torch.float32
        assert float((errors * objective.weights[t]).mean()) == pytest.approx(expected, rel=0.04)
    assert float(TransitionBoundObjective(schedule).loss(Exact(schedule), b)) == pytest.approx(expected, rel=0.04)


def test_the_absorbing_bound_is_the_scheduler_s_closed_form() -> None:
    """Weights times the cross-entropy of masks are the KL divergence, sample by sample; cosine betas, for once."""
    betas = CosineBetaScheduler(num_train_timesteps=T).betas.tolist()
    schedule = scheduled("absorbing", trained_betas=betas)
    b, objective = batch(64), TransitionBoundObjective(schedule)
    t = torch.arange(64) % T
    errors = objective.errors(Exact(schedule), b, t, "held out").double()
    clean, x_t = noised_states(schedule, b, 0, "held out", t)
    terms = schedule.bound(Exact(schedule)(x_t, t, {}).output, clean, x_t, t).mean(1) / math.log(2)
    torch.testing.assert_close(errors * objective.weights[t].double() / T, terms, rtol=1e-5, atol=1e-7)


def test_the_cross_entropy_is_that_of_masks() -> None:
    """The sum over masks, over their expected number: in the mean the entropy that is left of a masked place."""
    schedule = scheduled("absorbing")
    objective, b = CrossEntropyObjective(schedule), batch(len(ROWS))
    t = torch.from_numpy(draw_timesteps(0, b.positions.numpy(), T))
    errors = objective.errors(Exact(schedule), b, t, "noise").double()
    masked = 1 - schedule.alphas_cumprod[t]
    expected = float((errors * masked).mean() / (1 - schedule.alphas_cumprod).mean()) * math.log(2)
    assert float(objective.loss(Exact(schedule), b)) == pytest.approx(expected, rel=1e-5)  # seed 0 has the same noise


@pytest.mark.parametrize("cls", LOSSES)
def test_samples_count_each_for_itself(cls: Any) -> None:
    """A batch is the mean of its halves: so it is the same for any number of processes."""
    schedule = scheduled("absorbing")
    objective = cls(schedule, context=Context(seed=3))
    whole = objective.loss(Exact(schedule), batch(16))
    halves = [objective.loss(Exact(schedule), batch(8, start)) for start in (0, 8)]
    torch.testing.assert_close(whole, (halves[0] + halves[1]) / 2)
    again = cls(schedule, context=Context(seed=4)).loss(Exact(schedule), batch(16))
    assert not torch.allclose(whole, again)


def test_noise_belongs_to_samples() -> None:
    schedule = scheduled("uniform")
    objective = TransitionBoundObjective(schedule)
    t = torch.arange(16) % T
    whole = objective.errors(Exact(schedule), batch(16), t, "held out")
    part = objective.errors(Exact(schedule), batch(6, 10), t[10:], "held out")
    assert np.array_equal(whole[10:].numpy(), part.numpy())


@pytest.mark.parametrize("cls", LOSSES)
def test_numbers_have_other_losses(cls: Any) -> None:
    with pytest.raises(
        TypeError, match=r"schedule must be a TransitionScheduler, and is CosineBetaScheduler: .*states"
    ):
        cls(CosineBetaScheduler())
    with pytest.raises(TypeError, match=r"is a TransitionScheduler\. The losses of states are CrossEntropyObjective"):
        WeightedObjective(scheduled("absorbing"))  # type: ignore[arg-type]
