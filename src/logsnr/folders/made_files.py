"""A folder of files made of others, with a record in it of what was asked for and what is done.

The record is JSON: `request`, and for each file under `files` the hash of what it was made of, the names of what was
written, and whether that is whole. It is written before a file and after it. So what a killed process leaves behind is
known to be ours; the same request again goes on, another one is refused, and what is there of somebody else is never
written over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from logsnr.base.errors import ConfigError
from logsnr.base.files import read_json, write_atomically
from logsnr.base.words import listed

_FORMAT = 1


class MadeFiles:
    """The record of a folder.

    out: the folder, which needn't be there.
    record: the name of its record, such as restore.json.
    request: what is asked for, as JSON; what it says must have been asked for before in this folder.

    Raises ConfigError where another request made what is in the folder.
    """

    def __init__(self, out: Path, record: str, request: Mapping[str, Any]) -> None:
        self.out, self.path = out, out / record
        self._content: dict[str, Any] = {"format": _FORMAT, "request": dict(request), "files": {}}
        if self.path.is_file():
            found = read_json(self.path)
            found = found if isinstance(found, dict) else {}
            if found.get("format") != _FORMAT or _anything(found, out):
                _require_same(found.get("request", {}), self._content["request"], out, found.get("format"))
                self._content = found

    def is_done(self, name: str, digest: str) -> bool:
        """Whether the file called `name` was made of content with that hash, and all that was written is there."""
        entry = self._content["files"].get(name)
        return (
            entry is not None
            and entry["done"]
            and entry["source"] == digest
            and all((self.out / written).is_file() for written in entry["written"])
        )

    def facts(self, name: str) -> Mapping[str, Any]:
        """What `finish` was told of it."""
        entry: Mapping[str, Any] = self._content["files"][name]
        return entry

    def require_free(self, written: Mapping[str, Sequence[str]]) -> None:
        """Raise ConfigError where two of the files would be written under one name, or one where there is somebody
        else's. `written` has the names of what will be written by the name of the file."""
        by_name: dict[str, str] = {}
        for name, makes in written.items():
            for made in makes:
                if (other := by_name.setdefault(made, name)) != name:
                    raise ConfigError(
                        f"{other} and {name} would both be written as {made}. Give them in two commands, each with an "
                        "--out of its own."
                    )
        ours = {made for entry in self._content["files"].values() for made in entry["written"]}
        if taken := sorted(made for made in by_name if made not in ours and os.path.lexists(self.out / made)):
            raise ConfigError(
                f"--out {self.out} holds files that this command didn't make, and would write over: {listed(taken)}. "
                "Name a new --out."
            )

    def begin(self, digests: Mapping[str, str], written: Mapping[str, Sequence[str]]) -> None:
        """Note what will be written of some files, by name: the hash of each, and the names of what is written."""
        for name, digest in digests.items():
            self._content["files"][name] = {"source": digest, "done": False, "written": list(written[name])}
        self._save()

    def finish(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Note that all of them is written, and facts of each, as JSON."""
        for name, known in facts.items():
            self._content["files"][name] |= {"done": True, **known}
        self._save()

    def _save(self) -> None:
        write_atomically(self.path, json.dumps(self._content, indent=1, ensure_ascii=False) + "\n")


def require_apart(out: Path, inputs: Sequence[Path]) -> None:
    """Raise ConfigError where `out` is no folder, is one that is read from, lies in one or holds one."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out must be a folder, and {out} is a file.")
    real = out.resolve()
    for given in inputs:
        read = given.resolve()
        among = read == real or read in real.parents or real in read.parents if given.is_dir() else read.parent == real
        if among:
            raise ConfigError(
                f"--out must lie apart from the pictures that are read, and {out} is the folder of {given}, holds it "
                f"or lies in it. Take another, as {real.parent / (real.name + '-made')}."
            )


def _anything(found: Mapping[str, Any], out: Path) -> bool:
    """Whether any file is there of those that a record says were written."""
    return any((out / name).exists() for entry in found["files"].values() for name in entry["written"])


def _change(key: str, before: Any, now: Any) -> str:
    if key == "model":
        return "by another model"
    if key == "mask" and before and now:
        return "--mask was another picture"
    was, given = ("not given" if value is None else value for value in (before, now))
    return f"--{key.replace('_', '-')} was {was}, and is {given}"


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path, form: Any) -> None:
    differs = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if form == _FORMAT and not differs:
        return
    changes = ", ".join(_change(key, before.get(key), now.get(key)) for key in differs)
    raise ConfigError(
        f"--out {out} holds what another command made ({changes or 'by another version'}). Name a new --out."
    )
