"""A name -> a noise schedule. There are three ways to be known:

1. Ours: `linear`, `cosine`, `constant`, `sigmoid`, `laplace`, `learned`.
2. Another package's: it declares an entry point in the group `logsnr.schedulers`, and its name is known wherever the
   package is installed, with no line of ours changed. Ours are declared in the same way.

       [project.entry-points."logsnr.schedulers"]
       square = "my_package.schedules:SquareBetaScheduler"

3. Your own, while you try things out: `package.module:Class`, the object reference of Python's packaging
   specification. The module may lie in the working directory: `my_schedules:SquareBetaScheduler` is the class in
   `my_schedules.py` beside your data.

Whatever the way, the class is a `BetaScheduler` with its `make_betas`. Only a name of the user's is resolved here, on
the user's machine: a model folder says by other means which file its scheduler is in.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeAlias

import diffusers
import torch

from logsnr.base.errors import ConfigError, ModelError, did_you_mean
from logsnr.schedulers.scheduling_beta import BetaScheduler, ScheduleWarning
from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler
from logsnr.schedulers.scheduling_transition import MASKED, MAX_TERMINAL_SURVIVAL, TransitionScheduler
from logsnr.settings.registry import known, reference
from logsnr.settings.schedule import REPLACE_SHARE, CurveConfig, ScheduleConfig, TransitionConfig

GROUP = "logsnr.schedulers"

NoiseSchedule: TypeAlias = BetaScheduler | TransitionScheduler
"""A curve of log-SNR: of numbers, or of states."""


def known_schedules() -> Mapping[str, str]:
    """The short names of this installation in order of the alphabet, each with its `package.module:Class`."""
    return known(GROUP)


def resolve_scheduler_class(name: str) -> type[BetaScheduler]:
    """The class that a short name or `package.module:Class` stands for; `ConfigError` if there is none."""
    if ":" in name:
        directory = os.getcwd()
        if directory not in sys.path:
            # At the end, so that a folder called datasets/ hides no installed package; for good, so that what the
            # module imports later is found too.
            sys.path.append(directory)
        return _load(name)
    return _load(reference(GROUP, name, "schedule.name", "; your own class is written package.module:Class"))


def scheduler_class_named(class_name: str) -> type[BetaScheduler]:
    """The class of that name among the known schedules and the subclasses that were imported; for loading a model.

    The name may be anybody's: it is compared with those names and never made into a module's.
    """
    for each in known_schedules().values():
        if each.partition(":")[2] == class_name:
            return _load(each)
    for cls in BetaScheduler.__subclasses__():
        if cls.__name__ == class_name and _is_schedule(cls):
            return cls
    raise ModelError(
        f"The model was made with the schedule {class_name}, which isn't known here. Install the package it comes from "
        "or import its module first."
    )


def make_scheduler(config: ScheduleConfig) -> BetaScheduler:
    """The scheduler that a configuration describes. Warns (`ScheduleWarning`) if the schedule won't do its job.

    Raises `ConfigError` if the name is unknown or the schedule can't be made with these settings.
    """
    return _on_curve(
        config,
        prediction_type=config.prediction_type,
        variance_type=config.variance_type,
        zero_terminal_snr=config.zero_terminal_snr,
        clip_sample=config.clip_sample,
    )


def make_transition_scheduler(
    config: TransitionConfig, num_states: int, mask_token_id: int | None
) -> TransitionScheduler:
    """The scheduler of states that a configuration describes; `mask_token_id` is taken by the kernels with a mask.

    Nothing survives the chain: where at most 0.002 would, the last beta is 1. Raises `ConfigError` if more would, if
    the name is unknown or the schedule can't be made with these settings.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScheduleWarning)  # what they say is of numbers; what holds for states follows
        betas = _on_curve(config).betas.tolist()
    left = float((1 - torch.tensor(betas, dtype=torch.float64)).prod())
    if left > MAX_TERMINAL_SURVIVAL:
        raise ConfigError(
            f"schedule.name {config.name} must leave at most {MAX_TERMINAL_SURVIVAL} of the data at its end, and "
            f"leaves {left:.3g}. Take another, such as even or cosine, or a lower --schedule.shift."
        )
    mask = mask_token_id if config.kernel in MASKED else None
    share = config.replace_share
    if config.kernel == "mask_and_replace" and share is None:
        share = REPLACE_SHARE
    try:
        return TransitionScheduler(config.kernel, num_states, config.num_train_timesteps, betas, mask, share)
    except ValueError as error:
        raise ConfigError(f"The schedule {config.name} can't be made: {error}") from error


def _on_curve(config: CurveConfig, **settings: Any) -> BetaScheduler:
    """The scheduler of the curve that `config` names, with these further settings."""
    cls = resolve_scheduler_class(config.name)
    formula = cls.schedule_options()
    for option in config.options:  # the constructor takes other keywords too, which aren't the formula's
        if option not in formula:
            raise ConfigError(
                f"schedule.options has {option!r}, which is no option of {config.name}."
                f"{did_you_mean(option, formula)} Options: {', '.join(formula) or 'none'}."
            )
    options: dict[str, Any] = dict(config.options)
    try:
        return cls(num_train_timesteps=config.num_train_timesteps, shift=config.shift, **settings, **options)
    except ValueError as error:
        raise ConfigError(f"The schedule {config.name} can't be made: {error}") from error


def noise_schedule(scheduler: Any) -> NoiseSchedule | None:
    """The noise schedule of a model's own scheduler, which may be a sampler on it; None where it isn't one of ours."""
    if isinstance(scheduler, ConsistencyScheduler) and "_logsnr" in scheduler.config:
        made = scheduler_class_named(scheduler.config["_logsnr"]["schedule"]).from_config(scheduler.config)
        assert isinstance(made, BetaScheduler)
        return made
    return scheduler if isinstance(scheduler, BetaScheduler | TransitionScheduler) else None


def consistency_scheduler(
    schedule: BetaScheduler, steps: int, contrasts: list[float] | None = None
) -> ConsistencyScheduler:
    """What a model that was distilled for `steps` steps is sampled with."""
    made = ConsistencyScheduler.from_config(schedule.config, distilled_steps=steps, contrasts=contrasts)
    assert isinstance(made, ConsistencyScheduler)
    return made


def swapped(scheduler: Any, target: str | type[Any], options: Mapping[str, Any]) -> Any:
    """A scheduler on the same noise schedule, made of the configuration of `scheduler` and of `options`.

    Args:
        target: a class, or the name of one of diffusers', with or without the ending "Scheduler".

    Raises ValueError where there is no such class, or where its `alphas_cumprod` would be others.
    """
    if isinstance(target, str):
        name = target.removesuffix("Scheduler") + "Scheduler"
        cls = getattr(diffusers.schedulers, name, None)
        if cls is None:
            near = did_you_mean(name, [n for n in dir(diffusers.schedulers) if n.endswith("Scheduler")])
            raise ValueError(f"target {target!r} is no scheduler.{near}")
    else:
        cls = target
    made = cls.from_config(scheduler.config, **options)
    ours, its = (getattr(each, "alphas_cumprod", None) for each in (scheduler, made))
    if ours is None or its is None or not torch.equal(ours.cpu(), its.cpu()):
        raise ValueError(f"target {cls.__name__} would use another noise schedule (its alphas_cumprod differs).")
    return made


def usual_steps(scheduler: Any, steps: int) -> int:
    """`steps`, or all that there are; but of a distilled model those that it was distilled for, whatever the scheduler
    was swapped to."""
    distilled: int | None = scheduler.config.get("_consistency")
    return min(steps, scheduler.config.get("num_train_timesteps", steps)) if distilled is None else distilled


def _load(reference: str) -> type[BetaScheduler]:
    module_name, _, class_name = reference.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
        raise ConfigError(
            f"The schedule {reference!r} isn't of the form package.module:Class (dots instead of slashes, no .py)."
        )
    module = _import(module_name, reference)
    found = getattr(module, class_name, None)
    if found is None:
        names = [name for name, value in vars(module).items() if _is_schedule(value)]
        raise ConfigError(
            f"{_where(module)} has no {class_name!r}.{did_you_mean(class_name, names)} "
            f"Schedules there: {', '.join(names) or 'none'}."
        )
    if not _is_schedule(found):
        raise ConfigError(
            f"{reference} can't be used as a schedule: it must be a subclass of BetaScheduler (in "
            f"{BetaScheduler.__module__}) that has its own make_betas."
        )
    schedule: type[BetaScheduler] = found
    return schedule


def _import(module_name: str, reference: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"There is no module {error.name!r} for the schedule {reference}: it is neither installed nor in "
                f"{os.getcwd()}."
            ) from error
        raise ConfigError(
            f"{module_name}, the module of the schedule {reference}, raises on import: {error}."
        ) from error
    except Exception as error:  # the module is someone else's: anything may be wrong with it
        raise ConfigError(
            f"{module_name}, the module of the schedule {reference}, raises on import: {type(error).__name__}: {error}"
        ) from error


def _is_schedule(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BetaScheduler) and not inspect.isabstract(value)


def _where(module: ModuleType) -> str:
    return f"{module.__name__} ({module.__file__})" if module.__file__ else module.__name__
