"""Where a model is: a run folder, a model folder or a repo of the Hub -> the folder to read it from.

From a repo comes what makes the model and nothing else: JSON and safetensors, no code, no pickle. They stay in the
cache of huggingface_hub, and a repo that is there is found without a network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from logsnr.errors import ModelError

FEW_STEP_FOLDER = "scheduler_few_step"
"""In a model folder: the tables that `logsnr tune` made."""
PARTS = [
    *("model_index.json", "scheduler/scheduler_config.json", f"{FEW_STEP_FOLDER}/scheduler_config.json"),
    *("unet/config.json", "unet/*.safetensors"),
]


def locate(source: str, revision: str | None = None) -> Path:
    """The folder with the model's model_index.json. Raises ModelError, saying what is there instead."""
    return model_folder(Path(source)) if Path(source).is_dir() else _download(source, revision)


def model_folder(folder: Path) -> Path:
    """The model of a run folder, or the folder itself if it is one. Raises ModelError if there is no model yet."""
    for candidate in (folder, folder / "model"):
        if (candidate / "model_index.json").is_file():
            return candidate
    unfinished = (folder / "checkpoints").is_dir()
    cure = f" Training isn't finished; `logsnr export {folder}` makes a model of the last checkpoint."
    raise ModelError(f"{folder} holds no model: there is no model_index.json in it.{cure if unfinished else ''}")


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file of a model. Raises ModelError if it can't be read or isn't an object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} can't be read: it isn't a JSON object.")
    return values


def _download(source: str, revision: str | None) -> Path:
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ModelError(f"There is no folder {source}.")
    try:
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=PARTS))
    except Exception as error:  # also those of the HTTP library, which huggingface_hub has changed before
        raise ModelError(f"There is no folder {source}, and {_why_no_repo(source, revision, error)}") from error
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"The repo {source} holds no model: there is no model_index.json in it.")
    return folder


def _why_no_repo(source: str, revision: str | None, error: Exception) -> str:
    absent = isinstance(error, LocalEntryNotFoundError)  # from the cache, where the Hub's own answer was the cause
    cause = error.__cause__ or error if absent else error
    match cause:
        case HFValidationError():
            return f"a repo can't have that name: {_first_line(cause)}"
        case RevisionNotFoundError():
            return f"the repo of that name has no branch, tag or commit {revision}."
        case GatedRepoError():
            return "the repo of that name is open to those only who asked for access on its page and are logged in."
        case RepositoryNotFoundError():
            return (
                "no repo of that name on the Hub that you may read. If it is private, log in (`hf auth login`) or set "
                "HF_TOKEN."
            )
        case HfHubHTTPError() if cause.response.status_code == 401:
            return "the Hub doesn't know your token. Log in again (`hf auth login`), or set another HF_TOKEN."
        case HfHubHTTPError() if 400 <= cause.response.status_code < 500 and cause.response.status_code != 429:
            return f"the Hub refuses a repo of that name: {_first_line(cause)}"
        case HfHubHTTPError():
            return f"the Hub can't give a repo of that name now: {_first_line(cause)}. Try again in a while."
        case OfflineModeIsEnabled():
            return "no whole copy of a repo of that name in the cache, and HF_HUB_OFFLINE is set."
    return (
        f"a repo of that name couldn't be had: the Hub isn't reached ({_first_line(cause)}), and the cache has no "
        "whole copy. Try again with a network."
    )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
