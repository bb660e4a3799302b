"""A staged folder -> a repo of the Hub, from which anybody loads the model.

The branch `stock` goes first, then `main`, and the Space last, each in one commit that also takes away what an earlier
version left there. Until `main` is there a reader therefore sees the old version whole, or no model yet; and since a
commit of what is there already is no commit, the same command again does just what is still to do.

Only a repo that is new, empty or ours is written to, and in it only files of ours: the card and what belongs to it,
and those of the model that is there, as its model_index.json says. A LICENSE that somebody added stays.
"""

from __future__ import annotations

import contextlib
import http
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, SpaceInfo, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import httpx, logging  # type: ignore[attr-defined]  # httpx or httpx2, as it has

from logsnr.base.errors import LogsnrError, PublishError
from logsnr.folders.model_folder import INDEX, OWN_CODE, own_files
from logsnr.publishing.card import TAG
from logsnr.publishing.repo_id import check_repo_id
from logsnr.publishing.stage import Part

_BESIDE = re.compile(r"README\.md|(images|run)/.*")
"""Files of ours beside the model."""
_MESSAGES = {
    "main": "Publish the model",
    "stock": "Publish the model for stock diffusers",
    "space": "Publish the app",
}
_AGAIN = "then run the same command again; what was done already isn't done twice."


@dataclass(frozen=True)
class Repo:
    """A repo of the Hub as it is before we write to it."""

    exists: bool
    private: bool
    branches: frozenset[str]


def look(repo_id: str, *, private: bool = False, create_pr: bool = False, space: bool = False) -> Repo:
    """What the repo is, before any work is done for it. Raises PublishError if we may not write there, or shouldn't."""
    check_repo_id(repo_id)
    if get_token() is None:
        raise PublishError(
            "The Hub takes nothing without a token. Make one with write access at "
            f"{constants.ENDPOINT}/settings/tokens and run `hf auth login` (or set HF_TOKEN), then the same command "
            "again."
        )
    api = HfApi()
    with _explained(repo_id):
        info = _info(api, repo_id, "model")
        if space:
            _info(api, repo_id, "space")
        if info is None:
            if create_pr:
                raise PublishError(
                    f"--create-pr needs a repo that is there, and the Hub shows no {repo_id}. Leave it out to create "
                    "the repo."
                )
            return Repo(False, private, frozenset())
        if private and not info.private:
            raise PublishError(
                f"--private makes new repos private, and {repo_id} is there and public. Make it private in its "
                "settings, or take another name."
            )
        branches = frozenset(branch.name for branch in api.list_repo_refs(repo_id).branches)
        return Repo(True, bool(info.private), branches)


def publish(parts: list[Part], repo_id: str, repo: Repo, *, create_pr: bool = False) -> list[str]:
    """Bring the repo (and its Space) to what was staged. Returns lines that say what was done."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # that nothing changed we say ourselves
    api, lines = HfApi(), []
    with _explained(repo_id):
        if create_pr:
            return _request(api, repo_id, parts)
        private = repo.private or None  # None: as the owner's settings say
        if not repo.exists:
            api.create_repo(repo_id, private=private, exist_ok=True)
        for part in parts:
            if part.name == "stock" and "stock" not in repo.branches:
                api.create_branch(repo_id, branch="stock", exist_ok=True)
            elif part.name == "space":
                api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
            url = _commit(api, repo_id, part)
            lines.append(f"{part.name}: {'nothing changed.' if url is None else url}")
        if "stock" in repo.branches and "stock" not in [part.name for part in parts]:
            api.delete_branch(repo_id, branch="stock")
            lines.append("stock: the branch is deleted; it held another model, and this one needs none.")
    lines.append(f"The page is {constants.ENDPOINT}/{repo_id}")
    return lines


def _request(api: HfApi, repo_id: str, parts: list[Part]) -> list[str]:
    """Open a pull request for the branch main; the Hub has none for several branches at once."""
    lines = []
    for part in parts:
        if part.name == "main":
            url = _commit(api, repo_id, part, create_pr=True)
            done = "nothing changed; no pull request was opened." if url is None else f"pull request {url}"
            lines.append(f"main: {done}")
        else:
            lines.append(
                f"{part.name}: not in the pull request, which changes main alone. Once it is merged, somebody who may "
                "write runs the same command without --create-pr."
            )
    return lines


def _commit(api: HfApi, repo_id: str, part: Part, create_pr: bool = False) -> str | None:
    """One commit that makes the place of `part` what was staged. Returns where to see it; None if it was so already."""
    kind, branch = ("space", "main") if part.name == "space" else ("model", part.name)
    before = api.repo_info(repo_id, repo_type=kind, revision=branch)
    assert isinstance(before, ModelInfo | SpaceInfo)
    there = {sibling.rfilename for sibling in before.siblings or []}
    wanted = {file.path for file in part.files}
    operations: list[Any] = [CommitOperationAdd(path, part.folder / path) for path in sorted(wanted)]
    own = own_files(_index_there(api, repo_id, before.sha) if kind == "model" and INDEX in there else None)
    gone = [path for path in sorted(there - wanted) if _BESIDE.fullmatch(path) or own.fullmatch(path)]
    operations += [CommitOperationDelete(path) for path in gone]
    commit = api.create_commit(
        repo_id,
        operations,
        commit_message=_MESSAGES[part.name],
        repo_type=kind,
        revision=branch,
        parent_commit=before.sha,
        create_pr=create_pr,
    )
    if commit.oid == before.sha:
        return None
    return commit.pr_url if create_pr else commit.commit_url


def _index_there(api: HfApi, repo_id: str, commit: str | None) -> Path:
    """A folder with the model_index.json that the repo has."""
    return Path(api.hf_hub_download(repo_id, INDEX, revision=commit)).parent


def _info(api: HfApi, repo_id: str, kind: str) -> ModelInfo | SpaceInfo | None:
    """What the Hub knows of a repo, None if there is none. Raises PublishError if it is somebody else's work."""
    try:
        info = api.repo_info(repo_id, repo_type=kind)
    except RepositoryNotFoundError:
        return None
    assert isinstance(info, ModelInfo | SpaceInfo)
    # the Hub itself puts a README.md into a new Space
    empty = {".gitattributes", "README.md"} if kind == "space" else {".gitattributes"}
    files = {sibling.rfilename for sibling in info.siblings or []}
    if not files <= empty and not _is_ours(api, repo_id, kind, files):
        what = "repo" if kind == "model" else "Space"
        raise PublishError(
            f"The {what} {repo_id} is there already and wasn't published by logsnr (it has {_some(files - empty)}); "
            f"its files would be replaced. Take another name, or delete or rename that {what} on its page first."
        )
    return info


def _is_ours(api: HfApi, repo_id: str, kind: str, files: set[str]) -> bool:
    """Whether a repo with these files has our pipeline (`push_to_hub` leaves no more) or our tag on its card."""
    if any(OWN_CODE.fullmatch(name) for name in files):
        return True
    if "README.md" not in files:
        return False
    card = Path(api.hf_hub_download(repo_id, "README.md", repo_type=kind)).read_text(encoding="utf-8")
    head, *_ = card.removeprefix("---").split("\n---")
    return re.search(rf"^\s*- {TAG}\s*$", head, re.MULTILINE) is not None


def _some(files: set[str]) -> str:
    shown = sorted(files)[:3]
    return ", ".join(shown) + (f" and {len(files) - len(shown)} more files" if len(files) > len(shown) else "")


@contextlib.contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Whatever the Hub, the network or the client says, as one line with a cure."""
    try:
        yield
    except LogsnrError:
        raise
    except HfHubHTTPError as error:
        raise PublishError(_refusal(error, repo_id)) from error
    except OfflineModeIsEnabled as error:
        raise PublishError(f"HF_HUB_OFFLINE is set: unset it, {_AGAIN}") from error
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        # the upload of a file fails as a RuntimeError whose cause is the reason
        reason = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        if isinstance(reason, HfHubHTTPError):
            raise PublishError(_refusal(reason, repo_id)) from error
        raise PublishError(
            f"The exchange with {constants.ENDPOINT} broke off ({_one_line(reason)}). See to the network, {_AGAIN}"
        ) from error
    except ValueError as error:
        raise PublishError(f"The Hub refuses what was to be sent: {_one_line(error)}") from error


def _refusal(error: HfHubHTTPError, repo_id: str) -> str:
    status = error.response.status_code
    reason = error.server_message or http.HTTPStatus(status).phrase
    said = f"The Hub answered {status} ({_one_line(reason)})"
    cures = {
        402: "the Hub wants a subscription or a payment for that; without --space it needs none",
        401: "the token isn't valid: make a new one and run `hf auth login` (or set HF_TOKEN)",
        403: f"the token may not write to {repo_id}: take a name of your own, a token that may, or --create-pr",
        404: f"{repo_id} isn't there any more, or the token may not see it",
        409: "the repo is being changed by somebody else: wait a minute",
        412: "the repo was changed in between",
        413: "a file is too large",
        429: "too many requests: wait some minutes",
    }
    cure = cures.get(status, "that is the Hub's own trouble: wait a while" if status >= 500 else "mend that")
    return f"{said}: {cure}, {_AGAIN}"


def _one_line(error: object) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else f"{text[:199]}…"
