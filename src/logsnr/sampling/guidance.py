"""Options of guidance -> the arguments of a pipeline that guide it, and what they are in words."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusers.guiders.adaptive_projected_guidance import AdaptiveProjectedGuidance
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance

from logsnr.base.errors import ModelError
from logsnr.folders.model_folder import model_digest
from logsnr.models.locate import locate
from logsnr.settings.guidance import PLAIN, GuidanceOptions
from logsnr.tasks.load import load


def guiding(pipeline: Any, scale: float, options: GuidanceOptions) -> dict[str, Any]:
    """The arguments that guide `pipeline` by `scale`. Raises ModelError for a guide that can't be loaded."""
    arguments: dict[str, Any] = {"guidance_scale": scale} if options.plain else {"guider": _guider(scale, options)}
    if options.guide is not None:
        arguments["guide"] = load(_folder_of(options.guide)).to(pipeline.device)
    return arguments


def guidance_in_words(scale: float, options: GuidanceOptions) -> str:
    """`2`, or `2, in 0.2 to 0.8 of the steps`: all of it that decides what is drawn. Raises ModelError."""
    words = [f"{scale:g}"]
    if options.interval != PLAIN.interval:
        words.append("in {:g} to {:g} of the steps".format(*options.interval))
    if options.rescale:
        words.append(f"rescaled by {options.rescale:g}")
    if options.projected:
        words.append("projected")
    if options.guide is not None:
        words.append(f"away from the model {model_digest(_folder_of(options.guide))}")
    return ", ".join(words)


def _folder_of(guide: str) -> Path:
    try:
        return locate(guide)
    except ModelError as error:
        raise ModelError(f"guidance.guide: {error}") from error


def _guider(scale: float, options: GuidanceOptions) -> Any:
    start, stop = options.interval
    given = {"guidance_scale": scale, "guidance_rescale": options.rescale, "start": start, "stop": stop}
    with _without_warning():
        if not options.projected:
            return ClassifierFreeGuidance(**given)
        # eta 0 projects, which diffusers' default, 1, doesn't; 0 for rescale is no bound on the difference's norm
        return AdaptiveProjectedGuidance(**given, eta=0.0, adaptive_projected_guidance_rescale=0.0)


@contextlib.contextmanager
def _without_warning() -> Iterator[None]:
    """Each guider says that its interface may change, which concerns who calls it, not who draws with it."""
    logger = logging.getLogger("diffusers.guiders.guider_utils")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False
