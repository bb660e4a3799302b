"""A loss of another package: Huber's, of what the network predicts."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from logsnr.objectives.objective import Context, Fixed, noised, shown_condition
from logsnr.objectives.targets import target, target_errors
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.settings.choice import Name
from logsnr.settings.objective import ObjectiveConfig


@dataclass(frozen=True)
class HuberConfig(ObjectiveConfig):
    """Squared below `delta`, linear above."""

    name: Name = field(default="huber", init=False)
    builds = "huber:HuberObjective"
    delta: float = 0.5
    """Where it turns linear."""


class HuberObjective(Fixed):
    """Huber's loss."""

    def __init__(self, schedule: Any, settings: HuberConfig, context: Context) -> None:
        self.schedule = self.sampler = schedule
        self.settings, self.context = settings, context
        self.weights = torch.ones(len(schedule))

    def loss(self, denoiser: Any, batch: Any) -> Tensor:
        t = torch.from_numpy(draw_timesteps(self.context.seed, batch.positions.numpy(), len(self.schedule)))
        clean, noise = noised(batch, self.context.seed, "noise", self.context.device)
        x_t = self.schedule.add_noise(clean, noise, t)
        output, _ = denoiser(x_t, t, shown_condition(denoiser, batch, self.context))
        wanted = target(self.schedule, clean, noise, t)
        return torch.nn.functional.huber_loss(output, wanted, delta=self.settings.delta)

    def errors(self, denoiser: Any, batch: Any, timesteps: Tensor, stream: str) -> Tensor:
        return target_errors(denoiser, self.schedule, batch, timesteps, stream)
