"""Nothing of the author's machine goes to others: a search of what is about to be published, file by file.

Found are: the home folder, absolute paths, tokens (of the Hub, and whatever the environment calls a token, key, secret
or password) and, but for source files, the name of the user and of the machine. A name that is also a word of the
card, a class or the repo says nothing of anybody, and isn't found.

All the text that a published file can hold is searched: that of JSON, Markdown and Python files, what PNGs hold beside
their pixels, and the metadata of safetensors. Other kinds of files aren't published.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import get_token
from PIL import Image

from logsnr.base.errors import PublishError

_PATH = re.compile(
    r"(?<![\w/.:<>)\]}-])/(?:[\w.@+-]+/)+[\w.@+-]+"  # /two/names or more, not in a URL or a relative path
    r"|^/\w\S*"  # a whole string of a JSON file
    r"|(?<!\w)~\w*/\w|(?<!\w)[A-Za-z]:\\\w|file:/|\\\\\w+\\\w",
    re.MULTILINE,
)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY", re.IGNORECASE)
_SHORTEST_SECRET = 8


def refuse_leaks(folder: Path, public: set[str]) -> None:
    """Raise `PublishError` naming the first file under `folder` that says something of this machine.

    public: words that a name may be without saying anything.
    """
    secrets = _secrets()
    names = {name for name in _names() if name not in public}
    # the card last: what it says comes from the others
    for path in sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (p.suffix == ".md", p)):
        text = _text(path)
        for what, found in _findings(path, text, secrets, names):
            raise PublishError(
                f"{path.relative_to(folder)} has {what}{f' ({found})' if found else ''}, which is nobody else's "
                "business. Nothing was published. Take it out of the run, then publish again."
            )


def _findings(path: Path, text: str, secrets: set[str], names: set[str]) -> Iterator[tuple[str, str]]:
    """What is wrong, and the words found; a secret isn't repeated."""
    if _TOKEN.search(text) or any(secret in text for secret in secrets):
        yield "a token, key or password", ""
    home = str(Path.home())
    if len(home) > 1 and re.search(re.escape(home) + r"(?!\w)", text):
        yield "your home folder", home
    if match := _PATH.search(text):
        yield "a path of this machine", match[0]
    if path.suffix != ".py":
        for name in sorted(names):
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
                yield "the name of this user or machine", name


def _secrets() -> set[str]:
    values = {value for name, value in os.environ.items() if _SECRET.search(name)} | {get_token() or ""}
    return {value for value in values if len(value) >= _SHORTEST_SECRET}


def _names() -> set[str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no entry
        user = ""
    host = socket.gethostname()
    return {name for name in (user, host, host.split(".")[0]) if len(name) > 1}


def _text(path: Path) -> str:
    """What is to be searched; each string of a JSON file on a line of its own, as it is without JSON's escapes."""
    if path.suffix in (".md", ".py", ".txt"):
        return path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return "\n".join(_strings(json.loads(path.read_text(encoding="utf-8"))))
    if path.suffix == ".png":
        with Image.open(path) as image:
            return "\n".join(_strings({key: str(value) for key, value in image.info.items()}))
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            return "\n".join(_strings(json.loads(file.read(length)).get("__metadata__", {})))
    raise PublishError(f"{path.name} isn't a kind of file that is published.")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
