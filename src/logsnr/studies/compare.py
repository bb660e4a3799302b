"""`logsnr compare`: the same data, seeds, budget and network under several noise schedules, and what came of each.

    OUT/SCHEDULE/       a run of its own for each schedule, as `logsnr train` makes it
    OUT/compare.json    the figures of all
    OUT/compare.png     ELBO by term, KID and FID with intervals, and KID against sampling steps

To go on after an interruption, run the same command again: each run resumes as training does, and what was drawn and
measured is taken from where it is.

The ELBO of different schedules can be compared: its bits are of the same images, whatever the chain. KID and FID are of
images drawn by the model's own sampler, at `steps` as in `logsnr evaluate` and at each of `at_steps`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logsnr.base.columns import aligned
from logsnr.base.errors import ConfigError
from logsnr.base.files import write_atomically
from logsnr.evaluation.bits import bound
from logsnr.evaluation.distribution import distribution, extractor_for, features_name, number_of_images
from logsnr.evaluation.extractors import find_extractor
from logsnr.evaluation.subject import Subject, open_subject
from logsnr.folders.run_folder import is_run
from logsnr.media.plots import Compared, compare_figure, save_png
from logsnr.models.schedules import make_scheduler
from logsnr.sampling.sample import DEFAULT_STEPS
from logsnr.settings.choice import switched
from logsnr.settings.options import EvaluateOptions
from logsnr.settings.run import RunConfig
from logsnr.tasks.parts import require_numbers
from logsnr.tasks.task import parts_of
from logsnr.training.runs import require_place, require_same
from logsnr.training.train import TrainResult, train


@dataclass(frozen=True)
class CompareResult:
    """How a call of `compare` ended: `stopped` is the result of the training that a signal ended, if one did."""

    text: str
    stopped: TrainResult | None


def configurations(config: RunConfig, schedules: tuple[str, ...]) -> dict[str, RunConfig]:
    """The configuration of each schedule's run, by its name. Raises ConfigError where a schedule can't be made."""
    if len(set(schedules)) < len(schedules) or len(schedules) < 2:
        raise ConfigError(f"--schedules must name two or more different schedules, and is {' '.join(schedules)!r}.")
    require_numbers(parts_of(config.kind), "logsnr compare")
    found = {}
    for name in schedules:
        found[name] = dataclasses.replace(config, schedule=switched(config.schedule, name, "schedule"))
        make_scheduler(found[name].schedule)
    return found


def plan(
    config: RunConfig, schedules: tuple[str, ...], out: Path, options: EvaluateOptions, at_steps: tuple[int, ...]
) -> str:
    """What `compare` would do, in words. Raises what it would raise for its schedules, features and folders."""
    configs = configurations(config, schedules)
    _require_places(configs, out)
    parts = parts_of(config.kind)
    data = parts.open_data(config)
    features = features_name(options, parts, data)
    if features is None:
        raise ConfigError(f"features must name a network for {data.examples.noun}s, which have none yet.")
    find_extractor(features)
    for name, each in configs.items():
        if is_run(_folder(out, name)):
            require_same(_folder(out, name), each, data)
    *steps, last = sorted({options.steps or DEFAULT_STEPS, *at_steps})
    return (
        f"{data.description}\n"
        f"Would train {len(configs)} models, {config.train.num_steps} steps of {config.train.batch_size} images each, "
        f"into {', '.join(str(_folder(out, name)) for name in configs)}. Of each, {number_of_images(options, data):,} "
        f"images would be drawn in {', '.join(map(str, steps))}{' and ' if steps else ''}{last} steps. The table would "
        f"go to {out / 'compare.json'}, the picture to {out / 'compare.png'}; nothing was written."
    )


def compare(
    config: RunConfig,
    schedules: tuple[str, ...],
    out: Path,
    options: EvaluateOptions,
    at_steps: tuple[int, ...],
    say: Callable[[str], None] = print,
) -> CompareResult:
    """Train a model with each schedule, measure all, and write the table and the picture into `out`."""
    configs = configurations(config, schedules)
    _require_places(configs, out)
    if options.features is not None:
        find_extractor(options.features)
    for name, each in configs.items():
        folder = _folder(out, name)
        say(f"-- {name}: training in {folder}")
        result = train(each, folder)
        if not result.finished:
            return CompareResult(f"Stopped in the training of {name}.", result)
    rows: dict[str, dict[str, Any]] = {}
    for name in configs:
        say(f"-- {name}: measuring")
        rows[name] = _measured(open_subject(_folder(out, name)), options, at_steps)
    write_atomically(out / "compare.json", json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    save_png(compare_figure({name: _compared(row) for name, row in rows.items()}), out / "compare.png")
    return CompareResult(
        f"{_table(rows, options.steps or DEFAULT_STEPS)}\n\n{_protocol(rows)}\nThe picture is {out / 'compare.png'}.",
        None,
    )


def _require_places(configs: Mapping[str, RunConfig], out: Path) -> None:
    """Raise ConfigError unless the runs, the table and the picture can be made in `out`."""

    def ours(path: Path) -> bool:
        return path.name in ("compare.json", "compare.png") or is_run(path) or path in folders

    folders = [_folder(out, name) for name in configs]
    for folder, config in zip(folders, configs.values(), strict=True):
        require_place(out, config, ours)
        require_place(folder, config)


def _folder(out: Path, name: str) -> Path:
    return out / name.replace(":", ".")


def _measured(subject: Subject, options: EvaluateOptions, at_steps: tuple[int, ...]) -> dict[str, Any]:
    """The figures of one model: its ELBO, and KID, FID and the others at each number of steps."""
    extractor = extractor_for(subject, options)
    row: dict[str, Any] = {"steps": {}}
    decisive = options.steps or DEFAULT_STEPS
    for steps in sorted({decisive, *at_steps}):
        found = distribution(subject, extractor, dataclasses.replace(options, steps=steps))
        intervals = found.comparison.intervals()
        row["steps"][str(steps)] = {
            key: {"value": getattr(found.comparison.figures, key), "interval": list(interval)}
            for key, interval in intervals.items()
        }
        if steps == decisive:
            row |= row["steps"][str(steps)] | {"protocol": found.protocol}
    if options.elbo_images:
        row["elbo"] = bound(subject, options, "held_out" if subject.data.num_held_out > 1 else "train")
        del row["elbo"]["bits_per_dim"]["kl_terms"]
    return row


def _compared(row: dict[str, Any]) -> Compared:
    bits = row["elbo"]["bits_per_dim"] if "elbo" in row else {}
    return Compared(
        terms={name: bits[name] for name in ("prior", "kl", "decoder") if name in bits},
        standard_error=bits.get("standard_error", 0.0),
        figures={key: (row[key]["value"], *row[key]["interval"]) for key in ("kid", "fid")},
        kid_by_steps={
            int(steps): (found["kid"]["value"], *found["kid"]["interval"]) for steps, found in row["steps"].items()
        },
    )


def _table(rows: dict[str, dict[str, Any]], drawn_in: int) -> str:
    with_bits = all("elbo" in row for row in rows.values())
    head = ["schedule", *(["bits/dim", "±", "prior", "kl", "decoder"] if with_bits else [])]
    head += ["kid", "95 % interval", "fid", "95 % interval"]
    lines: list[tuple[str, ...]] = [tuple(head)]
    for name, row in rows.items():
        cells = [name]
        if with_bits:
            bits = row["elbo"]["bits_per_dim"]
            cells += [f"{bits[key]:.4f}" for key in ("total", "standard_error", "prior", "kl", "decoder")]
        for key in ("kid", "fid"):
            low, high = row[key]["interval"]
            cells += [f"{row[key]['value']:.4f}", f"{low:.4f} to {high:.4f}"]
        lines.append(tuple(cells))
    steps = list(next(iter(rows.values()))["steps"])
    by_steps = [("kid at steps", *steps)]
    by_steps += [(name, *(f"{row['steps'][s]['kid']['value']:.4f}" for s in steps)) for name, row in rows.items()]
    said = f"kid and fid above are of images drawn in {drawn_in} steps." + (
        " ± is one standard error." if with_bits else ""
    )
    return f"{aligned(lines)}\n{said}\n\n{aligned(by_steps)}"


def _protocol(rows: dict[str, dict[str, Any]]) -> str:
    row = next(iter(rows.values()))
    protocol = row["protocol"]
    said = (
        f"{protocol['images']}; labels {protocol['labels']}, guidance {protocol['guidance_scale']}; the model's own "
        f"sampler; features: {protocol['features']}, hash {protocol['features_hash']}"
    )
    if "elbo" in row:
        found = row["elbo"]
        said += (
            f"; ELBO of {found['num_images']} images, {found['kl_evaluations']} of {found['chain_length'] - 1} KL "
            f"divergences each, {found['decoder']}"
        )
    return said + "."
