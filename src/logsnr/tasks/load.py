"""A model folder or Hub repo -> a pipeline of the installed classes, without running code from either.

The schedule's class is named in the scheduler's config (`_logsnr`) and is looked up among those that are installed; its
betas stand there in full. What is read is JSON and safetensors only. Nothing in it makes us import a module: whoever
wrote the repo may have written anything.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from logsnr.base.errors import ModelError
from logsnr.folders.model_folder import FEW_STEP_CONFIG, INDEX, SCHEDULER_CONFIG, read_json_object
from logsnr.models.locate import locate
from logsnr.models.networks import load_unet
from logsnr.models.schedules import scheduler_class_named
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler


def load(path_or_repo: str | Path, *, revision: str | None = None) -> PixelDiffusionPipeline:
    """Load a model from a run folder, a model folder or a Hub repo.

    Args:
        path_or_repo: a folder made by `logsnr train` or `save_pretrained`, or a repo id such as `user/model`.
        revision: branch, tag or commit of a repo.

    Raises:
        ModelError: there is no such folder or repo, or it isn't a U-Net with a scheduler.
    """
    source = str(path_or_repo)
    folder = locate(source, revision)
    index = read_json_object(folder / INDEX)
    config = read_json_object(folder / SCHEDULER_CONFIG)
    unet = load_unet(folder, source)
    with _explaining(f"{source}: its scheduler"):
        few_step = folder / FEW_STEP_CONFIG
        if few_step.is_file():  # kept in the config, whatever the scheduler, for a swap to FewStepScheduler
            config["_few_step"] = read_json_object(few_step).get("_few_step")
        scheduler = _scheduler_class(config, source).from_config(config)
    with _explaining(f"{source}: its {INDEX}"):
        return PixelDiffusionPipeline(unet, scheduler, id2label=index.get("id2label"))


def _scheduler_class(config: dict[str, Any], source: str) -> Any:
    name = config.get("_class_name")
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
        warnings.warn(
            f"The schedule {ours['schedule']} isn't known here, and the model's folder doesn't hold it: loaded as "
            f"{name}, with the same betas. What is lost is sampling without fresh noise (eta), which few steps "
            f"need. For all of it: `logsnr sample --scheduler your_module:{ours['schedule']}`, or import its "
            "module before logsnr.load.",
            stacklevel=3,
        )
        return stock


@contextlib.contextmanager
def _explaining(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what others wrote may be wrong in any way
        raise ModelError(f"{what} can't be used: {error}") from error
