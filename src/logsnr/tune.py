"""Timesteps and coefficients for few network evaluations, tuned for one trained model: `logsnr tune`.

What `FewStepScheduler` reads is found in three stages, from noise alone, with and without guidance:

1. Teacher. The probability-flow ODE is solved finely from some noise; the states x_k and predictions D_k (of x_0) on a
   grid of timesteps are kept. They lie nearly in a plane for each image, which is why few steps can do (GITS, Chen et
   al., 2405.11326).
2. Timesteps. For n steps, dynamic programming chooses the path through the grid with the least sum of squared local
   errors, each that of the best linear map of (x_i, D_i, D_h), h the node before i, to x_j: GITS, with the regressors
   of a multistep sampler in place of Euler's. The coefficients follow by least squares, step after step, from the
   states that the sampler itself has reached.
3. Refinement. Steps of Gauss and Newton on coefficients and (real) timesteps against the teacher's end points (the loss
   of LD3, 2405.15506, and S4S, 2502.17423), a new batch each. The gradient goes back through the sampler. The matrix
   J^T J, without which gradients are of no use (x and the D's are nearly collinear), is estimated from the same pass:
   with v standard normal, E[(J^T v)(J^T v)^T] = J^T J (Hutchinson's trick, image by image), remembered over batches.
   The mean of the last iterates is taken and its timesteps rounded.

The last step of a table gives back the image where all predictions agree on it. Least squares shrink what they can't
know: the ends' variance falls short of the teacher's by about the squared error, and a loss of contrast by 1 % that no
one sees multiplies FID. So the last row is scaled until the contrast is the teacher's, for less than 1 % in distance.

The first evaluation gets a timestep below that of the noise: at T - 1 a network sees no image yet and predicts the mean
of its class, whatever the noise is, which coefficients could say as well without it.

A table is judged on held-out noise, and kept only where it beats the untuned default there. Stock schedulers are
measured on the same noise, beside it (`logsnr.few_evaluations`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import itertools
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm, trange

from logsnr.checkpoint import read_json, replacing_file, replacing_folder, write_atomically
from logsnr.config import TuneOptions
from logsnr.errors import ConfigError, ModelError
from logsnr.few_evaluations import TUNED, UNTUNED, Curve, drive, rmse, stock_schedulers
from logsnr.hub import load
from logsnr.locate import FEW_STEP_FOLDER, model_folder
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.sample import choose_device
from logsnr.schedulers.scheduling_few_step import HISTORY, FewStepScheduler, Table, adams_table

TRAIN, HELD_OUT = 128, 48
"""Numbers of images' noise that tuning learns from, and is judged on."""
_GRID, _SUBSTEPS = 50, 2
_FEWER, _FEWEST = 64, 10
"""Numbers of images that a first guess is fitted to, and that its first timestep is tried on."""
_ROUNDS, _BATCH = 18, 20
"""Steps of the refinement, and images of each, for each guidance. Ten times the work gains a few percent."""
_PIXELS_AT_ONCE = 16_384
"""Of images whose gradient is in memory."""
_RATES = 0.7, 0.12
"""Share of the full step that the first and the last round take."""


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


@dataclass(frozen=True)
class Teacher:
    """Fine solutions from some noise: states and predictions at `timesteps`, (guidances, nodes, images, ...)."""

    timesteps: list[int]
    states: Tensor
    predictions: Tensor
    ends: Tensor

    @property
    def noise(self) -> Tensor:
        """Where they begin, (images, ...)."""
        return self.states[0, 0]

    def images(self, count: int) -> Teacher:
        """The first `count`."""
        return Teacher(self.timesteps, self.states[:, :, :count], self.predictions[:, :, :count], self.ends[:, :count])


def tune(source: str | Path, options: TuneOptions, out: Path | None = None) -> list[Tuned]:
    """Tune the model of a run or model folder, and write the tables into it. The same call goes on where it was cut.

    With `out`, the model of a folder or repo of the Hub is copied there first, and tuned there.
    """
    place = _place(source, out)
    if not place.exists():
        _copy(source, place)
    folder, kept = _folders(place, options)
    pipeline = load(folder).to(choose_device())
    sampler = Sampler(pipeline, options.guidance_scale)
    with torch.inference_mode():
        teachers = []
        for name, count, seed in (("train", TRAIN, options.seed), ("held_out", HELD_OUT, options.seed + 1)):
            path = kept / f"{name}.safetensors"
            if not path.exists():
                _save(sampler.teacher(count, seed, name), path)
            teachers.append(_load(path, sampler.device))
        for n in sorted(set(options.steps)):
            path = kept / f"steps-{n}.json"
            if not path.exists():
                _keep(_tune_steps(sampler, n, *teachers), path)
            tuned = Tuned(**read_json(path))
            if tuned.stock is None:
                _keep(dataclasses.replace(tuned, stock=_stock(pipeline, sampler, n, teachers[1])), path)
    found = {t.steps: t for t in (Tuned(**read_json(path)) for path in kept.glob("steps-*.json"))}
    _write(folder, sampler.scheduler, [found[n] for n in sorted(found)], options)
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
    guidances = Sampler(load(source if new else folder), options.guidance_scale).guidances
    steps = sorted(set(options.steps))
    there = [n for n in steps if (kept / f"steps-{n}.json").exists()]
    passes = sum(2 if w not in (0, 1) else 1 for w in guidances)
    teacher = passes * _GRID * _SUBSTEPS * (TRAIN + HELD_OUT)
    refinement = passes * 4 * _ROUNDS * _BATCH * sum(n for n in steps if n not in there)
    return (
        f"Would tune {f'a copy of {source} in ' if new else ''}{folder} for {_listed(steps)} network evaluations, "
        f"with guidance {' and '.join(f'{w:g}' for w in guidances)}.\n"
        f"Fine solutions of {TRAIN + HELD_OUT} images: {teacher:,} evaluations of the network for one image"
        f"{', which are there already' if (kept / 'held_out.safetensors').exists() else ''}.\n"
        f"Refinement: the time of about {refinement:,} more"
        f"{f' ({_listed(there)} are tuned already)' if there else ''}.\n"
        f"Tables would go to {folder / FEW_STEP_FOLDER}; nothing was written."
    )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _place(source: str | Path, out: Path | None) -> Path:
    """The folder whose model is tuned; with `out` it is that one, which needn't be there yet."""
    if out is None:
        if not Path(source).is_dir():
            raise ModelError(
                f"There is no folder {source}. Tables are written into the model's folder; for a model of the Hub, "
                "name a new one with --out DIR: it is copied there, and tuned."
            )
        return Path(source)
    if (out / "model_index.json").is_file():
        if not _same(load(source), load(out)):
            raise ModelError(f"--out {out} holds another model than {source}. Name a new folder.")
    elif out.exists():
        raise ConfigError(f"--out {out} exists and is no model; it would be replaced. Name another --out.")
    return out


def _same(a: PixelDiffusionPipeline, b: PixelDiffusionPipeline) -> bool:
    ours, theirs = ({**pipe.unet.state_dict(), "betas": pipe.scheduler.betas} for pipe in (a, b))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _copy(source: str | Path, out: Path) -> None:
    """The model as a folder of its own, with our code; tables that came with it stay behind."""
    pipeline = load(source)
    config = {k: v for k, v in pipeline.scheduler.config.items() if k != "_few_step"}
    pipeline.scheduler = type(pipeline.scheduler).from_config(config)
    with replacing_folder(out) as folder:
        pipeline.save_pretrained(folder)


def _folders(source: Path, options: TuneOptions) -> tuple[Path, Path]:
    """The model's, and that of what was found so far."""
    folder = model_folder(source)
    return folder, source / "tuning" / _digest(folder, options)


class Sampler:
    """The model as a function x_t -> x_0, and multistep recursions over it; in float32 on the model's device."""

    def __init__(self, pipeline: PixelDiffusionPipeline, guidance_scale: float) -> None:
        self.unet = pipeline.unet.eval().requires_grad_(False)
        self.device = pipeline.unet.device
        self.num_classes = pipeline.num_classes
        self.guidances = [1.0] if self.num_classes is None else [1.0, guidance_scale]
        config = {k: v for k, v in pipeline.scheduler.config.items() if k != "_few_step"}
        self.scheduler = _few_step(config)
        size, channels = self.unet.config["sample_size"], self.unet.config["in_channels"]
        if self.unet.config["out_channels"] != channels:
            raise ModelError("A model with learned variance has no deterministic sampler to tune yet.")
        self.shape = (channels, *((size, size) if isinstance(size, int) else size))

    def noise(self, count: int, seed: int) -> Tensor:
        """Standard normal, the same on every device."""
        return torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def labels(self, count: int) -> Tensor | None:
        """The classes taken in turn."""
        return None if self.num_classes is None else torch.arange(count, device=self.device) % self.num_classes

    def output(self, x: Tensor, t: Any, guidance: float, labels: Tensor | None) -> Tensor:
        """Of the network at timestep t, one for all or (images,)."""
        if labels is None or self.num_classes is None:
            plain: Tensor = self.unet(x, t).sample
            return plain
        if guidance == 1:
            conditional: Tensor = self.unet(x, t, labels).sample
            return conditional
        both = torch.cat([torch.full_like(labels, self.num_classes), labels])
        t = torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t
        null, conditional = self.unet(torch.cat([x, x]), t, both).sample.chunk(2)
        guided: Tensor = null + guidance * (conditional - null)
        return guided

    def predict(self, x: Tensor, t: Tensor | int, guidance: float, labels: Tensor | None) -> Tensor:
        """x_0 of x at timestep t."""
        return self.scheduler.to_original(self.output(x, t, guidance, labels), t, x)

    def teacher(self, count: int, seed: int, name: str) -> Teacher:
        """Fine solutions with every guidance, with a progress bar."""
        # from T - 1, where sampling begins; even, for rounded steps of 1 and 2 in turn would upset the extrapolation
        fine = self.scheduler.default_timesteps(min(_GRID * _SUBSTEPS, len(self.scheduler)))
        rows = adams_table(self.scheduler.angles[fine].tolist(), order=2)  # networks are too rough for order 3
        noise, states, predictions, ends = self.noise(count, seed), [], [], []
        with tqdm(total=len(fine) * len(self.guidances), desc=f"teacher, {name}", delay=2, dynamic_ncols=True) as bar:
            for guidance in self.guidances:
                x, seen = noise, []
                history: list[Tensor] = []
                for t, row in zip(fine, rows, strict=True):
                    d = self.predict(x, t, guidance, self.labels(count))
                    seen.append((x, d))
                    x, history = advance(row, x, d, history)
                    bar.update()
                states.append(torch.stack([x for x, _ in seen[::_SUBSTEPS]]))
                predictions.append(torch.stack([d for _, d in seen[::_SUBSTEPS]]))
                ends.append(x)
        return Teacher(fine[::_SUBSTEPS], torch.stack(states), torch.stack(predictions), torch.stack(ends))

    def run(self, timesteps: Any, table: Any, guidance: float, x: Tensor, labels: Tensor | None) -> Tensor:
        """The end of the recursion: lists as the scheduler has them, or tensors whose last axis is that of images."""
        history: list[Tensor] = []
        for t, row in zip(timesteps, table, strict=True):
            x, history = advance(row, x, self.predict(x, t, guidance, labels), history)
        return x

    def errors(self, timesteps: list[int], table: Table, teacher: Teacher) -> list[float]:
        """RMSE to the teacher's ends, one a guidance."""
        labels = self.labels(len(teacher.noise))
        ends = [self.run(timesteps, table, w, teacher.noise, labels) for w in self.guidances]
        return [float((x - end).square().mean().sqrt()) for x, end in zip(ends, teacher.ends, strict=True)]


def _few_step(config: Any, **more: Any) -> FewStepScheduler:
    scheduler = FewStepScheduler.from_config(config, **more)
    assert isinstance(scheduler, FewStepScheduler)  # from_config is typed for more than it does here
    return scheduler


def advance(row: Any, x: Tensor, d: Tensor, history: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of the table, its row numbers or (columns, images, 1, 1, 1): the next x and the history for it."""
    r, c, *b = row
    history = [d + r * x, *history][:HISTORY]
    after: Tensor = c * x
    for weight, remembered in zip(b, history, strict=False):
        after = after + weight * remembered
    return after, history


def best_path(teacher: Teacher, n: int) -> list[int]:
    """Indices into the grid of n timesteps, the first being 0: see stage 2 at the top of this file."""
    nodes = len(teacher.timesteps)
    gram = torch.zeros(2 * nodes + 1, 2 * nodes + 1, dtype=torch.float64)
    for x, d, end in zip(teacher.states, teacher.predictions, teacher.ends, strict=True):
        vectors = torch.cat([x, d, end[None]]).flatten(1).double()
        gram += (vectors @ vectors.T).cpu()

    def local_errors(regressors: Tensor, j: Tensor) -> Tensor:
        """Squared errors of the best linear maps of gram's rows `regressors` (B, p) to the states of nodes j (B,)."""
        target = torch.where(j < nodes, j, 2 * nodes)
        a, b = gram[regressors[:, :, None], regressors[:, None, :]], gram[regressors, target[:, None]]
        scale = a.diagonal(dim1=1, dim2=2).sqrt()
        a = a / scale[:, :, None] / scale[:, None, :] + 1e-7 * torch.eye(a.shape[1], dtype=a.dtype)
        b = b / scale
        errors: Tensor = gram[target, target] - (torch.linalg.solve(a, b) * b).sum(1)
        return errors.clamp(min=0)

    infinite, last = float("inf"), nodes  # the node `last` is the clean image
    first = torch.full((nodes + 1, nodes + 1), infinite, dtype=torch.float64)  # best[i, j]: the last step is i -> j
    j = torch.arange(1, nodes + 1)
    first[0, 1:] = local_errors(torch.tensor([[0, nodes]]).expand(nodes, 2), j)
    h, i, j = torch.combinations(torch.arange(nodes + 1), 3).T
    cost = torch.full((nodes + 1,) * 3, infinite, dtype=torch.float64)
    cost[h, i, j] = local_errors(torch.stack([i, i + nodes, h + nodes], 1), j)
    best, before = first, []
    for _ in range(n - 1):
        best, argmin = (best[:, :, None] + cost).min(0)
        before.append(argmin)
    path = [last, int(best[:, last].argmin())]
    for argmin in reversed(before):
        path.append(int(argmin[path[-1], path[-2]]))
    return path[:0:-1]


def least_squares_table(sampler: Sampler, teacher: Teacher, path: list[int], first: int) -> tuple[Table, float]:
    """Coefficients that bring each step nearest to the teacher's next state, from where the sampler is, and the RMSE
    at the end. The network sees the noise, which is the path's first state, at the grid's timestep `first`."""
    labels = sampler.labels(len(teacher.noise))
    xs, table = [teacher.noise] * len(sampler.guidances), []
    histories: list[list[Tensor]] = [[] for _ in xs]
    for i, after in zip([first, *path[1:]], [*path[1:], None], strict=True):
        t = teacher.timesteps[i]
        ds = [sampler.predict(x, t, w, labels) for x, w in zip(xs, sampler.guidances, strict=True)]
        recent = [[d, *history[: HISTORY - 1]] for d, history in zip(ds, histories, strict=True)]
        if after is None:
            b = _fit([[h - d for h in rest] for d, *rest in recent], teacher.ends - torch.stack(ds))
            row = [0.0, 0.0, 1 - sum(b), *b]
        else:
            row = [0.0, *_fit([[x, *hs] for x, hs in zip(xs, recent, strict=True)], teacher.states[:, after])]
        table.append([*row, *[0.0] * (2 + HISTORY - len(row))])
        moved = [advance(table[-1], x, d, history) for x, d, history in zip(xs, ds, histories, strict=True)]
        xs, histories = [x for x, _ in moved], [history for _, history in moved]
    return table, float((torch.stack(xs) - teacher.ends).square().mean().sqrt())


def _fit(terms: list[list[Tensor]], targets: Tensor) -> list[float]:
    """The coefficients whose sum of terms is nearest to the targets, one list of terms for each guidance."""
    a = torch.stack([torch.cat([v.flatten() for v in column]) for column in zip(*terms, strict=True)]).double()
    solution: list[float] = _ridge(a @ a.T, a @ targets.flatten().double(), 1e-6).tolist()
    return solution


def _ridge(a: Tensor, b: Tensor, damping: float) -> Tensor:
    scale = a.diagonal().sqrt()
    a = a / scale[:, None] / scale + damping * torch.eye(len(a), dtype=a.dtype, device=a.device)
    solution: Tensor = torch.linalg.solve(a, b / scale) / scale
    return solution


def _tune_steps(sampler: Sampler, n: int, train: Teacher, held_out: Teacher) -> Tuned:
    default = sampler.scheduler.default_timesteps(n)
    default_errors = sampler.errors(default, adams_table(sampler.scheduler.angles[default].tolist()), held_out)
    found = refined(sampler, train, *first_guess(sampler, train, n))
    return Tuned(n, *found, default_errors, sampler.errors(*found, held_out))


def _stock(pipeline: PixelDiffusionPipeline, sampler: Sampler, n: int, held_out: Teacher) -> dict[str, list[float]]:
    """Distances of the stock schedulers that can, one a guidance, with a progress bar."""
    noise, errors = held_out.noise, {}
    labels = sampler.labels(len(noise))
    outputs = [partial(sampler.output, guidance=w, labels=labels) for w in sampler.guidances]
    for name, scheduler in tqdm(stock_schedulers(pipeline).items(), f"{n} steps, stock", delay=2, dynamic_ncols=True):
        ends = [drive(scheduler, output, noise, n) for output in outputs]
        found = [rmse(x, end) for x, end in zip(ends, held_out.ends, strict=True) if x is not None]
        if len(found) == len(ends):
            errors[name] = found
    return errors


def first_guess(sampler: Sampler, train: Teacher, n: int) -> tuple[list[int], Table]:
    """Stage 2 above: timesteps and least-squares coefficients, with the best first timestep."""
    path, few = best_path(train, n), train.images(_FEWEST)
    first = min(range(path[1]), key=lambda node: least_squares_table(sampler, few, path, node)[1])
    table, _ = least_squares_table(sampler, train.images(_FEWER), path, first)
    return [train.timesteps[i] for i in [first, *path[1:]]], table


def refined(sampler: Sampler, train: Teacher, timesteps: list[int], table: Table) -> tuple[list[int], Table]:
    """Stage 3 above, with a progress bar."""
    n, generator = len(timesteps), torch.Generator().manual_seed(len(timesteps))
    free, values = _free(n), torch.tensor([[t, *row] for t, row in zip(timesteps, table, strict=True)]).double()
    normal, weight, mean = torch.zeros(2 * [free.shape[1]], dtype=torch.float64), 0.0, torch.zeros_like(values)
    last = range(_ROUNDS - max(1, _ROUNDS // 3), _ROUNDS)
    order = torch.empty(0, dtype=torch.long)
    for i in trange(_ROUNDS, desc=f"{n} steps", delay=2, dynamic_ncols=True):
        if len(order) < _BATCH:
            order = torch.randperm(len(train.noise), generator=generator)
        batch, order = order[:_BATCH], order[_BATCH:]
        loss, gradient, gauss_newton = _derivatives(sampler, train, batch, values, free, generator)
        normal, weight = 0.9 * normal + gauss_newton, 0.9 * weight + 1
        step = -_ridge(normal / weight, gradient, 1e-2)
        step *= _RATES[0] * (_RATES[1] / _RATES[0]) ** (i / (_ROUNDS - 1))
        moves = float(step @ (normal / weight) @ step)  # the ends by so much, squared; outside, J is another
        values += (free @ step * min(1.0, math.sqrt(0.25 * loss / moves))).view_as(values)
        values[:, 0] = _apart(values[:, 0], len(sampler.scheduler))
        mean += values / len(last) * (i in last)
    rounded = [round(t) for t in mean[:, 0].tolist()]
    return rounded, _with_contrast(sampler, train, rounded, mean[:, 1:].tolist())


def _free(n: int) -> Tensor:
    """The directions in which timesteps and rows may move, the columns of (n * (3 + HISTORY), directions): r stays 0,
    no row uses an evaluation that isn't there yet, and in the last one c stays 0 and the sum of b what it is."""
    directions = []
    for k, column in itertools.product(range(n), range(3 + HISTORY)):
        direction = torch.zeros(n, 3 + HISTORY, dtype=torch.float64)
        direction[k, column] = 1
        age = column - 3  # of the evaluation; t, r and c come before
        if k == n - 1 and age > 0:
            direction[k, 3] = -1
        if column == 0 or (column == 2 and k < n - 1) or (0 <= age <= k and (k < n - 1 or age > 0)):
            directions.append(direction.flatten())
    return torch.stack(directions, 1)


def _with_contrast(sampler: Sampler, train: Teacher, timesteps: list[int], table: Table) -> Table:
    """The table whose ends have the teacher's variance over an image's pixels, by scaling the last row."""
    labels = sampler.labels(len(train.noise))
    ends = torch.stack([sampler.run(timesteps, table, w, train.noise, labels) for w in sampler.guidances])
    scale = float((train.ends.flatten(3).var(-1).sum() / ends.flatten(3).var(-1).sum()).sqrt())
    return [*table[:-1], [scale * value for value in table[-1]]]


def _apart(timesteps: Tensor, total: int) -> Tensor:
    """The timesteps in [0, total), each at least 2 below that before."""
    margin = 2.0 * torch.arange(len(timesteps), dtype=timesteps.dtype)
    descending = (timesteps + margin).clamp(max=total - 1).cummin(0).values
    return descending.clamp(min=float(margin[-1])) - margin


def _derivatives(
    sampler: Sampler, train: Teacher, batch: Tensor, values: Tensor, free: Tensor, generator: torch.Generator
) -> tuple[float, Tensor, Tensor]:
    """Mean square distance to the teacher's ends; half its gradient; and J^T J, estimated: along `free` directions."""
    labels, total = sampler.labels(len(train.noise)), len(batch) * train.ends[0, 0].numel() * len(sampler.guidances)
    loss, count = 0.0, free.shape[1]
    gradient, normal = torch.zeros(count, dtype=torch.float64), torch.zeros(count, count, dtype=torch.float64)
    at_once = max(1, _PIXELS_AT_ONCE // (sampler.shape[-1] * sampler.shape[-2]))
    for guidance, ends in zip(sampler.guidances, train.ends, strict=True):
        for part in batch.split(at_once):
            with torch.inference_mode(False), torch.enable_grad():
                # the same values for every image, as variables of its own
                copies = values.float().to(sampler.device)[:, :, None].repeat(1, 1, len(part)).requires_grad_()
                rows = copies[:, 1:, :, None, None, None]
                x, classes = train.noise[part].clone(), None if labels is None else labels[part].clone()
                end = sampler.run(copies[:, 0], rows, guidance, x, classes)
                residual = end.detach() - ends[part].clone()
                random = torch.randn(end.shape, generator=generator).to(end.device)
                (of_residual,) = torch.autograd.grad(end, copies, residual, retain_graph=True)
                (of_random,) = torch.autograd.grad(end, copies, random)
            loss += float(residual.square().sum()) / total
            gradient += free.T @ of_residual.sum(2).flatten().double().cpu() / total
            sketch = free.T @ of_random.flatten(0, 1).double().cpu()
            normal += sketch @ sketch.T / total
    return loss, gradient, normal


# -- files ------------------------------------------------------------------------------------------------------------


def _keep(tuned: Tuned, path: Path) -> None:
    write_atomically(path, json.dumps(dataclasses.asdict(tuned)) + "\n")


def _save(teacher: Teacher, path: Path) -> None:
    tensors = {name: getattr(teacher, name).contiguous().cpu() for name in ("states", "predictions", "ends")}
    with replacing_file(path) as temporary:
        save_file({**tensors, "timesteps": torch.tensor(teacher.timesteps)}, temporary)


def _load(path: Path, device: torch.device) -> Teacher:
    tensors = load_file(path, device=str(device))
    return Teacher(tensors.pop("timesteps").tolist(), **tensors)


def _digest(folder: Path, options: TuneOptions) -> str:
    """Of the model and of what tables depend on beside the number of steps."""
    digest = hashlib.blake2b(
        f"{options.guidance_scale} {options.seed} {TRAIN} {HELD_OUT} {_ROUNDS} {_BATCH}".encode(), digest_size=8
    )
    for path in sorted([*folder.glob("unet/*.safetensors"), folder / "scheduler" / "scheduler_config.json"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _write(folder: Path, scheduler: FewStepScheduler, results: list[Tuned], options: TuneOptions) -> None:
    """The scheduler with the tables that are kept, and its code, as `AutoModel.from_pretrained` reads them; and what
    was measured."""
    tables = {str(t.steps): {"timesteps": t.timesteps, "coefficients": t.coefficients} for t in results if t.kept}
    content = Path(inspect.getsourcefile(FewStepScheduler) or "").read_bytes()
    stem = f"scheduling_few_step_{hashlib.sha256(content).hexdigest()[:8]}"
    entry = {"_class_name": "FewStepScheduler", "auto_map": {"AutoModel": f"{stem}.FewStepScheduler"}}
    with replacing_folder(folder / FEW_STEP_FOLDER) as out:
        _few_step(scheduler.config, tuned=tables).save_pretrained(out)
        (out / f"{stem}.py").write_bytes(content)
        (out / "config.json").write_text(json.dumps(entry, indent=2) + "\n")
        curve(results, options).write(out)
