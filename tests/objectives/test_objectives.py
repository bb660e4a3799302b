"""Every loss that is installed does what the training loop, the held-out loss and a checkpoint ask of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from logsnr.conditions.class_label import ClassLabel
from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoiser
from logsnr.models.masked_lm import make_masked_language_model
from logsnr.models.schedules import make_scheduler, make_transition_scheduler
from logsnr.models.states import StateDenoiser
from logsnr.objectives.build import make_objective
from logsnr.objectives.objective import Context
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.schedulers.scheduling_transition import TransitionScheduler
from logsnr.settings.objective import ElboWeighting, ObjectiveConfig, WeightedConfig
from logsnr.settings.registry import known
from logsnr.settings.run import RunConfig
from logsnr.settings.schedule import LearnedSchedule, ScheduleConfig, TransitionConfig
from logsnr.settings.text import TextDataConfig, TextModelConfig

SHAPE = (1, 4, 4)
LETTERS = 5
NAMES = [*known("logsnr.objectives"), "weighted, its schedule learned"]


class Tiny(torch.nn.Module):
    """A convolution and a number a class."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.labels = torch.nn.Conv2d(1, channels, 3, padding=1), torch.nn.Embedding(3, 1)

    def forward(self, sample: Any, timestep: Any, class_labels: Any, return_dict: bool) -> Any:
        return (self.body(sample) + self.labels(class_labels).view(-1, 1, 1, 1),)


def of_states(name: str) -> bool:
    return name in known("logsnr.objectives") and ObjectiveConfig.member(name, "objective").noise is TransitionConfig


def configuration(name: str) -> RunConfig:
    length: dict[str, Any] = {"num_train_timesteps": 40}
    if of_states(name):
        objective = ObjectiveConfig.member(name, "objective")()
        texts: dict[str, Any] = {"kind": "text", "data": TextDataConfig("texts"), "model": TextModelConfig()}
        return RunConfig(schedule=TransitionConfig(**length), objective=objective, **texts)
    if name not in known("logsnr.objectives"):
        return RunConfig(schedule=LearnedSchedule(**length), objective=WeightedConfig(ElboWeighting()))
    settings = ObjectiveConfig.member(name, "objective")()
    if name in ("hybrid", "vlb"):
        length["variance_type"] = "learned_range"
    return RunConfig(schedule=ScheduleConfig(**length), objective=settings)


def made(name: str) -> tuple[Any, Denoiser | StateDenoiser]:
    config = configuration(name)
    if of_states(name):
        letters = make_transition_scheduler(config.schedule, LETTERS + 1, LETTERS)
        size = TextModelConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        reader = make_masked_language_model(size, LETTERS + 1 + 3, 16 + 1, ["a", "b"], seed=0)
        writer = StateDenoiser(reader, letters, ClassLabel(2))
        return make_objective(config, letters, Context(seed=3, denoiser=writer)), writer
    schedule = make_scheduler(config.schedule)
    network = Tiny(2 if schedule.variance_type == "learned_range" else 1)
    denoiser = Denoiser(network, schedule, ClassLabel(2))
    context = Context(seed=3, bits=8, shape=SHAPE, denoiser=denoiser)
    return make_objective(config, schedule, context), denoiser


def batch(name: str, start: int, count: int = 8) -> Batch:
    n, generator = torch.arange(start, start + count), torch.Generator().manual_seed(start)
    if of_states(name):
        return Batch(torch.randint(LETTERS, (count, 16), generator=generator), {"class_labels": n % 2}, n)
    clean = torch.rand(count, *SHAPE, generator=generator) * 2 - 1
    return Batch(clean, {"class_labels": n % 2}, n)


def alone(values: torch.Tensor) -> torch.Tensor:
    """What a single process gathers."""
    return values


@pytest.mark.parametrize("name", NAMES)
def test_a_step_and_what_is_measured_on_the_way(name: str) -> None:
    objective, denoiser = made(name)
    loss = objective.loss(denoiser, batch(name, 0))
    assert loss.shape == ()
    assert bool(loss.isfinite())
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in denoiser.network.parameters())
    objective.after_step(alone, 0.1)
    assert isinstance(objective.schedule, TransitionScheduler if of_states(name) else BetaScheduler)
    assert objective.weights.shape == (40,)
    t = torch.tensor([0, 3, 20, 39])
    first, again = (objective.errors(denoiser, batch(name, 5, 4), t, "held out").detach() for _ in range(2))
    assert first.shape == (4,)
    assert torch.equal(first, again)
    objective.finish(denoiser)
    assert isinstance(objective.sampler, SchedulerMixin)
    objective.sampler.set_timesteps(2)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_all_that_the_next_batch_depends_on(name: str) -> None:
    """Beside the network's weights: a loss made anew and restored goes on as the one before would have."""
    objective, denoiser = made(name)
    for k in range(0, 400, 8):
        objective.loss(denoiser, batch(name, k)).backward()
        objective.after_step(alone, k / 1000)
    state = {name: value.clone() for name, value in objective.state().items()}
    other, _ = made(name)
    if state:
        other.restore(state)
    assert torch.equal(objective.loss(denoiser, batch(name, 400)), other.loss(denoiser, batch(name, 400)))
    assert torch.equal(objective.schedule.betas, other.schedule.betas)
