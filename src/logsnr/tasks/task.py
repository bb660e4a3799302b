"""A task: what the training loop, the sampler and the evaluation need, and don't know.

It puts a kind's parts together with a noise schedule and a loss, for one run. What reads a task knows these protocols
and no kind of data by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from logsnr.data.seeded import SeededData
from logsnr.models.denoiser import Denoiser
from logsnr.models.schedules import NoiseSchedule
from logsnr.models.states import StateDenoiser
from logsnr.objectives.build import make_objective
from logsnr.objectives.objective import Context, Objective
from logsnr.settings.kind import kind_named
from logsnr.settings.presets import require_config
from logsnr.settings.registry import resolve
from logsnr.settings.run import RunConfig
from logsnr.tasks.parts import Facts, Parts


@dataclass(frozen=True, eq=False)
class Task:
    """One run's data, network, noise schedule and loss, put together from the parts of its kind of data."""

    config: RunConfig
    parts: Parts
    data: SeededData[Any]
    network: Any
    schedule: NoiseSchedule
    """As it is when training begins; `objective.schedule` is how it is now."""
    denoiser: Denoiser | StateDenoiser
    """The network under its schedule, on its device."""
    objective: Objective

    @property
    def facts(self) -> Facts:
        """What of the data belongs to the model."""
        return self.parts.facts(self.data)

    def pipeline(self, network: Any, scheduler: Any) -> Any:
        """What draws with this network."""
        return self.parts.pipeline(network, scheduler, self.facts)


def parts_of(kind: str) -> Parts:
    """The parts of a kind of data, by its name. Raises ConfigError where no such kind is installed."""
    parts: Parts = resolve(kind_named(kind).parts)
    return parts


def open_task(
    config: RunConfig,
    data: SeededData[Any] | None = None,
    *,
    device: torch.device | None = None,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Task:
    """The task of a run that begins: its data (or those that are open already), and a network that knows nothing yet.

    Raises DataError, ConfigError or ModelError with a message for the user.
    """
    require_config(config, "open_task")
    parts = parts_of(config.kind)
    data = parts.open_data(config) if data is None else data
    schedule = parts.make_schedule(config, parts.facts(data))
    network = parts.make_network(config, data).to(device)
    return trained_task(config, data, network, schedule, autocast=autocast)


def trained_task(
    config: RunConfig,
    data: SeededData[Any],
    network: Any,
    schedule: NoiseSchedule,
    *,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Task:
    """The task of a network that is there, under its noise schedule."""
    parts = parts_of(config.kind)
    denoiser = parts.denoiser(network, schedule, data)
    context = Context(
        seed=config.train.seed,
        condition_dropout=config.condition.dropout,
        bits=data.examples.bits,
        shape=data.examples.shape,
        device=denoiser.device,
        denoiser=denoiser,
        autocast=autocast,
    )
    return Task(config, parts, data, network, schedule, denoiser, make_objective(config, schedule, context))
