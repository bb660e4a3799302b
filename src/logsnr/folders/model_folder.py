"""The layout of a model folder, in one place: what `save_pretrained` writes, `from_pretrained` reads and the Hub gets.

    RUN/model/   model_index.json        the pipeline's class, and for each component its library and class
                 tokenizer….json         of a model that writes texts: what its tokens stand for
                 pipeline_pixel_….py     the pipeline's code, where it travels: the name is made of the content
                 pixel_sampling_….py     what that code loads from beside itself
                 unet/                   config.json, *.safetensors, and code where the class isn't one of diffusers':
                                         the component that learned, by the name that its kind of data gives it
                 scheduler/              scheduler_config.json, and code where its class isn't one of diffusers'
                 scheduler_few_step/     tables that `logsnr tune` made; no component, so that stock loads the folder
                 pipeline_restoration_….py, restoration_….py   what repairs with the model, where it is published
    RUN/stock/   the form for stock diffusers, of a model that has two
    RUN/guide/   as RUN/model/: the model as it was early in training, where train.keep_guide says when

Each component has a folder of its name. What the others of this package must know of the layout they ask here.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import safe_open

from logsnr.base.errors import ModelError
from logsnr.base.files import digest_of
from logsnr.base.quiet import without_bars

MODEL, STOCK, GUIDE = "model", "stock", "guide"
"""In a run folder: the model, its form for stock diffusers, and the model as it was early in training."""
INDEX = "model_index.json"
NETWORK = "unet"
"""The component that is trained, of images."""
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
PROMPTS = "prompts.json"
"""What a model that is told a text can be asked for, for whoever has no idea."""
TOKENIZER = "tokenizer.json"
"""The tokens of a model that writes texts; they stand beside its index, for stock's pipeline can't load them."""
_TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json")
FEW_STEP_FOLDER = "scheduler_few_step"
"""The tables that `logsnr tune` made, as a scheduler beside the model's own."""
FEW_STEP_CONFIG = f"{FEW_STEP_FOLDER}/scheduler_config.json"

_TRAVELLING = [
    path.stem
    for room, pattern in (("pipelines", "[a-z]*.py"), ("schedulers", "scheduling_*.py"))
    for path in sorted((Path(__file__).parent.parent / room).glob(pattern))
]
OWN_CODE = re.compile(rf"({'|'.join(_TRAVELLING)})_[0-9a-f]{{8}}\.py")
"""The name that a pipeline's file, or one that it needs, has in the folders that it travels in."""
REPAIR_CODE = re.compile(r"(pipeline_)?restoration(_[a-z]+)?_[0-9a-f]{8}\.py")
"""Those of them that repair with a model of another pipeline."""
_CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "tokenizer.json")
_DATA = (*_CONFIGS, "*.safetensors", "*.safetensors.index.json")
_ALONE = "torch, numpy, PIL, diffusers, transformers and the standard library"
_TRAVELS_WITH = {"torch", "numpy", "PIL", "diffusers", "transformers", *sys.stdlib_module_names}
_VARYING = {"_diffusers_version", "_name_or_path", "_few_step", "auto_map"}
"""Keys of a component's configuration that loading and saving may change, and that change nothing of what it does."""


def is_model(folder: Path) -> bool:
    """Whether it is a model folder."""
    return (folder / INDEX).is_file()


def find_model(folder: Path) -> Path:
    """The model of a run folder, or the folder itself if it is one. Raises ModelError if there is no model yet."""
    for candidate in (folder, folder / MODEL):
        if is_model(candidate):
            return candidate
    unfinished = (folder / "checkpoints").is_dir()
    cure = f" Training isn't finished; `logsnr export {folder}` makes a model of the last checkpoint."
    raise ModelError(f"{folder} holds no model: there is no {INDEX} in it.{cure if unfinished else ''}")


def forms(run: Path) -> tuple[Path, Path]:
    """Where the model of a run folder is, and where its form for stock diffusers is if it has one."""
    return run / MODEL, run / STOCK


def save_model(pipeline: Any, folder: Path) -> None:
    """Write a pipeline as a model folder, with the code that it needs beside it.

    Our own pipelines lay out their folder themselves, wherever they are saved. One of another package becomes
    self-contained here: its file, and those of components that aren't diffusers', travel with it, for
    `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`. Raises ModelError if such a file doesn't stand
    alone.
    """
    with without_bars():
        pipeline.save_pretrained(folder)
    index = read_json_object(folder / INDEX)
    for path in (folder / name / file for name in components(folder) for file in _CONFIGS):
        if path.is_file() and "_name_or_path" in (config := read_json_object(path)):  # a place on this machine
            del config["_name_or_path"]
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if isinstance(index["_class_name"], list) or hasattr(diffusers, index["_class_name"]):
        return
    index["_class_name"] = [_travel(type(pipeline), folder), type(pipeline).__name__]
    for name in components(folder):
        cls = type(getattr(pipeline, name))
        if getattr(diffusers, cls.__name__, None) is not cls:
            index[name] = [_travel(cls, folder / name), cls.__name__]
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _travel(cls: type, folder: Path) -> str:
    """Copy the file of a class into `folder`, under a name made of its content; returns the name without its ending."""
    path = Path(inspect.getsourcefile(cls) or "")
    content = path.read_bytes()
    needed = {name.split(".")[0] for name in _imported(ast.parse(content))}
    if foreign := sorted(needed - _TRAVELS_WITH):
        raise ModelError(
            f"{cls.__name__} can't be saved: its file {path.name} must stand alone, importing {_ALONE} only, and "
            f"imports {', '.join(foreign)}."
        )
    stem = f"{path.stem}_{hashlib.sha256(content).hexdigest()[:8]}"
    (folder / f"{stem}.py").write_bytes(content)
    return stem


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else node.module or ""


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file of a model. Raises ModelError if it can't be read or isn't an object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} can't be read: it isn't a JSON object.")
    return values


def components(folder: Path) -> list[str]:
    """The names of the components, each also that of its folder, in order of the alphabet."""
    index = read_json_object(folder / INDEX)
    return [
        name
        for name, value in sorted(index.items())
        if not name.startswith("_") and name.isidentifier() and isinstance(value, list) and all(value)
    ]


def named_code(folder: Path) -> str | None:
    """The pipeline's file that model_index.json names, without which nothing loads; None where diffusers has the
    class."""
    match read_json_object(folder / INDEX).get("_class_name"):
        case [str(stem), str()] if re.fullmatch(r"\w+", stem):
            return f"{stem}.py"
    return None


def pipeline_code(folder: Path) -> Path | None:
    """The file of the pipeline that draws: what model_index.json names, or one of ours beside a stock form; None where
    there is none."""
    if (name := named_code(folder)) is not None:
        return folder / name if (folder / name).is_file() else None
    ours = (path for path in sorted(folder.glob("pipeline_*.py")) if OWN_CODE.fullmatch(path.name))
    return next((path for path in ours if not REPAIR_CODE.fullmatch(path.name)), None)


def code_files(folder: Path) -> list[Path]:
    """The files of code that a loader may want: those that model_index.json names, the pipeline's own, and those that
    it loads from beside itself."""
    index = read_json_object(folder / INDEX)
    named = {value[0] for value in index.values() if isinstance(value, list)}
    files = [folder, *(folder / name for name in components(folder))]
    own = pipeline_code(folder)
    beside = [] if own is None else re.findall(r"^from \.(\w+) import ", own.read_text(encoding="utf-8"), re.MULTILINE)
    needed = [own, *(folder / f"{stem}.py" for stem in beside)]
    return [path for place in files for path in sorted(place.glob("*.py")) if path.stem in named or path in needed]


def read_patterns(folder: Path) -> list[str]:
    """What makes the model whose model_index.json lies in `folder`, as patterns: JSON and safetensors, no code, no
    pickle. All that is taken from a repo of the Hub."""
    ours = [f"{name}/{file}" for name in components(folder) for file in (*_CONFIGS, "*.safetensors")]
    return [INDEX, FEW_STEP_CONFIG, PROMPTS, *_TOKENIZER_FILES, *ours]


def own_files(folder: Path | None) -> re.Pattern[str]:
    """Paths in a model folder of ours, whatever is in them: all of one whose model_index.json lies in `folder`."""
    places, code = ["scheduler", FEW_STEP_FOLDER, NETWORK], OWN_CODE.pattern
    if folder is not None:
        places += components(folder)
        code += f"|{re.escape(named_code(folder) or INDEX)}"
    beside = "|".join(re.escape(name) for name in (INDEX, PROMPTS, *_TOKENIZER_FILES))
    return re.compile(rf"{beside}|{code}|({'|'.join(places)})/.*")


def data_files(folder: Path) -> list[Path]:
    """All other files of a model: configurations, weights, and the tables of `logsnr tune` with what came with them."""
    parts = [path for name in components(folder) for path in _data_of(folder / name)]
    beside = [folder / name for name in (INDEX, PROMPTS, *_TOKENIZER_FILES) if (folder / name).is_file()]
    return [*beside, *parts, *sorted((folder / FEW_STEP_FOLDER).glob("*"))]


def model_digest(folder: Path) -> str:
    """A hash of what decides what the model in this folder draws; 16 hexadecimal digits.

    That is each component's tensors and configuration, and the tokenizer beside them. It is the same wherever the
    folder lies, for a copy, for what comes from the Hub, for what is loaded and saved again, and whether weights are in
    one file or several; tables of `logsnr tune` are no part of it. `model_hash` of figures and the base of a distilled
    model are this hash, and the keys of what is kept for a model are made of it.
    """
    parts = []
    for name in components(folder):
        files = _data_of(folder / name)
        for path in files:
            if path.suffix == ".json" and not path.name.endswith(".index.json"):
                values = {key: value for key, value in read_json_object(path).items() if key not in _VARYING}
                parts.append(json.dumps([name, path.name, values], sort_keys=True).encode())
        weights = [path for path in files if path.suffix == ".safetensors"]
        parts += [content for _, content in sorted(item for path in weights for item in _tensors(path))]
    if (folder / TOKENIZER).is_file():
        parts.append(json.dumps(read_json_object(folder / TOKENIZER), sort_keys=True).encode())
    return digest_of(*parts)


def _data_of(component: Path) -> list[Path]:
    return sorted(path for pattern in _DATA for path in component.glob(pattern))


def _tensors(path: Path) -> Iterator[tuple[str, bytes]]:
    """The name of each tensor in a file, and a hash of its name, type, shape and bytes."""
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  # no dictionary
                tensor = file.get_tensor(name)
                kind = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
                yield name, digest_of(kind.encode(), tensor.flatten().view(torch.uint8).numpy().tobytes()).encode()
    except Exception as error:  # what others wrote may be wrong in any way
        raise ModelError(f"{path} can't be read: {error}") from error
