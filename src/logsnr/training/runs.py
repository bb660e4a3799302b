"""A run folder: whose it is, what would be done in it, and a model made of what it holds."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from logsnr.base.errors import CheckpointError, ConfigError
from logsnr.base.files import locked, read_json, replacing_folder, strangers, write_atomically
from logsnr.base.threads import machine
from logsnr.base.words import listed
from logsnr.data.seeded import SeededData
from logsnr.folders.checkpoint import Checkpoint, load_latest
from logsnr.folders.model_folder import forms, is_model, save_model
from logsnr.folders.run_folder import CONFIG, is_run, read_run
from logsnr.models.precision import precision_in_words, resolve_precision
from logsnr.objectives.build import make_objective
from logsnr.objectives.objective import Context
from logsnr.settings.kind import kind_named
from logsnr.settings.run import FREE, RunConfig, differences, flat, to_record
from logsnr.tasks.parts import Facts, Parts
from logsnr.tasks.task import Task, open_task, parts_of
from logsnr.training.effort import note_model_step


def require_place(out: Path, config: RunConfig, ours: Callable[[Path], bool] | None = None) -> None:
    """Raise ConfigError, before anything is read, unless runs of `config` can be made in the folder `out`.

    It holds a run already, or it is new, empty, or holds only what is `ours`, and doesn't mix with the data.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file, and must be a folder. Name another --out.")
    if is_run(out):
        return  # whose run that is, is looked at with the data
    require_apart(out, config)
    if foreign := strangers(out, ours or (lambda _: False)):
        raise ConfigError(f"--out {out} exists and is no run folder; it holds {listed(foreign)}. Name another --out.")


def require_apart(out: Path, config: RunConfig) -> None:
    """Raise ConfigError if the folder `out` is, contains or lies in a folder of the data."""
    for name in _named_folders(config):
        if not name.startswith("data."):
            continue
        data, place = Path(flat(config)[name]).expanduser().resolve(), out.resolve()
        if data == place or data in place.parents or place in data.parents:
            how = "is" if data == place else "lies in" if data in place.parents else "contains"
            raise ConfigError(
                f"--out {out} {how} {name}, {flat(config)[name]}: it must lie apart from the data. Name another --out."
            )


def plan(config: RunConfig, run: Path) -> str:
    """What `train` would do, in words, after opening the data and making everything but the first step."""
    require_tracker(config.train.tracker)
    require_place(run, config)
    task = open_task(config)
    options, data = config.train, task.data
    samples = options.batch_size * options.gradient_accumulation_steps
    if is_run(run):
        changed = require_same(run, config, data)
        state = f"goes on with the run in {run}" + (f", with {', '.join(changed)}" if changed else "")
    else:
        state = f"begins a run in {run}"
    noted = "".join(f"{line}\n" for line in data.examples.complaints)
    return (
        f"{noted}{data.description}\n"
        f"{type(task.network).__name__} with {size_in_words(task.network)}, "
        f"{precision_in_words(resolve_precision(options.mixed_precision))}\n"
        f"{options.num_steps} steps of {samples} {data.examples.noun}s a process: "
        f"{options.num_steps * samples / len(data):.1f} times through the data\n"
        f"The command {state}; nothing was written."
    )


def export(run: Path, out: Path | None, class_label: str | None) -> list[Path]:
    """Make RUN/model (and RUN/stock) of the averaged weights of the newest checkpoint, or their like in `out`.

    With `class_label` the result is a plain stock model of that one class, in `out`.
    """
    record, config = read_run(run)
    checkpoint, _ = load_latest(run)
    if checkpoint is None:
        raise CheckpointError(
            f"{run} has no checkpoint yet; the first is written at step {config.train.checkpoint_every}."
        )
    parts = parts_of(config.kind)
    network = parts.unlearned(config, record["network"])
    network.load_state_dict(checkpoint.ema)
    facts = record["data"]["facts"]
    pipeline = parts.pipeline(network, _sampler(config, checkpoint, network, parts, facts), facts)
    if class_label is not None:
        stock = parts.stock_of(pipeline, class_label)
        if out is None:
            raise ConfigError("--class-label needs --out, the folder that becomes the model of that class.")
        _require_replaceable(out)
        with replacing_folder(out) as folder:
            save_model(stock, folder)
        return [out]
    out = run if out is None else out
    _require_replaceable(*forms(out))
    folders = export_model(out, parts, pipeline)
    if out == run:
        note_model_step(run, checkpoint.step)
    return folders


def _sampler(config: RunConfig, checkpoint: Checkpoint, network: Any, parts: Parts, facts: Facts) -> Any:
    """What the model of a checkpoint is sampled with."""
    schedule = parts.make_schedule(config, facts)
    denoiser = parts.denoiser(network, schedule)
    objective = make_objective(config, schedule, Context(denoiser=denoiser))
    if checkpoint.objective:
        objective.restore(checkpoint.objective)
    return objective.sampler


def export_model(run: Path, parts: Parts, pipeline: Any) -> list[Path]:
    """Write RUN/model, and RUN/stock where stock diffusers needs another form. Returns the folders."""
    stock = parts.stock(pipeline)
    folders = []
    for folder, form in zip(forms(run), (pipeline, stock), strict=True):
        if form is not None:
            with replacing_folder(folder) as new:
                save_model(form, new)
            folders.append(folder)
    return folders


def _require_replaceable(*folders: Path) -> None:
    """Raise ConfigError if one of them is a folder of something else than a model."""
    for folder in folders:
        if folder.exists() and not is_model(folder):
            raise ConfigError(f"{folder} exists and is no model; it would be replaced. Name another --out.")


def size_in_words(network: Any) -> str:
    """The number of its parameters."""
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters"


def claim(run: Path, task: Task, num_processes: int, mixed_precision: str) -> list[str]:
    """Write config.json, or make sure that the one there says the same, but for settings that the weights don't depend
    on: their new values are written, and the lines of `differences` returned."""
    path, config, data = run / CONFIG, task.config, task.data
    record = {
        **to_record(config),
        "num_processes": num_processes,
        "mixed_precision": mixed_precision,
        "machine": machine(),
        "data": {
            "description": data.description,
            "fingerprint": data.fingerprint,
            "facts": task.facts,
        },
        "local": _named_folders(config),
        "network": task.parts.network_config(task.network),
        "versions": {name: importlib.metadata.version(name) for name in ("logsnr", "torch", "diffusers", "accelerate")},
    }
    changed: list[str] = []
    if path.exists():
        changed = require_same(run, config, data)
        before = read_json(path)
        for name, cure in (
            ("num_processes", "Start as many again"),
            ("mixed_precision", "Give --train.mixed-precision"),
        ):
            if before[name] != record[name]:
                raise CheckpointError(
                    f"{run} holds a run with {name} {before[name]}, and now it is {record[name]}, which would change "
                    f"the weights. {cure}, or take another --out."
                )
        if not changed:
            return []
        record = before | {"config": record["config"]}
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return changed


def _named_folders(config: RunConfig) -> list[str]:
    """Settings that name a folder or file of this machine and nothing that others have; they aren't published."""
    values, kind = flat(config), kind_named(config.kind)
    named = {name: values[name] for name in kind.placeholders if values[name] not in (None, *kind.bundled)}
    return [name for name, value in named.items() if Path(value).expanduser().exists()]


def _same_folder(name: str, old: RunConfig, new: RunConfig) -> bool:
    """Whether a setting names one folder or file in two ways: relative and absolute, or with a slash at its end."""
    if name not in kind_named(new.kind).placeholders:
        return False
    one, other = (Path(flat(config)[name] or "").expanduser() for config in (old, new))
    return one.exists() and other.exists() and one.samefile(other)


def require_same(run: Path, config: RunConfig, data: SeededData[Any]) -> list[str]:
    """The lines of `differences` for settings that a run may change; CheckpointError for any other."""
    before, old = read_run(run)
    found = [line for line in differences(old, config) if not _same_folder(line.partition(":")[0], old, config)]
    changed = [line for line in found if line.partition(":")[0] in FREE]
    lines = [line for line in found if line not in changed]
    if lines:
        raise CheckpointError(
            f"{run} holds a run with another configuration:\n  " + "\n  ".join(lines) + "\n"
            "Give the same options to go on with it, or another --out for a new run."
        )
    if before["data"]["fingerprint"] != data.fingerprint:
        raise CheckpointError(
            f"{run} holds a run on other data: then {before['data']['description']}; now {data.description} "
            "(contents or labels differ). Put the data back as they were, or take another --out."
        )
    return changed


def require_tracker(name: str) -> None:
    """Raise ConfigError if the tracker's package isn't installed."""
    if name == "wandb" and importlib.util.find_spec("wandb") is None:
        raise ConfigError("train.tracker wandb needs the package: pip install logsnr[wandb].")


@contextlib.contextmanager
def hold(run: Path) -> Iterator[None]:
    """Make the run folder and keep other processes out of it. Raises CheckpointError."""
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{run} can't be made: {error}") from error
    with locked(run):
        yield
