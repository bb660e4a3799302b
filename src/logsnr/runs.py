"""A run folder: whose it is, what would be done in it, and a model made of what it holds."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusers.models.unets.unet_2d import UNet2DModel

from logsnr.checkpoint import export_model, load_latest, locked, read_json, replacing_folder, write_atomically
from logsnr.config import RunConfig, differences, from_json, to_json
from logsnr.data import ImageData, open_data
from logsnr.errors import CheckpointError, ConfigError
from logsnr.learned_schedule import learned_scheduler
from logsnr.models import make_unet
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.precision import resolve_precision
from logsnr.registry import make_scheduler


def plan(config: RunConfig, run: Path) -> str:
    """What `train` would do, in words, after opening the data and making everything but the first step."""
    data = open_data(config.data)
    learned = make_scheduler(config.schedule).variance_type == "learned_range"
    unet = make_unet(config.data, config.model, data.class_names, config.train.seed, learned)
    options = config.train
    images = options.batch_size * options.gradient_accumulation_steps
    state = f"begins a run in {run}"
    if (run / "config.json").exists():
        _require_same(run, config, data)
        state = f"goes on with the run in {run}"
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
    config, names = from_json(json.dumps(record["config"])), record["data"]["class_names"]
    checkpoint, _ = load_latest(run)
    if checkpoint is None:
        raise CheckpointError(
            f"{run} has no checkpoint yet; the first is written at step {config.train.checkpoint_every}."
        )
    unet = UNet2DModel.from_config(record["unet"])
    unet.load_state_dict(checkpoint.ema)
    scheduler = make_scheduler(config.schedule)
    if config.schedule.name == "learned":
        scheduler = learned_scheduler(scheduler, checkpoint.objective)
    if class_label is None:
        return export_model(run if out is None else out, unet, scheduler, names)
    if out is None or names is None:
        raise ConfigError("--class-label needs --out, and a model with classes.")
    if out.exists() and not (out / "model_index.json").is_file():
        raise ConfigError(f"--out {out} exists and is no model; it would be replaced. Name a new folder.")
    try:
        label = class_label if class_label in names or not class_label.isdigit() else int(class_label)
        stock = PixelDiffusionPipeline(unet, scheduler, id2label=dict(enumerate(names))).to_stock(label)
    except ValueError as error:
        raise ConfigError(f"--class-label: {error}") from error
    with replacing_folder(out) as folder:
        stock.save_pretrained(folder)
    return [out]


def portable_config(unet: UNet2DModel) -> dict[str, Any]:
    """The network's own configuration, without the keys that say where it was loaded from."""
    return {key: value for key, value in unet.config.items() if not key.startswith("_")}


def claim(run: Path, config: RunConfig, data: ImageData, unet: UNet2DModel) -> None:
    """Write config.json, or make sure that the one there says the same."""
    path = run / "config.json"
    record = {
        "config": json.loads(to_json(config)),
        "data": {
            "description": data.description,
            "fingerprint": data.fingerprint,
            "class_names": data.class_names,
        },
        "unet": portable_config(unet),
        "versions": {name: importlib.metadata.version(name) for name in ("logsnr", "torch", "diffusers", "accelerate")},
    }
    if not path.exists():
        write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return
    _require_same(run, config, data)


def _require_same(run: Path, config: RunConfig, data: ImageData) -> None:
    before = read_json(run / "config.json")
    lines = differences(from_json(json.dumps(before["config"])), config)
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


@contextlib.contextmanager
def hold(run: Path) -> Iterator[None]:
    """Make the run folder and keep other processes out of it. Raises CheckpointError."""
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{run} can't be made: {error}") from error
    with locked(run):
        yield
