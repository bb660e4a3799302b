"""Folders that bring their code along: a pipeline's own files in the model folder that it writes, and the repo's card.

Stock diffusers loads code from a folder with `trust_remote_code=True`. What is written is read again on other machines,
so nothing in it names a folder of this one.

This file stands alone: it is copied beside the pipelines that use it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

_EMPTY_FORM = "This model card has been automatically generated."
_OF_THIS_MACHINE = {"_name_or_path", "name_or_path", "is_local", "local_files_only"}
_TRAVELS_WITH = {"torch", "numpy", "PIL", "diffusers", "transformers", *sys.stdlib_module_names}


class OwnCard:
    """The part of a `DiffusionPipeline` that says in a new repo of the Hub what the model is."""

    def _upload_folder(self, working_dir: str | os.PathLike[Any], repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """The last step of `push_to_hub`: a repo without a card gets one of ours in place of diffusers' empty form."""
        card = Path(working_dir) / "README.md"
        if card.is_file() and _EMPTY_FORM in card.read_text(encoding="utf-8"):
            card.write_text(self._card(repo_id), encoding="utf-8")
        return super()._upload_folder(working_dir, repo_id, *args, **kwargs)  # type: ignore[misc]

    def _card(self, repo_id: str) -> str:
        """What a repo of this name says of the model, in Markdown."""
        raise NotImplementedError


def warn_of_ddpm(cls: type, reason: str, cure: str) -> None:
    """Say that another scheduler is written than the pipeline's own."""
    warnings.warn(f"{cls.__name__} is saved as DDPMScheduler with the same betas: {reason}; {cure}.", stacklevel=2)


def sources(cls: type) -> dict[str, bytes] | None:
    """The file of a class and those that it loads from beside itself, by their names in a model folder; its own first.

    Names are made of the content, since the loader keeps the files of all repos in one place. None where a file imports
    anything but torch, numpy, PIL, diffusers, transformers and the standard library.
    """
    if cls.__module__ == "__main__":
        return None
    try:
        own = Path(inspect.getsourcefile(cls) or "")
        text = own.read_bytes().decode()
        found = re.findall(r"^from \.(\.schedulers\.)?(\w+) import ", text, re.MULTILINE)
        # a scheduler stands in a room of its own here, and beside its pipeline in a folder
        text = re.sub(r"^from \.\.schedulers\.", "from .", text, flags=re.MULTILINE)
        beside = {stem: own.parent / ("../schedulers" if room else ".") / f"{stem}.py" for room, stem in found}
        helpers = {stem: path.read_bytes().decode() for stem, path in beside.items()}
    except (TypeError, OSError):
        return None
    if not imported(text) <= _TRAVELS_WITH | {f".{stem}" for stem in beside}:
        return None
    if not all(imported(helper) <= _TRAVELS_WITH for helper in helpers.values()):
        return None
    files = {}
    for stem, helper in helpers.items():
        name = _named(stem, helper)
        files[f"{name}.py"] = helper.encode()
        text = re.sub(rf"^from \.{stem} import ", f"from .{name} import ", text, flags=re.MULTILINE)
    return {f"{_named(own.stem, text)}.py": text.encode(), **files}


def imported(text: str) -> set[str]:
    """The packages that a file imports, and with a dot before them the files beside it."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            found.add("." * node.level + name if node.level else name.split(".")[0])
    return found


def _named(stem: str, text: str) -> str:
    return f"{re.sub(r'_[0-9a-f]{8}$', '', stem)}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def rewrite_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write what `change` makes of the object in a JSON file."""
    content = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def forget_machine(path: Path) -> None:
    """Leave out of a JSON file what names this machine's folders, where there is such a file."""
    if path.is_file():
        rewrite_json(path, lambda content: {k: v for k, v in content.items() if k not in _OF_THIS_MACHINE})
