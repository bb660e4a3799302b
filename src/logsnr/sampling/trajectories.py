"""Fine solutions of the probability-flow ODE, and recursions of few steps over the same network: for `logsnr tune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from logsnr.base.errors import ModelError
from logsnr.data.seeded import Condition
from logsnr.models.denoiser import Denoiser, Guided
from logsnr.schedulers.scheduling_few_step import HISTORY, FewStepScheduler, Table, adams_table
from logsnr.tasks.parts import parts_of_pipeline, require_numbers

GRID, SUBSTEPS = 50, 2
"""Nodes of a fine solution that are kept, and steps from one to the next."""


@dataclass(frozen=True)
class Solutions:
    """Fine solutions from some noise: states and predictions at `timesteps`, (guidances, nodes, images, ...)."""

    timesteps: list[int]
    states: Tensor
    predictions: Tensor
    ends: Tensor

    @property
    def noise(self) -> Tensor:
        """Where they begin, (images, ...)."""
        return self.states[0, 0]

    def images(self, count: int) -> Solutions:
        """The first `count`."""
        return Solutions(
            self.timesteps, self.states[:, :, :count], self.predictions[:, :, :count], self.ends[:, :count]
        )


class Paths:
    """The model as a function x_t -> x_0, and multistep recursions over it; in float32 on the model's device."""

    def __init__(self, pipeline: Any, guidance_scale: float) -> None:
        if pipeline.scheduler.config.get("_consistency") is not None:
            raise ModelError("This model is distilled for few steps already. Tune the one that it was made from.")
        if pipeline.scheduler.config.get("variance_type") == "learned_range":
            raise ModelError("A model with learned variance has no deterministic sampler to tune yet.")
        parts = parts_of_pipeline(pipeline)
        require_numbers(parts, "logsnr tune")
        network = parts.network_of(pipeline).eval().requires_grad_(False)
        config = {k: v for k, v in pipeline.scheduler.config.items() if k != "_few_step"}
        self.scheduler = few_step_scheduler(config)
        self.denoiser = Denoiser(network, self.scheduler, parts.conditioner(network))
        self.device = self.denoiser.device
        self.guidances = [1.0, guidance_scale] if self.conditions(1) else [1.0]
        self.shape = parts.shape(pipeline)

    def noise(self, count: int, seed: int) -> Tensor:
        """Standard normal, the same on every device."""
        return torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def conditions(self, count: int) -> Condition:
        """Those of `count` samples, all that there are in turn."""
        return self.denoiser.conditioner.in_turn(count, self.device)

    def output(self, x: Tensor, t: Any, guidance: float, condition: Condition) -> Tensor:
        """What the network says at timestep t, one for all or (images,)."""
        return Guided(self.denoiser, guidance)(x, t, condition).output

    def predict(self, x: Tensor, t: Tensor | int, guidance: float, condition: Condition) -> Tensor:
        """x_0 of x at timestep t."""
        return self.scheduler.to_original(self.output(x, t, guidance, condition), t, x)

    def teacher(self, count: int, seed: int, name: str) -> Solutions:
        """Fine solutions with every guidance, with a progress bar."""
        # from T - 1, where sampling begins; even, for rounded steps of 1 and 2 in turn would upset the extrapolation
        fine = self.scheduler.default_timesteps(min(GRID * SUBSTEPS, len(self.scheduler)))
        rows = adams_table(self.scheduler.angles[fine].tolist(), order=2)  # networks are too rough for order 3
        noise, states, predictions, ends = self.noise(count, seed), [], [], []
        with tqdm(total=len(fine) * len(self.guidances), desc=f"teacher, {name}", delay=2, dynamic_ncols=True) as bar:
            for guidance in self.guidances:
                x, seen = noise, []
                history: list[Tensor] = []
                for t, row in zip(fine, rows, strict=True):
                    d = self.predict(x, t, guidance, self.conditions(count))
                    seen.append((x, d))
                    x, history = advance(row, x, d, history)
                    bar.update()
                states.append(torch.stack([x for x, _ in seen[::SUBSTEPS]]))
                predictions.append(torch.stack([d for _, d in seen[::SUBSTEPS]]))
                ends.append(x)
        return Solutions(fine[::SUBSTEPS], torch.stack(states), torch.stack(predictions), torch.stack(ends))

    def run(self, timesteps: Any, table: Any, guidance: float, x: Tensor, condition: Condition) -> Tensor:
        """The end of the recursion: lists as the scheduler has them, or tensors whose last axis is that of images."""
        history: list[Tensor] = []
        for t, row in zip(timesteps, table, strict=True):
            x, history = advance(row, x, self.predict(x, t, guidance, condition), history)
        return x

    def errors(self, timesteps: list[int], table: Table, teacher: Solutions) -> list[float]:
        """RMSE to the teacher's ends, one a guidance."""
        condition = self.conditions(len(teacher.noise))
        ends = [self.run(timesteps, table, w, teacher.noise, condition) for w in self.guidances]
        return [float((x - end).square().mean().sqrt()) for x, end in zip(ends, teacher.ends, strict=True)]


def few_step_scheduler(config: Any, **more: Any) -> FewStepScheduler:
    scheduler = FewStepScheduler.from_config(config, **more)
    assert isinstance(scheduler, FewStepScheduler)  # from_config is typed for more than it does here
    return scheduler


def advance(row: Any, x: Tensor, d: Tensor, history: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of the table, its row numbers or (columns, images, 1, 1, 1): the next x and the history for it."""
    r, c, *b = row
    history = [d + r * x, *history][:HISTORY]
    after: Tensor = c * x
    for weight, remembered in zip(b, history, strict=False):
        after = after + weight * remembered
    return after, history
