"""A run's configuration -> its loss."""

from __future__ import annotations

from collections.abc import Callable

from logsnr.config import RunConfig
from logsnr.objectives.consistency import ConsistencyObjective
from logsnr.objectives.hybrid import HybridObjective
from logsnr.objectives.learned_schedule import LearnedScheduleObjective
from logsnr.objectives.objective import Context, Objective
from logsnr.objectives.vlb import VlbObjective
from logsnr.objectives.weighted import WeightedObjective
from logsnr.schedulers.scheduling_beta import BetaScheduler


def make_objective(config: RunConfig, schedule: BetaScheduler, context: Context) -> Objective:
    """The loss that a configuration asks for."""
    if config.distill is not None:
        return ConsistencyObjective(schedule, config.distill, context)
    if config.schedule.name == "learned":
        return LearnedScheduleObjective(schedule, config.objective, context, config.schedule.teacher)
    classes: dict[str, Callable[..., Objective]] = {
        "weighted": WeightedObjective,
        "hybrid": HybridObjective,
        "vlb": VlbObjective,
    }
    return classes[config.objective.loss](schedule, config.objective, context)
