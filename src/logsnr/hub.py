"""A model folder or Hub repo -> a pipeline of the installed classes, without running code from either.

The schedule's class is named in the scheduler's config (`_logsnr`); its betas stand there in full. What is read is
JSON and safetensors only.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import diffusers
from diffusers.models.unets.unet_2d import UNet2DModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from logsnr.errors import ModelError
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.registry import scheduler_class_named


def load(path_or_repo: str | Path, *, revision: str | None = None) -> PixelDiffusionPipeline:
    """Load a model from a run folder, a model folder or a Hub repo.

    Args:
        path_or_repo: a folder made by `logsnr train` or `save_pretrained`, or a repo id such as `user/model`.
        revision: branch, tag or commit of a repo.

    Raises:
        ModelError: there is no such folder or repo, or it isn't a U-Net with a scheduler.
    """
    folder = _locate(str(path_or_repo), revision)
    index = _read(folder / "model_index.json")
    config = _read(folder / "scheduler" / "scheduler_config.json")
    ours, name = config.get("_logsnr"), str(config.get("_class_name"))
    scheduler_class: Any = getattr(diffusers, name, None)
    if ours:
        try:
            scheduler_class = scheduler_class_named(ours["schedule"])
        except ModelError as error:
            if scheduler_class is None:
                raise ModelError(
                    f"{error} Or trust the code in the model's folder: "
                    f"DiffusionPipeline.from_pretrained({str(path_or_repo)!r}, trust_remote_code=True)."
                ) from None
            # what a schedule in a file of the user's own is saved as
            warnings.warn(
                f"The schedule {ours['schedule']} isn't known here, and the model's folder doesn't hold it: loaded as "
                f"{name}, with the same betas. What is lost is sampling without fresh noise (eta), which few steps "
                f"need. For all of it: `logsnr sample --scheduler your_module:{ours['schedule']}`, or import its "
                "module before logsnr.load.",
                stacklevel=2,
            )
    if scheduler_class is None:
        raise ModelError(f"{path_or_repo}: its scheduler {name} is neither one of diffusers' nor of logsnr's.")
    try:
        unet = UNet2DModel.from_pretrained(folder, subfolder="unet", use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path_or_repo}: its U-Net can't be loaded: {error}") from error
    labels = index.get("id2label")
    id2label = None if labels is None else {int(key): str(value) for key, value in labels.items()}
    return PixelDiffusionPipeline(unet, scheduler_class.from_config(config), id2label=id2label)


def model_folder(folder: Path) -> Path:
    """The model of a run folder, or the folder itself if it is one. Raises ModelError if there is no model yet."""
    for candidate in (folder, folder / "model"):
        if (candidate / "model_index.json").is_file():
            return candidate
    unfinished = (folder / "checkpoints").is_dir()
    cure = (
        f"Training isn't finished; `logsnr export {folder}` makes a model of the last checkpoint." if unfinished else ""
    )
    raise ModelError(f"{folder} holds no model: there is no model_index.json in it. {cure}".rstrip())


def _locate(source: str, revision: str | None) -> Path:
    if Path(source).is_dir():
        return model_folder(Path(source))
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ModelError(f"There is no folder {source}.")
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"There is no folder {source}, and no repo of that name could be had from the Hub: {reason}"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    assert isinstance(values, dict)
    return values
