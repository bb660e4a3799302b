"""A repository as the Hub keeps it: commits with their files, branches and pull requests, in memory.

A commit is immutable and named by the SHA-1 of all that is in it. A ref (`main`, another branch, `refs/pr/1`) is a
name for one. A file is either regular, whose object id is git's SHA-1 of a blob, or large (LFS), whose content lies in
a store under its SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field

LARGE = re.compile(r"\.(safetensors|bin|pt|pth|ckpt|msgpack|npz|npy|zip|gz|pkl|pickle|h5|onnx)$")
MOVED_ON = "A commit has happened since. Please refresh and try again."


class RefusedError(Exception):
    """An answer that isn't success: status, message and the machine-readable `X-Error-Code`."""

    def __init__(self, status: int, message: str, code: str | None = None, **extra: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.extra = status, message, code, extra


@dataclass(frozen=True)
class File:
    """Content of one file at one commit."""

    content: bytes
    large: bool

    @property
    def oid(self) -> str:
        """What the client compares to know whether a file changed."""
        return hashlib.sha256(self.content).hexdigest() if self.large else git_hash(self.content)


@dataclass(frozen=True)
class Commit:
    """One state of the repository, and how it came about."""

    files: dict[str, File]
    parent: str | None
    title: str
    author: str
    number: int
    """How many there were before it, in place of a date: the same files on two branches are two commits."""

    @property
    def sha(self) -> str:
        listing = {path: file.oid for path, file in self.files.items()}
        said = [listing, self.parent, self.title, self.author, self.number]
        return git_hash(json.dumps(said, sort_keys=True).encode())


@dataclass
class Repo:
    """A repository of a type (model, dataset, space) with its history."""

    kind: str
    id: str
    private: bool
    gated: bool = False
    """Seen by all, read by the owner."""
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        attributes = File(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", large=False)
        self._add("main", {".gitattributes": attributes}, None, "initial commit", self.owner)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def _add(self, ref: str, files: dict[str, File], parent: str | None, title: str, author: str) -> str:
        commit = Commit(files, parent, title, author, len(self.commits))
        self.commits[commit.sha] = commit
        self.refs[ref] = commit.sha
        return commit.sha

    def resolve(self, revision: str) -> str:
        """The commit of a branch, a pull request, or of the commit itself."""
        sha = self.refs.get(revision.removeprefix("refs/heads/"), revision)
        if sha not in self.commits:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Every file of a revision by path."""
        return {path: file.content for path, file in self.commits[self.resolve(revision)].files.items()}

    def history(self, revision: str = "main") -> list[Commit]:
        """The commits that led to a revision, the newest first."""
        commits = [self.commits[self.resolve(revision)]]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def add(self, contents: dict[str, bytes], revision: str = "main") -> str:
        """A commit by the owner with these files on top of those that are there; its SHA."""
        head = self.resolve(revision)
        new = {path: File(content, is_large(path, content)) for path, content in contents.items()}
        return self._add(revision, self.commits[head].files | new, head, "add files", self.owner)

    def create_branch(self, name: str, revision: str) -> None:
        if name.startswith("refs/"):
            raise RefusedError(400, f"Invalid reference for a branch: {name}")
        if name in self.refs:
            raise RefusedError(409, f"Reference already exists: {name}")
        self.refs[name] = self.resolve(revision)

    def delete_branch(self, name: str) -> None:
        if name == "main":
            raise RefusedError(403, "Cannot delete the default branch")
        if name not in self.refs:
            raise RefusedError(404, f"Invalid rev id: {name}", "RevisionNotFound")
        del self.refs[name]

    def commit(
        self, revision: str, lines: list[dict[str, object]], author: str, objects: dict[str, bytes], pull_request: bool
    ) -> tuple[str, int | None]:
        """Apply the lines of a commit request, all or none. Returns the commit and the pull request's number."""
        if revision not in self.refs:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head = self.refs[revision]
        files, title = dict(self.commits[head].files), ""
        for line in lines:
            value = line["value"]
            assert isinstance(value, dict)
            if line["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit", head) != head:
                    raise RefusedError(412, MOVED_ON)
            else:
                _apply(files, str(line["key"]), value, objects)
        if not title:
            raise RefusedError(400, "A commit needs a header with a summary")
        number = 1 + sum(ref.startswith("refs/pr/") for ref in self.refs) if pull_request else None
        ref = revision if number is None else f"refs/pr/{number}"
        return self._add(ref, files, head, title, author), number


def _apply(files: dict[str, File], key: str, value: dict[str, str], objects: dict[str, bytes]) -> None:
    path = value["path"]
    if key == "file":
        files[path] = File(_decoded(value), large=False)
    elif key == "lfsFile":
        if value["oid"] not in objects:
            raise RefusedError(400, f"LFS pointer of {path} points to a file that was not uploaded: {value['oid']}")
        files[path] = File(objects[value["oid"]], large=True)
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise RefusedError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    elif key == "deletedFolder":
        folder = path.rstrip("/") + "/"
        gone = [other for other in files if other.startswith(folder)]
        if not gone:
            raise RefusedError(404, f"A folder with this name doesn't exist: {path}", "EntryNotFound")
        for other in gone:
            del files[other]
    else:
        raise RefusedError(400, f"Unknown operation {key}")


def _decoded(value: dict[str, str]) -> bytes:
    assert value["encoding"] == "base64"
    return base64.b64decode(value["content"], validate=True)


def is_large(path: str, sample: bytes) -> bool:
    """Whether a file goes to the store: by its name, and whatever isn't text."""
    return LARGE.search(path) is not None or b"\0" in sample


def git_hash(content: bytes) -> str:
    """Git's name of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
