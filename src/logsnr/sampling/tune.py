"""Timesteps and coefficients for few network evaluations, tuned for one trained model: `logsnr tune`.

From noise alone, with and without guidance: fine solutions (`logsnr.sampling.trajectories`), to which the tables are
fitted (`logsnr.sampling.refinement`).

A table is judged on held-out noise, and kept only where it beats the untuned default there. Stock schedulers are
measured on the same noise, beside it (`logsnr.sampling.few_evaluations`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from logsnr.base.errors import ConfigError, ModelError
from logsnr.base.files import digest_of, read_json, replacing_file, replacing_folder, write_atomically
from logsnr.base.words import listed
from logsnr.folders.model_folder import FEW_STEP_FOLDER, find_model, is_model, model_digest, save_model
from logsnr.sampling import refinement, trajectories
from logsnr.sampling.few_evaluations import TUNED, UNTUNED, Curve, drive, rmse, stock_schedulers
from logsnr.sampling.refinement import first_guess, refined
from logsnr.sampling.sample import choose_device
from logsnr.sampling.trajectories import Paths, Solutions, few_step_scheduler
from logsnr.schedulers.scheduling_few_step import FewStepScheduler, Table, adams_table
from logsnr.settings.options import TuneOptions
from logsnr.tasks.load import load
from logsnr.tasks.parts import parts_of_pipeline

TRAIN, HELD_OUT = 128, 48
"""Numbers of images' noise that tuning learns from, and is judged on."""


@dataclass(frozen=True)
class Tuned:
    """What came of one number of steps: distances (RMSE) to the teacher's ends on held-out noise, one a guidance."""

    steps: int
    timesteps: list[int]
    coefficients: Table
    default: list[float]
    tuned: list[float]
    stock: dict[str, list[float]] | None = None
    """By name; None where they weren't measured yet."""

    @property
    def kept(self) -> bool:
        """Whether it beats the default, at every guidance."""
        return all(tuned < default for tuned, default in zip(self.tuned, self.default, strict=True))


def tune(source: str | Path, options: TuneOptions, out: Path | None = None) -> list[Tuned]:
    """Tune the model of a run or model folder, and write the tables into it. The same call goes on where it was cut.

    With `out`, the model of a folder or repo of the Hub is copied there first, and tuned there.
    """
    place = _place(source, out)
    if not place.exists():
        _copy(source, place)
    folder, kept = _folders(place, options)
    pipeline = load(folder).to(choose_device())
    paths = Paths(pipeline, options.guidance_scale)
    with torch.inference_mode():
        teachers = []
        for name, count, seed in (("train", TRAIN, options.seed), ("held_out", HELD_OUT, options.seed + 1)):
            path = kept / f"{name}.safetensors"
            if not path.exists():
                _save(paths.teacher(count, seed, name), path)
            teachers.append(_load(path, paths.device))
        for n in sorted(set(options.steps)):
            path = kept / f"steps-{n}.json"
            if not path.exists():
                _keep(_tune_steps(paths, n, *teachers), path)
            tuned = Tuned(**read_json(path))
            if tuned.stock is None:
                _keep(dataclasses.replace(tuned, stock=_stock(pipeline, paths, n, teachers[1])), path)
    found = {t.steps: t for t in (Tuned(**read_json(path)) for path in kept.glob("steps-*.json"))}
    _write(folder, paths.scheduler, [found[n] for n in sorted(found)], options)
    return [found[n] for n in sorted(set(options.steps))]


def curve(results: list[Tuned], options: TuneOptions) -> Curve:
    """What was measured, side by side."""
    guidances = [1.0, options.guidance_scale][: len(results[0].default)]
    rows = {t.steps: {**({TUNED: t.tuned} if t.kept else {}), UNTUNED: t.default, **(t.stock or {})} for t in results}
    return Curve(HELD_OUT, guidances, rows)


def plan(source: str | Path, options: TuneOptions, out: Path | None = None) -> str:
    """What `tune` would do, in words."""
    place = _place(source, out)
    new = not place.exists()
    folder, kept = (place, place / "tuning") if new else _folders(place, options)
    guidances = Paths(load(source if new else folder), options.guidance_scale).guidances
    steps = sorted(set(options.steps))
    there = [n for n in steps if (kept / f"steps-{n}.json").exists()]
    passes = sum(2 if w not in (0, 1) else 1 for w in guidances)
    teacher = passes * trajectories.GRID * trajectories.SUBSTEPS * (TRAIN + HELD_OUT)
    refining = passes * 4 * refinement.ROUNDS * refinement.BATCH * sum(n for n in steps if n not in there)
    return (
        f"Would tune {f'a copy of {source} in ' if new else ''}{folder} for {listed(steps)} network evaluations, "
        f"with guidance {' and '.join(f'{w:g}' for w in guidances)}.\n"
        f"Fine solutions of {TRAIN + HELD_OUT} images: {teacher:,} evaluations of the network for one image"
        f"{', which are there already' if (kept / 'held_out.safetensors').exists() else ''}.\n"
        f"Refinement: the time of about {refining:,} more"
        f"{f' ({listed(there)} are tuned already)' if there else ''}.\n"
        f"Tables would go to {folder / FEW_STEP_FOLDER}; nothing was written."
    )


def _place(source: str | Path, out: Path | None) -> Path:
    """The folder whose model is tuned; with `out` it is that one, which needn't be there yet."""
    if out is None:
        if not Path(source).is_dir():
            raise ModelError(
                f"There is no folder {source}. Tables are written into the model's folder; for a model of the Hub, "
                "name a new one with --out DIR: it is copied there, and tuned."
            )
        return Path(source)
    if is_model(out):
        if not _same(load(source), load(out)):
            raise ModelError(f"--out {out} holds another model than {source}. Name a new folder.")
    elif out.exists():
        raise ConfigError(f"--out {out} exists and is no model; it would be replaced. Name another --out.")
    return out


def _same(a: Any, b: Any) -> bool:
    ours, theirs = ({**_network(pipe).state_dict(), "betas": pipe.scheduler.betas} for pipe in (a, b))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _network(pipeline: Any) -> Any:
    return parts_of_pipeline(pipeline).network_of(pipeline)


def _copy(source: str | Path, out: Path) -> None:
    """The model as a folder of its own, with our code; tables that came with it stay behind."""
    pipeline = load(source)
    config = {k: v for k, v in pipeline.scheduler.config.items() if k != "_few_step"}
    pipeline.scheduler = type(pipeline.scheduler).from_config(config)
    with replacing_folder(out) as folder:
        save_model(pipeline, folder)


def _folders(source: Path, options: TuneOptions) -> tuple[Path, Path]:
    """The model's, and that of what was found so far."""
    folder = find_model(source)
    return folder, source / "tuning" / _key(folder, options)


def _tune_steps(paths: Paths, n: int, train: Solutions, held_out: Solutions) -> Tuned:
    default = paths.scheduler.default_timesteps(n)
    default_errors = paths.errors(default, adams_table(paths.scheduler.angles[default].tolist()), held_out)
    found = refined(paths, train, *first_guess(paths, train, n))
    return Tuned(n, *found, default_errors, paths.errors(*found, held_out))


def _stock(pipeline: Any, paths: Paths, n: int, held_out: Solutions) -> dict[str, list[float]]:
    """Distances of the stock schedulers that can, one a guidance, with a progress bar."""
    noise, errors = held_out.noise, {}
    condition = paths.conditions(len(noise))
    outputs = [partial(paths.output, guidance=w, condition=condition) for w in paths.guidances]
    for name, scheduler in tqdm(stock_schedulers(pipeline).items(), f"{n} steps, stock", delay=2, dynamic_ncols=True):
        ends = [drive(scheduler, output, noise, n) for output in outputs]
        found = [rmse(x, end) for x, end in zip(ends, held_out.ends, strict=True) if x is not None]
        if len(found) == len(ends):
            errors[name] = found
    return errors


# -- files ------------------------------------------------------------------------------------------------------------


def _keep(tuned: Tuned, path: Path) -> None:
    write_atomically(path, json.dumps(dataclasses.asdict(tuned)) + "\n")


def _save(teacher: Solutions, path: Path) -> None:
    tensors = {name: getattr(teacher, name).contiguous().cpu() for name in ("states", "predictions", "ends")}
    with replacing_file(path) as temporary:
        save_file({**tensors, "timesteps": torch.tensor(teacher.timesteps)}, temporary)


def _load(path: Path, device: torch.device) -> Solutions:
    tensors = load_file(path, device=str(device))
    return Solutions(tensors.pop("timesteps").tolist(), **tensors)


def _key(folder: Path, options: TuneOptions) -> str:
    """A hash of the model and of what tables depend on beside the number of steps."""
    decisive = (options.guidance_scale, options.seed, TRAIN, HELD_OUT, refinement.ROUNDS, refinement.BATCH)
    return digest_of(repr((model_digest(folder), *decisive)).encode())


def _write(folder: Path, scheduler: FewStepScheduler, results: list[Tuned], options: TuneOptions) -> None:
    """The scheduler with the tables that are kept, and its code, as `AutoModel.from_pretrained` reads them; and what
    was measured."""
    tables = {str(t.steps): {"timesteps": t.timesteps, "coefficients": t.coefficients} for t in results if t.kept}
    content = Path(inspect.getsourcefile(FewStepScheduler) or "").read_bytes()
    stem = f"scheduling_few_step_{hashlib.sha256(content).hexdigest()[:8]}"
    entry = {"_class_name": "FewStepScheduler", "auto_map": {"AutoModel": f"{stem}.FewStepScheduler"}}
    with replacing_folder(folder / FEW_STEP_FOLDER) as out:
        few_step_scheduler(scheduler.config, tuned=tables).save_pretrained(out)
        (out / f"{stem}.py").write_bytes(content)
        (out / "config.json").write_text(json.dumps(entry, indent=2) + "\n")
        curve(results, options).write(out)
