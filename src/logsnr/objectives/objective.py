"""What the training loop, the held-out loss and a checkpoint need of a loss, and nothing else of it.

A loss is a class with these methods. It is made of a noise schedule, its own settings and a `Context`, and everything
random about it comes from (seed, n), the number of the sample in the run; see `logsnr.data.seeded`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from logsnr.base.noise import normal_like
from logsnr.base.seeds import sample_seeds
from logsnr.data.seeded import Batch, Condition
from logsnr.models.denoiser import Denoises
from logsnr.models.schedules import NoiseSchedule
from logsnr.schedulers.scheduling_transition import TransitionScheduler

Gather = Callable[[Tensor], Tensor]
"""The values of all processes, one after the other along the first axis; of a single process its own."""


_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Context:
    """What a loss is told beside its schedule and its settings."""

    seed: int = 0
    """Seed of timesteps, noise and dropped conditions."""
    condition_dropout: float = 0.1
    """Share of the conditions that are dropped, which guidance needs."""
    bits: int | None = None
    """Depth of the data, whose values are then 2 k / (2^bits - 1) - 1; None takes them as continuous."""
    shape: tuple[int, ...] = ()
    """Shape of a clean sample; only a loss that draws samples needs it."""
    device: torch.device = _CPU
    denoiser: Denoises | None = None
    """The network that training begins with; only a loss that learns from it needs it."""
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    """The precision in which such a loss evaluates that network."""


class Objective(Protocol):
    """A loss: what the training loop, the held-out loss and a checkpoint need of one."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule as it is now."""
        ...

    @property
    def sampler(self) -> Any:
        """The scheduler that the model is saved and sampled with; the schedule itself, or a sampler on it."""
        ...

    @property
    def weights(self) -> Tensor:
        """The weight of a held-out error at each timestep, (T,)."""
        ...

    def loss(self, denoiser: Denoises, batch: Batch) -> Tensor:
        """The mean loss of a training batch."""
        ...

    def errors(self, denoiser: Denoises, batch: Batch, timesteps: Tensor, stream: str) -> Tensor:
        """Unweighted errors (batch,) at given timesteps; the noise of position n comes from (0, n) and `stream`."""
        ...

    def after_step(self, gather: Gather, progress: float) -> None:
        """Learn from the batches since the last call; `progress` is the share of the steps that are done."""
        ...

    def finish(self, denoiser: Denoises) -> None:
        """Measure of the finished network what its sampler needs."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What the loss has learned so far; a run that goes on needs it."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        ...


def require_schedule(schedule: object) -> None:
    """Raise TypeError unless it is a scheduler of numbers with a log-SNR, as ours are: stock ones have none."""
    if isinstance(schedule, TransitionScheduler):
        raise TypeError(
            "schedule must be one of numbers, such as CosineBetaScheduler(), and is a TransitionScheduler. The losses "
            "of states are CrossEntropyObjective and TransitionBoundObjective."
        )
    if not (isinstance(schedule, SchedulerMixin) and hasattr(schedule, "log_snr")):
        raise TypeError(
            f"schedule must be one of logsnr's, such as CosineBetaScheduler(), and is {_named(schedule)}. "
            "LinearBetaScheduler.from_config(scheduler.config) makes one of a stock scheduler whose beta_schedule is "
            "linear, CosineBetaScheduler one of squaredcos_cap_v2."
        )


def _named(found: object) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"


def noised(batch: Batch, seed: int, stream: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """The clean samples of a batch and their noise, on the device; the noise of each comes from its own seed."""
    clean = batch.clean.to(device)
    return clean, normal_like(clean, sample_seeds(seed, batch.positions.numpy(), stream))


def shown_condition(denoiser: Denoises, batch: Batch, context: Context) -> Condition:
    """The condition of a training batch, encoded, some of it dropped.

    Raises ValueError where the denoiser's conditioner doesn't know it, or misses it.
    """
    condition = denoiser.conditioner.encode(batch.condition, context.device)
    coins = sample_seeds(context.seed, batch.positions.numpy(), "label dropout") < context.condition_dropout * 2.0**63
    return denoiser.conditioner.drop(condition, torch.from_numpy(coins).to(context.device))


class Fixed:
    """The part of a loss that learns nothing itself, and whose sampler needs no measuring."""

    def after_step(self, gather: Gather, progress: float) -> None:
        """Does nothing: this loss learns nothing from its batches. Other losses want it called after each step."""

    def finish(self, denoiser: Denoises) -> None:
        """Does nothing: the sampler of this loss needs no measuring. Other losses want it called after training."""

    def state(self) -> dict[str, Tensor]:
        """Empty: this loss has no state that a checkpoint would have to hold."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Does nothing: this loss has no state, see `state`."""
