"""Where a model is: a run folder, a model folder or a repo of the Hub -> the folder to read it from.

From a repo comes what makes the model and nothing else: JSON and safetensors, no code, no pickle. It stays in the
cache of huggingface_hub, and a repo that is there is found without a network.
"""

from __future__ import annotations

from pathlib import Path

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

from logsnr.base.errors import ModelError
from logsnr.folders.model_folder import INDEX, find_model, is_model, read_patterns


def locate(source: str, revision: str | None = None) -> Path:
    """The folder with the model's model_index.json. Raises ModelError, saying what is there instead."""
    return find_model(Path(source)) if Path(source).is_dir() else _download(source, revision)


def _download(source: str, revision: str | None) -> Path:
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ModelError(f"There is no folder {source}.")
    folder = _snapshot(source, revision, [INDEX])
    if not is_model(folder):
        raise ModelError(f"The repo {source} holds no model: there is no {INDEX} in it.")
    # the folder is called by its commit: what model_index.json names is taken from that one, should the branch move
    return _snapshot(source, folder.name, read_patterns(folder))


def _snapshot(source: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except Exception as error:  # also those of the HTTP library, which huggingface_hub has changed before
        raise ModelError(f"There is no folder {source}, and {_why_no_repo(source, revision, error)}") from error


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
