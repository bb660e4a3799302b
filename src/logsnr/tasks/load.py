"""A model folder or Hub repo -> a pipeline of the installed classes, without running code from either.

The pipeline's class is named in model_index.json, the schedule's in the scheduler's config (`_logsnr`); both are looked
up among those that are installed. What is read is JSON and safetensors only. Nothing in it makes us import a module
that no installed package has declared: whoever wrote the repo may have written anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from logsnr.base.errors import ModelError
from logsnr.base.warn import warn_caller
from logsnr.folders.model_folder import FEW_STEP_CONFIG, INDEX, SCHEDULER_CONFIG, read_json_object
from logsnr.models.locate import locate
from logsnr.models.schedules import scheduler_class_named
from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler
from logsnr.schedulers.scheduling_transition import TransitionScheduler
from logsnr.tasks.parts import parts_of_class


def load(path_or_repo: str | Path, *, revision: str | None = None) -> Any:
    """Load a model from a run folder, a model folder or a Hub repo: a pipeline of its kind, of images a
    `PixelDiffusionPipeline`.

    Args:
        path_or_repo: a folder made by `logsnr train` or `save_pretrained`, or a repo id such as `user/model`.
        revision: branch, tag or commit of a repo.

    Raises:
        ModelError: there is no such folder or repo, or it isn't a model of a kind that is installed.
    """
    source = str(path_or_repo)
    folder = locate(source, revision)
    index = read_json_object(folder / INDEX)
    name = index.get("_class_name")
    parts = parts_of_class(str(name[-1] if isinstance(name, list) and name else name))
    scheduler = _load_scheduler(folder, source)
    own = {name: value for name, value in index.items() if not name.startswith("_") and not _is_component(value)}
    with _explaining(f"{source}: its {INDEX}"):
        return parts.load(folder, scheduler, own, source)


def _is_component(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(word, str) for word in value)


def _load_scheduler(folder: Path, source: str) -> Any:
    config = read_json_object(folder / SCHEDULER_CONFIG)
    with _explaining(f"{source}: its scheduler"):
        few_step = folder / FEW_STEP_CONFIG
        if few_step.is_file():  # kept in the config, whatever the scheduler, for a swap to FewStepScheduler
            config["_few_step"] = read_json_object(few_step).get("_few_step")
        config = config.get("_transition", config)  # a model of states has its schedule in a stock scheduler
        return _scheduler_class(config, source).from_config(config)


def _scheduler_class(config: dict[str, Any], source: str) -> Any:
    name = config.get("_class_name")
    if name == TransitionScheduler.__name__:
        return TransitionScheduler
    if config.get("_consistency") is not None and name in ("ConsistencyScheduler", ConsistencyScheduler.stock_form):
        return ConsistencyScheduler
    stock = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(stock, type) and issubclass(stock, SchedulerMixin)):
        stock = None
    ours = config.get("_logsnr")
    if ours is None:
        if stock is None:
            raise ModelError(f"{name} is neither one of diffusers' nor of logsnr's.")
        return stock
    try:
        return scheduler_class_named(ours["schedule"])
    except ModelError as error:
        if stock is None:
            raise ModelError(
                f"{error} Or trust the code in the model's folder: "
                f"DiffusionPipeline.from_pretrained({source!r}, trust_remote_code=True)."
            ) from None
        # what a schedule in a file of the user's own is saved as
        warn_caller(
            f"The schedule {ours['schedule']} isn't known here, and the model's folder doesn't hold it: loaded as "
            f"{name}, with the same betas. What is lost is sampling without fresh noise (eta), which few steps "
            f"need. For all of it: `logsnr sample --scheduler your_module:{ours['schedule']}`, or import its "
            "module before logsnr.load."
        )
        return stock


@contextlib.contextmanager
def _explaining(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what others wrote may be wrong in any way
        raise ModelError(f"{what} can't be used: {error}") from error
