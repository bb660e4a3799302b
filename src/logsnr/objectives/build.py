"""A run's configuration -> its loss."""

from __future__ import annotations

from logsnr.models.schedules import NoiseSchedule
from logsnr.objectives.learned_schedule import LearnedScheduleObjective
from logsnr.objectives.objective import Context, Objective
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.settings.objective import WeightedConfig
from logsnr.settings.registry import resolve
from logsnr.settings.run import RunConfig
from logsnr.settings.schedule import LearnedSchedule


def make_objective(config: RunConfig, schedule: NoiseSchedule, context: Context) -> Objective:
    """The loss that a configuration asks for."""
    if isinstance(config.schedule, LearnedSchedule):
        assert isinstance(config.objective, WeightedConfig)  # RunConfig sees to that
        assert isinstance(schedule, BetaScheduler)
        return LearnedScheduleObjective(schedule, config.objective, context, config.schedule.teacher)
    objective: Objective = resolve(config.objective.builds)(schedule, config.objective, context)
    return objective
