"""A Hub of our own on 127.0.0.1, for the real client: what of its HTTP interface publishing and loading need.

    with LoopbackHub() as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("ada/digits")

It keeps what it is given in memory (`loopback_repo.py`), as the Hub keeps it: commits, branches, pull requests; large
files in a store of their own, uploaded before the commit that names them; private repositories, tokens, and names it
doesn't accept. `fail` makes requests to come fail, by an error status or by a connection that breaks
(`loopback_wire.py`). The metadata of a README.md is checked in `loopback_card.py`.

`HF_ENDPOINT` and its like are read when huggingface_hub is imported. A new process gets them from
`hub.environment(home)`; one that is there already reads them anew by `enter`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib
import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from loopback_card import complaints
from loopback_repo import Commit, RefusedError, Repo, git_hash, is_large
from loopback_wire import Account, Answer, Call, Wire, json_answer

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
NAME = r"(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"


class LoopbackHub(Wire):
    """The server. `ada` owns `token`, `bob` owns `other_token`; `read_token` is ada's and can't write."""

    owner, other = "ada", "bob"

    def __init__(self) -> None:
        self.token, self.other_token, self.read_token = (f"hf_{secrets.token_hex(16)}" for _ in range(3))
        self.accounts = {
            self.token: Account(self.owner),
            self.other_token: Account(self.other),
            self.read_token: Account(self.owner, "read"),
        }
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        super().__init__()

    def environment(self, home: Path) -> dict[str, str]:
        """Environment variables of a process that uses this Hub, as ada, with its caches in `home`."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_MODULES_CACHE": str(home / "modules"),
            "HF_TOKEN": self.token,
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def repo(self, repo_id: str, kind: str = "model") -> Repo:
        """A repository that is there."""
        return self.repos[kind, repo_id]

    def add(self, repo_id: str, folder: Path, *, private: bool = False) -> Repo:
        """A repository with the files of a folder, as if it had always been there."""
        repo = self.repos["model", repo_id] = Repo("model", repo_id, private)
        repo.add({path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")})
        return repo

    # -- what is asked ------------------------------------------------------------------------------------------------

    def answer(self, call: Call) -> Answer:
        for methods, pattern, function in ROUTES:
            match = re.fullmatch(pattern, call.path)
            if match and call.method in methods.split("|"):
                return function(self, call, **{k: v and unquote(v) for k, v in match.groupdict().items()})
        return Answer(404, {"X-Error-Message": "Sorry, we can't find the page you are looking for."})

    def create(self, call: Call) -> Answer:
        wanted = call.json()
        account = _known(call)
        namespace, kind = wanted.get("organization") or account.name, wanted.get("type") or "model"
        repo_id = f"{namespace}/{wanted['name']}"
        if not re.fullmatch(NAME, wanted["name"]) or wanted["name"].endswith((".git", ".ipynb")):
            raise RefusedError(400, f"Invalid repo name: {wanted['name']}")
        if kind == "space" and wanted.get("sdk") not in ("gradio", "docker", "static"):
            raise RefusedError(400, '"sdk" is required')
        if namespace != account.name or account.role != "write":
            raise RefusedError(
                403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"', "Forbidden"
            )
        url = f"{self.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
        if (kind, repo_id) in self.repos:
            raise RefusedError(409, f"You already created this {kind} repo", url=url)
        self.repos[kind, repo_id] = Repo(kind, repo_id, private=wanted.get("visibility") == "private")
        return json_answer({"url": url, "name": repo_id, "id": repo_id})

    def delete(self, call: Call) -> Answer:
        wanted = call.json()
        repo = self._find(call, wanted.get("type") or "model", f"{wanted['organization']}/{wanted['name']}")
        _may_write(call, repo)
        del self.repos[repo.kind, repo.id]
        return Answer()

    def whoami(self, call: Call) -> Answer:
        account = _known(call)
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": account.role}}
        return json_answer({"type": "user", "name": account.name, "fullname": account.name, "orgs": [], "auth": token})

    def validate_yaml(self, call: Call) -> Answer:
        wanted = call.json()
        errors, warnings = complaints(wanted["content"], wanted["repoType"])
        body = {"errors": [{"message": e} for e in errors], "warnings": [{"message": w} for w in warnings]}
        return json_answer(body, 400 if errors else 200)

    def info(self, call: Call, kind: str, repo: str, revision: str | None = None) -> Answer:
        found = self._find(call, KINDS[kind], repo)
        sha = found.resolve(revision or "main")
        files = found.commits[sha].files
        body = {"id": repo, "modelId": repo, "author": found.owner, "sha": sha, "private": found.private, "tags": []}
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(files)]
        if "blobs" in call.query:
            siblings = [{"rfilename": e.pop("path"), "blobId": e.pop("oid"), **e} for e in _entries(files)]
        return json_answer({**body, "siblings": siblings, "gated": False, "disabled": False})

    def tree(self, call: Call, kind: str, repo: str, revision: str, path: str | None = None) -> Answer:
        found = self._find(call, KINDS[kind], repo)
        files = found.commits[found.resolve(revision)].files
        prefix = f"{path}/" if path else ""
        inside = {name: file for name, file in files.items() if name.startswith(prefix)}
        if path and not inside:
            raise RefusedError(404, f"{path} does not exist on {revision}", "EntryNotFound")
        folders = {str(p) for name in inside for p in Path(name).parents if str(p) != "." and str(p) != path}
        entries = _entries(inside) + [{"type": "directory", "oid": git_hash(f.encode()), "path": f} for f in folders]
        if call.query.get("recursive", ["false"])[0].lower() != "true":
            entries = [e for e in entries if "/" not in e["path"].removeprefix(prefix)]
        return json_answer(sorted(entries, key=lambda e: e["path"]))

    def paths_info(self, call: Call, kind: str, repo: str, revision: str) -> Answer:
        found = self._find(call, KINDS[kind], repo)
        files = found.commits[found.resolve(revision)].files
        wanted = parse_qs(call.body.decode())["paths"]
        return json_answer(_entries({path: files[path] for path in wanted if path in files}))

    def list_refs(self, call: Call, kind: str, repo: str) -> Answer:
        found = self._find(call, KINDS[kind], repo)
        pulls = [{"name": r, "ref": r, "targetCommit": s} for r, s in found.refs.items() if r.startswith("refs/")]
        heads = [
            {"name": r, "ref": f"refs/heads/{r}", "targetCommit": s}
            for r, s in found.refs.items()
            if not r.startswith("refs/")
        ]
        return json_answer({"branches": heads, "tags": [], "converts": [], "pullRequests": pulls})

    def list_commits(self, call: Call, kind: str, repo: str, revision: str) -> Answer:
        def described(commit: Commit) -> dict[str, Any]:
            authors = [{"user": commit.author}]
            date = "2026-01-01T00:00:00.000Z"
            return {"id": commit.sha, "title": commit.title, "message": "", "authors": authors, "date": date}

        return json_answer([described(c) for c in self._find(call, KINDS[kind], repo).history(revision)])

    def branch(self, call: Call, kind: str, repo: str, name: str) -> Answer:
        found = self._find(call, KINDS[kind], repo)
        _may_write(call, found)
        if call.method == "DELETE":
            found.delete_branch(name)
        else:
            found.create_branch(name, call.json().get("startingPoint", "main"))
        return Answer()

    def settings(self, call: Call, kind: str, repo: str) -> Answer:
        found = self._find(call, KINDS[kind], repo)
        _may_write(call, found)
        found.private = call.json().get("visibility", "private" if found.private else "public") == "private"
        return json_answer({})

    def preupload(self, call: Call, kind: str, repo: str, revision: str) -> Answer:
        found = self._find(call, KINDS[kind], repo)
        _may_write(call, found)
        there = found.commits[found.resolve(revision)].files
        files = []
        for wanted in call.json()["files"]:
            path = wanted["path"]
            mode = "lfs" if is_large(path, _unbase64(wanted["sample"])) else "regular"
            entry = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            files.append(entry | ({"oid": there[path].oid} if path in there else {}))
        return json_answer({"files": files})

    def commit(self, call: Call, kind: str, repo: str, revision: str) -> Answer:
        found = self._find(call, KINDS[kind], repo)
        _may_write(call, found)
        lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
        for line in lines:
            if line["key"] == "file" and line["value"]["path"] == "README.md":
                errors, _ = complaints(_unbase64(line["value"]["content"]).decode(), found.kind)
                if errors:
                    raise RefusedError(400, "\n".join(errors))
        sha, number = found.commit(revision, lines, _known(call).name, self.objects, "create_pr" in call.query)
        url = f"{self.endpoint}/{'' if kind == 'models' else kind + '/'}{repo}"
        pull = {} if number is None else {"pullRequestUrl": f"{url}/discussions/{number}"}
        return json_answer(
            {"success": True, "commitOid": sha, "commitUrl": f"{url}/commit/{sha}", "hookOutput": "", **pull}
        )

    def lfs_batch(self, call: Call, repo: str, kind: str | None = None) -> Answer:
        found = self._find(call, KINDS[kind or "models"], repo)
        _known(call)
        if "ref" in call.json():  # without: for a pull request, which anybody may open
            _may_write(call, found)
        objects: list[dict[str, Any]] = []
        for wanted in call.json()["objects"]:
            upload = {"href": f"{self.endpoint}/lfs/{wanted['oid']}?signature={secrets.token_hex(8)}"}
            verify = {"href": f"{self.endpoint}/lfs/verify"}
            there = wanted["oid"] in self.objects
            objects.append(wanted | ({} if there else {"actions": {"upload": upload, "verify": verify}}))
        return json_answer({"transfer": "basic", "objects": objects})

    def lfs_put(self, call: Call, oid: str) -> Answer:
        if hashlib.sha256(call.body).hexdigest() != oid:
            raise RefusedError(400, "The content isn't what its name says")
        self.objects[oid] = call.body
        return Answer()

    def lfs_verify(self, call: Call) -> Answer:
        wanted = call.json()
        if len(self.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise RefusedError(404, "Object not found")
        return Answer()

    def resolve(self, call: Call, repo: str, revision: str, path: str, kind: str | None = None) -> Answer:
        found = self._find(call, KINDS[kind or "models"], repo)
        sha = found.resolve(revision)
        if found.gated and (call.account is None or call.account.name != found.owner):
            raise RefusedError(403, f"Access to model {repo} is restricted", "GatedRepo")
        if path not in found.commits[sha].files:
            raise RefusedError(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": sha})
        file = found.commits[sha].files[path]
        return Answer(200, {"X-Repo-Commit": sha, "ETag": f'"{file.oid}"'}, file.content)

    def _find(self, call: Call, kind: str, repo_id: str) -> Repo:
        """The repository, which to those who may not read it doesn't exist."""
        repo = self.repos.get((kind, repo_id))
        mine = repo is not None and call.account is not None and call.account.name == repo.owner
        if repo is None or (repo.private and not mine):
            status = 401 if call.account is None else 404
            raise RefusedError(
                status, "Invalid username or password." if status == 401 else "Repository not found", "RepoNotFound"
            )
        return repo


Route = tuple[str, str, Callable[..., Answer]]
_API = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"
_WEB = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)"
ROUTES: list[Route] = [
    ("POST", "/api/repos/create", LoopbackHub.create),
    ("DELETE", "/api/repos/delete", LoopbackHub.delete),
    ("GET", "/api/whoami-v2", LoopbackHub.whoami),
    ("POST", "/api/validate-yaml", LoopbackHub.validate_yaml),
    ("GET", _API, LoopbackHub.info),
    ("GET", _API + "/revision/(?P<revision>[^/]+)", LoopbackHub.info),
    ("GET", r"/api/(?P<kind>models)/(?P<repo>[^/]+)(?:/revision/(?P<revision>[^/]+))?", LoopbackHub.info),
    ("GET", _API + "/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", LoopbackHub.tree),
    ("POST", _API + "/paths-info/(?P<revision>[^/]+)", LoopbackHub.paths_info),
    ("GET", _API + "/refs", LoopbackHub.list_refs),
    ("GET", _API + "/commits/(?P<revision>[^/]+)", LoopbackHub.list_commits),
    ("POST|DELETE", _API + "/branch/(?P<name>[^/]+)", LoopbackHub.branch),
    ("PUT", _API + "/settings", LoopbackHub.settings),
    ("POST", _API + "/preupload/(?P<revision>[^/]+)", LoopbackHub.preupload),
    ("POST", _API + "/commit/(?P<revision>[^/]+)", LoopbackHub.commit),
    ("POST", _WEB + r"\.git/info/lfs/objects/batch", LoopbackHub.lfs_batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", LoopbackHub.lfs_put),
    ("POST", "/lfs/verify", LoopbackHub.lfs_verify),
    ("GET|HEAD", _WEB + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)", LoopbackHub.resolve),
]


def _known(call: Call) -> Account:
    if call.account is None:
        raise RefusedError(401, "Invalid username or password.")
    return call.account


def _may_write(call: Call, repo: Repo) -> None:
    account = _known(call)
    if account.role != "write":
        raise RefusedError(403, "Your token only has read access", "Forbidden")
    if account.name != repo.owner and "create_pr" not in call.query:
        raise RefusedError(
            403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request", "Forbidden"
        )


def _entries(files: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Files as a listing has them."""
    entries = []
    for path, file in files.items():
        entry = {"type": "file", "oid": git_hash(file.content), "size": len(file.content), "path": path}
        if file.large:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.oid}\nsize {len(file.content)}\n"
            lfs = {"oid": file.oid, "sha256": file.oid, "size": len(file.content), "pointerSize": len(pointer)}
            entry |= {"oid": git_hash(pointer.encode()), "lfs": lfs}
        entries.append(entry)
    return entries


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text)


@contextlib.contextmanager
def entered(environment: Mapping[str, str]) -> Iterator[None]:
    """`enter` for the time of a block."""
    before = {name: os.environ.get(name) for name in environment}
    enter(environment)
    yield
    enter(before)


def enter(environment: Mapping[str, str | None]) -> None:
    """In a process that has imported huggingface_hub: set these variables (None removes one) and read them anew."""
    from diffusers.utils import dynamic_modules_utils
    from huggingface_hub import constants, hf_api
    from huggingface_hub.utils import close_session

    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    importlib.reload(constants)
    hf_api.api.endpoint = constants.ENDPOINT
    while dynamic_modules_utils.HF_MODULES_CACHE in sys.path:  # or what is loaded next is looked for in the old place
        sys.path.remove(dynamic_modules_utils.HF_MODULES_CACHE)
    dynamic_modules_utils.HF_MODULES_CACHE = os.environ.get("HF_MODULES_CACHE", f"{constants.HF_HOME}/modules")
    for name in [name for name in sys.modules if name.split(".")[0] == "diffusers_modules"]:
        del sys.modules[name]
    close_session()
