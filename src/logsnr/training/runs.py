"""A run folder: whose it is, what would be done in it, and a model made of what it holds."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from logsnr.base.errors import CheckpointError, ConfigError
from logsnr.base.files import locked, read_json, replacing_folder, write_atomically
from logsnr.base.threads import machine
from logsnr.data.images import ImageData, open_images
from logsnr.folders.checkpoint import load_latest
from logsnr.folders.model_folder import MODEL, STOCK, forms, is_model
from logsnr.models.networks import make_unet
from logsnr.models.precision import resolve_precision
from logsnr.models.schedules import Sampler, consistency_scheduler, make_scheduler
from logsnr.objectives.consistency import kept_contrasts
from logsnr.objectives.schedule_learner import learned_scheduler
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.settings.kind import kind_named
from logsnr.settings.objective import ConsistencyConfig
from logsnr.settings.run import FREE, RunConfig, differences, flat, from_record, to_record
from logsnr.settings.schedule import LearnedSchedule
from logsnr.training.effort import note_model_step


def plan(config: RunConfig, run: Path) -> str:
    """What `train` would do, in words, after opening the data and making everything but the first step."""
    require_tracker(config.train.tracker)
    data = open_images(config.data, config.condition.reads_labels)
    learned = make_scheduler(config.schedule).variance_type == "learned_range"
    unet = make_unet(config.data, config.model, data.examples.class_names, config.train.seed, learned)
    options = config.train
    images = options.batch_size * options.gradient_accumulation_steps
    if (run / "config.json").exists():
        changed = require_same(run, config, data)
        state = f"goes on with the run in {run}" + (f", with {', '.join(changed)}" if changed else "")
    else:
        _require_replaceable(*forms(run))
        state = f"begins a run in {run}"
    return (
        f"{data.description}\n"
        f"U-Net with {sum(p.numel() for p in unet.parameters()) / 1e6:.2f} M parameters, "
        f"precision {resolve_precision(options.mixed_precision)}\n"
        f"{options.num_steps} steps of {images} images a process: {options.num_steps * images / len(data):.1f} "
        f"times through the data\n"
        f"The command {state}; nothing was written."
    )


def export(run: Path, out: Path | None, class_label: str | None) -> list[Path]:
    """Make RUN/model (and RUN/stock) of the averaged weights of the newest checkpoint, or their like in `out`.

    With `class_label` the result is a plain stock model of that one class, in `out`.
    """
    if not (run / "config.json").is_file():
        raise CheckpointError(f"{run} is no run folder: there is no config.json in it.")
    record = read_json(run / "config.json")
    config, names = from_record(record, str(run / "config.json")), record["data"]["class_names"]
    checkpoint, _ = load_latest(run)
    if checkpoint is None:
        raise CheckpointError(
            f"{run} has no checkpoint yet; the first is written at step {config.train.checkpoint_every}."
        )
    unet = UNet2DModel.from_config(record["unet"])
    unet.load_state_dict(checkpoint.ema)
    schedule = make_scheduler(config.schedule)
    if isinstance(config.schedule, LearnedSchedule):
        schedule = learned_scheduler(schedule, checkpoint.objective)
    scheduler: Sampler = schedule
    if isinstance(config.objective, ConsistencyConfig):
        scheduler = consistency_scheduler(schedule, config.objective.steps, kept_contrasts(checkpoint.objective))
    if class_label is None:
        out = run if out is None else out
        _require_replaceable(*forms(out))
        folders = export_model(out, unet, scheduler, names)
        if out == run:
            note_model_step(run, checkpoint.step)
        return folders
    if names is None:
        raise ConfigError(f"--class-label is {class_label}, and the model of {run} has no classes. Leave it out.")
    if out is None:
        raise ConfigError("--class-label needs --out, the folder that becomes the model of that class.")
    _require_replaceable(out)
    try:
        label = class_label if class_label in names or not class_label.isdigit() else int(class_label)
        stock = PixelDiffusionPipeline(unet, scheduler, id2label=dict(enumerate(names))).to_stock(label)
    except ValueError as error:
        raise ConfigError(str(error).replace("class_labels", "--class-label")) from error
    with replacing_folder(out) as folder:
        stock.save_pretrained(folder)
    return [out]


def export_model(run: Path, unet: UNet2DModel, scheduler: Sampler, class_names: list[str] | None) -> list[Path]:
    """Write RUN/model, and RUN/stock for a conditional model whose target stock knows. Returns the folders."""
    id2label = None if class_names is None else dict(enumerate(class_names))
    pipeline = PixelDiffusionPipeline(unet, scheduler, id2label=id2label)
    forms: dict[str, DiffusionPipeline] = {MODEL: pipeline}
    if class_names is not None and scheduler.prediction_type != "x0_minus_noise":
        forms[STOCK] = pipeline.to_stock()
    for name, form in forms.items():
        with replacing_folder(run / name) as folder:
            form.save_pretrained(folder)
    return [run / name for name in forms]


def _require_replaceable(*folders: Path) -> None:
    """Raise ConfigError if one of them is a folder of something else than a model."""
    for folder in folders:
        if folder.exists() and not is_model(folder):
            raise ConfigError(f"{folder} exists and is no model; it would be replaced. Name another --out.")


def portable_config(unet: UNet2DModel) -> dict[str, Any]:
    """The network's own configuration, without the keys that say where it was loaded from."""
    return {key: value for key, value in unet.config.items() if not key.startswith("_")}


def claim(
    run: Path, config: RunConfig, data: ImageData, unet: UNet2DModel, num_processes: int, mixed_precision: str
) -> list[str]:
    """Write config.json, or make sure that the one there says the same, but for settings that the weights don't depend
    on: their new values are written, and the lines of `differences` returned."""
    path = run / "config.json"
    record = {
        **to_record(config),
        "num_processes": num_processes,
        "mixed_precision": mixed_precision,
        "machine": machine(),
        "data": {
            "description": data.description,
            "fingerprint": data.fingerprint,
            "class_names": data.examples.class_names,
        },
        "local": _local_settings(config),
        "unet": portable_config(unet),
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
    else:
        _require_replaceable(*forms(run))
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return changed


def _local_settings(config: RunConfig) -> list[str]:
    """Settings that name a folder of this machine and nothing that others have; they aren't published."""
    values = flat(config)
    named = {name: values[name] for name in kind_named(config.kind).placeholders if values[name] is not None}
    return [name for name, value in named.items() if Path(value).expanduser().is_dir()]


def require_same(run: Path, config: RunConfig, data: ImageData) -> list[str]:
    """The lines of `differences` for settings that a run may change; CheckpointError for any other."""
    before = read_json(run / "config.json")
    found = differences(from_record(before, str(run / "config.json")), config)
    changed = [line for line in found if line.partition(":")[0] in FREE]
    lines = [line for line in found if line not in changed]
    if lines:
        raise CheckpointError(
            f"{run} holds a run with another configuration:\n  " + "\n  ".join(lines) + "\n"
            "Give the same options to go on with it, or another --out for a new run."
        )
    if before["data"]["fingerprint"] != data.fingerprint:
        raise CheckpointError(
            f"{run} holds a run on other images: then {before['data']['description']}; now {data.description} "
            "(pixels or labels differ). Put the images back as they were, or take another --out."
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
