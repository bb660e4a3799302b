"""A Hub of our own on 127.0.0.1, for the real client: what of its HTTP interface publishing and loading need.

    with LoopbackHub() as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("ada/digits")

It keeps what it is given in memory (`loopback_repo.py`), as the Hub keeps it: commits, branches, pull requests; large
files in a store of their own, uploaded before the commit that names them; private repositories, tokens, and names it
doesn't accept. `fail` makes requests to come fail, by an error status or by a connection that breaks.

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
import socket
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from loopback_card import complaints
from loopback_repo import Commit, RefusedError, Repo, git_hash, is_large

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
NAME = r"(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"


@dataclass(frozen=True)
class Account:
    """Whom a token stands for."""

    name: str
    role: Literal["write", "read"] = "write"


@dataclass
class Fault:
    """What goes wrong with the requests that match, after `skip` of them, `times` times."""

    method: str
    path: str
    how: int | Literal["cut request", "cut answer"]
    skip: int
    times: int

    def strikes(self, method: str, path: str) -> bool:
        if self.times == 0 or not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Request:
    """One request as it came, and the status that it was answered with (0: not at all)."""

    method: str
    path: str
    status: int


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Call:
    """A request, read."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    account: Account | None

    def json(self) -> Any:
        return json.loads(self.body)


class LoopbackHub:
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
        self.requests: list[Request] = []
        self.errors: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.connections: set[socket.socket] = set()
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, after `stop` at the same address as before."""
        self.server = _Server(("127.0.0.1", self.port), self)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """No network any more: open connections break, new ones are refused."""
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.connections):
            _break(connection)

    def __enter__(self) -> LoopbackHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

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

    def fail(
        self,
        method: str,
        path: str,
        how: int | Literal["cut request", "cut answer"],
        *,
        skip: int = 0,
        times: int = 1,
    ) -> None:
        """Make requests to come fail, those whose method and path (regular expressions) match.

        how: a status such as 429 or 500; "cut request" breaks the connection in the middle of what the client sends,
            and nothing is done; "cut answer" does what is asked and breaks it in the middle of the answer.
        skip: let so many pass first; times: as often. The client itself tries again after a second, where it does.
        """
        self.faults.append(Fault(method, path, how, skip, times))

    def repo(self, repo_id: str, kind: str = "model") -> Repo:
        """A repository that is there."""
        return self.repos[kind, repo_id]

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests so far whose method and path (regular expressions) match."""
        return [r for r in self.requests if re.fullmatch(method, r.method) and re.search(path, r.path)]

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
        return _json({"url": url, "name": repo_id, "id": repo_id})

    def delete(self, call: Call) -> Answer:
        wanted = call.json()
        repo = self._find(call, wanted.get("type") or "model", f"{wanted['organization']}/{wanted['name']}")
        _may_write(call, repo)
        del self.repos[repo.kind, repo.id]
        return Answer()

    def whoami(self, call: Call) -> Answer:
        account = _known(call)
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": account.role}}
        return _json({"type": "user", "name": account.name, "fullname": account.name, "orgs": [], "auth": token})

    def validate_yaml(self, call: Call) -> Answer:
        wanted = call.json()
        errors, warnings = complaints(wanted["content"], wanted["repoType"])
        body = {"errors": [{"message": e} for e in errors], "warnings": [{"message": w} for w in warnings]}
        return _json(body, 400 if errors else 200)

    def info(self, call: Call, kind: str, repo: str, revision: str | None = None) -> Answer:
        found = self._find(call, KINDS[kind], repo)
        sha = found.resolve(revision or "main")
        files = found.commits[sha].files
        body = {"id": repo, "modelId": repo, "author": found.owner, "sha": sha, "private": found.private, "tags": []}
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(files)]
        if "blobs" in call.query:
            siblings = [{"rfilename": e.pop("path"), "blobId": e.pop("oid"), **e} for e in _entries(files)]
        return _json({**body, "siblings": siblings, "gated": False, "disabled": False})

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
        return _json(sorted(entries, key=lambda e: e["path"]))

    def paths_info(self, call: Call, kind: str, repo: str, revision: str) -> Answer:
        found = self._find(call, KINDS[kind], repo)
        files = found.commits[found.resolve(revision)].files
        wanted = parse_qs(call.body.decode())["paths"]
        return _json(_entries({path: files[path] for path in wanted if path in files}))

    def list_refs(self, call: Call, kind: str, repo: str) -> Answer:
        found = self._find(call, KINDS[kind], repo)
        pulls = [{"name": r, "ref": r, "targetCommit": s} for r, s in found.refs.items() if r.startswith("refs/")]
        heads = [
            {"name": r, "ref": f"refs/heads/{r}", "targetCommit": s}
            for r, s in found.refs.items()
            if not r.startswith("refs/")
        ]
        return _json({"branches": heads, "tags": [], "converts": [], "pullRequests": pulls})

    def list_commits(self, call: Call, kind: str, repo: str, revision: str) -> Answer:
        def described(commit: Commit) -> dict[str, Any]:
            authors = [{"user": commit.author}]
            date = "2026-01-01T00:00:00.000Z"
            return {"id": commit.sha, "title": commit.title, "message": "", "authors": authors, "date": date}

        return _json([described(c) for c in self._find(call, KINDS[kind], repo).history(revision)])

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
        return _json({})

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
        return _json({"files": files})

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
        return _json({"success": True, "commitOid": sha, "commitUrl": f"{url}/commit/{sha}", "hookOutput": "", **pull})

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
        return _json({"transfer": "basic", "objects": objects})

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


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(value).encode())


def _refusal(refused: RefusedError) -> Answer:
    """An error as the Hub words it: the message in a header and in the body."""
    headers = {"X-Error-Message": refused.message.splitlines()[0]}
    if refused.code is not None:
        headers["X-Error-Code"] = refused.code
    body = {"error": refused.message} | {k: v for k, v in refused.extra.items() if not k.startswith("X-")}
    answer = _json(body, refused.status)
    answer.headers |= headers | {k: v for k, v in refused.extra.items() if k.startswith("X-")}
    return answer


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side may have been first
        connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], hub: LoopbackHub) -> None:
        self.hub = hub
        super().__init__(address, _Handler)

    def handle_error(self, *_: object) -> None:
        """A client that went away is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.server.hub.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Nothing: `requests` is the log."""

    def _handle(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        with hub.lock:
            fault = next((f.how for f in hub.faults if f.strikes(self.command, url.path)), None)
        if fault == "cut request":
            self.rfile.read1(1000)
            self._end(Request(self.command, self.path, 0))
            return
        body = self._body()
        answer = (
            Answer(fault, {"Retry-After": "0"}) if isinstance(fault, int) else self._answer(url.path, url.query, body)
        )
        content = b"" if self.command == "HEAD" else answer.body
        if fault == "cut answer":
            content = content[: len(content) // 2]
        head = [f"HTTP/1.1 {answer.status} -", f"Content-Length: {len(answer.body)}", "X-Request-Id: loopback"]
        head += [f"{name}: {value}" for name, value in answer.headers.items()]
        hub.requests.append(Request(self.command, self.path, 0 if fault == "cut answer" else answer.status))
        self.wfile.write("\r\n".join([*head, "", ""]).encode() + content)
        if fault == "cut answer":
            self._end(None)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _answer(self, path: str, query: str, body: bytes) -> Answer:
        hub = self.server.hub
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            if token and token not in hub.accounts:
                raise RefusedError(401, "Invalid credentials in Authorization header")
            call = Call(self.command, path, parse_qs(query), self.headers, body, hub.accounts.get(token))
            with hub.lock:
                return hub.answer(call)
        except RefusedError as refused:
            return _refusal(refused)
        except Exception:
            hub.errors.append(traceback.format_exc())
            return Answer(500)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _end(self, request: Request | None) -> None:
        if request is not None:
            self.server.hub.requests.append(request)
        self.close_connection = True
        _break(self.connection)


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
    dynamic_modules_utils.HF_MODULES_CACHE = os.environ.get("HF_MODULES_CACHE", f"{constants.HF_HOME}/modules")
    close_session()
