"""What is known of the files that travel: those of schedulers/, pipelines/ and space/, and what each may import."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

TOP = Path(__file__).parents[1]
_EVERYWHERE = {"torch", "numpy", "diffusers", *sys.stdlib_module_names}
# PIL and huggingface_hub come with diffusers
ALLOWED = {
    "schedulers": _EVERYWHERE,
    "pipelines": _EVERYWHERE | {"PIL", "transformers"},
    # the last four lie beside the app
    "space": _EVERYWHERE | {"PIL", "gradio", "huggingface_hub", "easel", "edit", "repair", "write"},
}
"""By room, the packages whose modules its files may import."""
SCHEDULERS = sorted((TOP / "schedulers").glob("scheduling_*.py"))
PIPELINES = sorted((TOP / "pipelines").glob("pipeline_*.py"))
FILES = [path for room in ALLOWED for path in sorted((TOP / room).glob("*.py")) if path.name != "__init__.py"]


def imported_packages(file: Path) -> set[str]:
    """Top-level names of every import statement, wherever it stands; none for a file beside it in the same room."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            beside = node.level in (1, 2) and _beside(file, node).is_file()
            names |= set() if beside else {"." * node.level if node.level else str(node.module).split(".")[0]}
    return names


def helpers(file: Path) -> set[str]:
    """The files, without their ending, that a pipeline loads from beside itself, or from a room beside its own.

    They travel with it, and stand beside it then. The latter have a dot before the room's name.
    """
    nodes = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {"." * (node.level - 1) + str(node.module) for node in nodes if node.level}


def _beside(file: Path, node: ast.ImportFrom) -> Path:
    """The file that a relative import means: in the same room, or a scheduler of a pipeline."""
    return file.parents[node.level - 1].joinpath(*str(node.module).split(".")).with_suffix(".py")


def load_alone(file: Path) -> ModuleType:
    """The module of a file, under its own name and not as a part of a package; what it loads, in one of no name."""
    if helpers(file):
        beside = sys.modules["beside"] = ModuleType("beside")
        beside.__path__ = [str(TOP)]
        module = importlib.import_module(f"beside.{file.parent.name}.{file.stem}")
        sys.modules[file.stem] = module
        return module
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
