"""Nothing of the author's machine goes to others: a search of what is about to be published, file by file.

Found are: the home folder, absolute paths, tokens (of the Hub, and whatever the environment calls a token, key, secret
or password) and, but for source files, the name of the user and of the machine. A name that is also a word of the
card, a class or the repo says nothing of anybody, and isn't found; nor is one that diffusers and we write into every
model's files, such as `default`, `silu` or `cosine`. A class may be called like a path, if there is no such path here.

All the text that a published file can hold is searched: that of JSON, Markdown and Python files, what PNGs hold beside
their pixels, and the metadata of safetensors. Other kinds of files aren't published.
"""

from __future__ import annotations

import ast
import getpass
import inspect
import json
import os
import re
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from diffusers.configuration_utils import ConfigMixin
from diffusers.models.activations import get_activation
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from huggingface_hub import get_token
from PIL import Image

import logsnr
from logsnr.base.errors import PublishError
from logsnr.publishing.markdown import prose

_PATH = re.compile(
    r"(?<![\w/.:<>)\]}-])/(?:[\w.@+-]+/)+[\w.@+-]+"  # /two/names or more, not in a URL or a relative path
    r"|^/\w\S*"  # a whole string of a JSON file
    r"|(?<!\w)~\w*/\w|(?<!\w)[A-Za-z]:\\\w|file:/|\\\\\w+\\\w",
    re.MULTILINE,
)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY", re.IGNORECASE)
_SHORTEST_SECRET = 8


def refuse_leaks(folder: Path, public: set[str], classes: Collection[str] = ()) -> None:
    """Raise `PublishError` naming the first file under `folder` that says something of this machine.

    public: words that a name may be without saying anything.
    classes: their names, which may look like a path or be called like the user.
    """
    secrets = _secrets()
    public = public | set(classes) | _words_of_files()
    names = {what: found - public for what, found in _names().items()}
    allowed = {match[0].rstrip(".") for name in classes for said in (name, prose(name)) for match in _no_paths(said)}
    # the card last: what it says comes from the others
    for path in sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (p.suffix == ".md", p)):
        text = _text(path)
        for what, found, cure in _findings(path, text, secrets, names, allowed):
            raise PublishError(
                f"{path.relative_to(folder)} has {what}{f' ({found})' if found else ''}, which would be read by "
                f"everybody. Nothing was published. {cure}"
            )


def _findings(
    path: Path, text: str, secrets: set[str], names: dict[str, set[str]], allowed: set[str]
) -> Iterator[tuple[str, str, str]]:
    """What is wrong, the words found, and what to do; a secret isn't repeated."""
    cure = "Take it out of the run (is it the name of a class, rename that), then publish again."
    if _TOKEN.search(text) or any(secret in text for secret in secrets):
        yield "a token, key or password", "", cure
    home = str(Path.home())
    if len(home) > 1 and re.search(re.escape(home) + r"(?!\w)", text):
        yield "your home folder", home, cure
    for match in _PATH.finditer(text):
        if match[0].rstrip(".") not in allowed:  # which may end a sentence
            yield "a path of this machine", match[0], cure
    if path.suffix != ".py":
        for what, found in names.items():
            for name in sorted(found):
                if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
                    meant = " If it is an ordinary word there, run the same command with LOGNAME=somebody before it."
                    yield f"the name of this {what}", name, cure + (meant if what == "user" else "")


def _no_paths(name: str) -> Iterator[re.Match[str]]:
    """What looks like a path in the name of a class, and is none: nothing is there, nor where people's folders are."""
    for match in _PATH.finditer(name):
        top = match[0].split("/")[1] if match[0].startswith("/") else ""
        if top and top.lower() not in ("home", "users", "root") and not Path("/", top).exists():
            yield match


def _words_of_files() -> set[str]:
    """Words that diffusers and we put into files by ourselves: names of settings, and the words of strings.

    They are those of the source text without its docstrings, which nobody publishes.
    """
    theirs = (UNet2DModel, DDPMScheduler, DDIMScheduler, ConfigMixin, get_activation)
    files = [*Path(logsnr.__file__).parent.rglob("*.py"), *(Path(inspect.getfile(each)) for each in theirs)]
    found: set[str] = set()
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                found.update(re.findall(r"\w+", node.value))
    return found


def _secrets() -> set[str]:
    values = {value for name, value in os.environ.items() if _SECRET.search(name)} | {get_token() or ""}
    return {value for value in values if len(value) >= _SHORTEST_SECRET}


def _names() -> dict[str, set[str]]:
    """What the user and the machine are called."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no entry
        user = ""
    host = socket.gethostname()
    named = {"user": {user}, "machine": {host, host.split(".")[0]}}
    return {what: {name for name in found if len(name) > 1} for what, found in named.items()}


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
