"""Timesteps and coefficients for few network evaluations, tuned for one trained model: `logsnr tune`.

What `FewStepScheduler` reads is found in three stages, from noise alone, with and without guidance:

1. Teacher. The probability-flow ODE is solved finely from some noise; the states x_k and predictions D_k (of x_0) on a
   grid of timesteps are kept. They lie nearly in a plane for each image, which is why few steps can do (GITS, Chen et
   al., 2405.11326).
2. Timesteps. For n steps, dynamic programming chooses the path through the grid with the least sum of squared local
   errors, each that of the best linear map of (x_i, D_i, D_h), h the node before i, to x_j: GITS, with the regressors
   of a multistep sampler in place of Euler's. The coefficients follow by least squares, step after step, from the
   states that the sampler itself has reached.
3. Refinement. Gauss-Newton steps (Levenberg-Marquardt) on coefficients and timesteps against the teacher's end points
   (the loss of LD3, 2405.15506, and S4S, 2502.17423), with the Jacobian by finite differences: there are few
   unknowns, and a change in step k costs the evaluations after k only.

A table is judged on held-out noise, and kept only where it beats the untuned default there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from logsnr.checkpoint import read_json, replacing_file, replacing_folder, write_atomically
from logsnr.config import TuneOptions
from logsnr.errors import ModelError
from logsnr.hub import load
from logsnr.locate import FEW_STEP_FOLDER, model_folder
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.sample import choose_device
from logsnr.schedulers.scheduling_few_step import HISTORY, FewStepScheduler, Table, adams_table

TRAIN, HELD_OUT = 48, 32
"""Numbers of images' noise that tuning learns from, and is judged on."""
_GRID, _SUBSTEPS = 50, 2


@dataclass(frozen=True)
class Tuned:
    """What came of one number of steps: distances (RMSE) to the teacher's ends on held-out noise, one a guidance."""

    steps: int
    timesteps: list[int]
    coefficients: Table
    default: list[float]
    tuned: list[float]

    @property
    def kept(self) -> bool:
        """Whether it beats the default."""
        return math.hypot(*self.tuned) < math.hypot(*self.default)


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


def tune(source: Path, options: TuneOptions) -> list[Tuned]:
    """Tune the model of a run or model folder, and write the tables into it. The same call goes on where it was cut."""
    folder = model_folder(source)
    pipeline = load(folder).to(choose_device())
    sampler = Sampler(pipeline, options.guidance_scale)
    kept = source / "tuning" / _digest(folder, options)
    with torch.inference_mode():
        teachers = []
        for name, count, seed in (("train", TRAIN, options.seed), ("held_out", HELD_OUT, options.seed + 1)):
            path = kept / f"{name}.safetensors"
            if not path.exists():
                _save(sampler.teacher(count, seed, name), path)
            teachers.append(_load(path, sampler.device))
        results = []
        for n in sorted(set(options.steps)):
            path = kept / f"steps-{n}.json"
            if not path.exists():
                write_atomically(path, json.dumps(dataclasses.asdict(_tune_steps(sampler, n, *teachers))) + "\n")
            results.append(Tuned(**read_json(path)))
    _write(folder, sampler.scheduler, results)
    return results


class Sampler:
    """The model as a function x_t -> x_0, and multistep recursions over it; in float32 on the model's device."""

    def __init__(self, pipeline: PixelDiffusionPipeline, guidance_scale: float) -> None:
        self.unet = pipeline.unet.eval()
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

    def output(self, x: Tensor, t: Any, guidance: float) -> Tensor:
        """Of the network at timestep t, the classes taken in turn."""
        if self.num_classes is None:
            plain: Tensor = self.unet(x, t).sample
            return plain
        labels = torch.arange(len(x), device=self.device) % self.num_classes
        if guidance == 1:
            conditional: Tensor = self.unet(x, t, labels).sample
            return conditional
        both = torch.cat([torch.full_like(labels, self.num_classes), labels])
        null, conditional = self.unet(torch.cat([x, x]), t, both).sample.chunk(2)
        guided: Tensor = null + guidance * (conditional - null)
        return guided

    def predict(self, x: Tensor, t: int, guidance: float) -> Tensor:
        """x_0 of x at timestep t."""
        return self.scheduler.to_original(self.output(x, t, guidance), t, x)

    def teacher(self, count: int, seed: int, name: str) -> Teacher:
        """Fine solutions with every guidance, with a progress bar."""
        # from T - 1, where sampling begins; even, for rounded steps of 1 and 2 in turn would upset the extrapolation
        fine = self.scheduler.default_timesteps(min(_GRID * _SUBSTEPS, len(self.scheduler)))
        rows = adams_table(self.scheduler.angles[fine].tolist())
        noise, states, predictions, ends = self.noise(count, seed), [], [], []
        with tqdm(total=len(fine) * len(self.guidances), desc=f"teacher, {name}", delay=2, dynamic_ncols=True) as bar:
            for guidance in self.guidances:
                x, seen = noise, []
                history: list[Tensor] = []
                for t, row in zip(fine, rows, strict=True):
                    d = self.predict(x, t, guidance)
                    seen.append((x, d))
                    x, history = advance(row, x, d, history)
                    bar.update()
                states.append(torch.stack([x for x, _ in seen[::_SUBSTEPS]]))
                predictions.append(torch.stack([d for _, d in seen[::_SUBSTEPS]]))
                ends.append(x)
        return Teacher(fine[::_SUBSTEPS], torch.stack(states), torch.stack(predictions), torch.stack(ends))

    def run(
        self,
        timesteps: list[int],
        table: Table,
        guidance: float,
        x: Tensor,
        history: list[Tensor] | None = None,
        start: int = 0,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor, list[Tensor]]]]:
        """The end of the recursion from step `start` on, and (x, D, history) before each step."""
        history, passed = history or [], []
        for t, row in zip(timesteps[start:], table[start:], strict=True):
            d = self.predict(x, t, guidance)
            passed.append((x, d, history))
            x, history = advance(row, x, d, history)
        return x, passed

    def errors(self, timesteps: list[int], table: Table, teacher: Teacher) -> list[float]:
        """RMSE to the teacher's ends, one a guidance."""
        ends = [self.run(timesteps, table, w, teacher.noise)[0] for w in self.guidances]
        return [float((x - end).square().mean().sqrt()) for x, end in zip(ends, teacher.ends, strict=True)]


def _few_step(config: Any, **more: Any) -> FewStepScheduler:
    scheduler = FewStepScheduler.from_config(config, **more)
    assert isinstance(scheduler, FewStepScheduler)  # from_config is typed for more than it does here
    return scheduler


def advance(row: list[float], x: Tensor, d: Tensor, history: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of the table: the next x and the history for it."""
    r, c, *b = row
    history = [d + r * x if r else d, *history][:HISTORY]
    after = c * x
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


def least_squares_table(sampler: Sampler, teacher: Teacher, path: list[int]) -> Table:
    """Coefficients that bring each step nearest to the teacher's next state, from where the sampler is."""
    xs, table = [teacher.noise] * len(sampler.guidances), []
    histories: list[list[Tensor]] = [[] for _ in xs]
    for i, after in zip(path, [*path[1:], None], strict=True):
        ds = [sampler.predict(x, teacher.timesteps[i], w) for x, w in zip(xs, sampler.guidances, strict=True)]
        targets = teacher.ends if after is None else teacher.states[:, after]
        terms = [[x, d, *history[: HISTORY - 1]] for x, d, history in zip(xs, ds, histories, strict=True)]
        a = torch.stack([torch.cat([v.flatten() for v in column]) for column in zip(*terms, strict=True)]).double()
        solution = _ridge(a @ a.T, a @ targets.flatten().double(), 1e-6)
        table.append([0.0, *solution.tolist(), *[0.0] * (HISTORY + 1 - len(solution))])
        moved = [advance(table[-1], x, d, history) for x, d, history in zip(xs, ds, histories, strict=True)]
        xs, histories = [x for x, _ in moved], [history for _, history in moved]
    return table


def _ridge(a: Tensor, b: Tensor, damping: float) -> Tensor:
    scale = a.diagonal().sqrt()
    a = a / scale[:, None] / scale + damping * torch.eye(len(a), dtype=a.dtype, device=a.device)
    solution: Tensor = torch.linalg.solve(a, b / scale) / scale
    return solution


def _tune_steps(sampler: Sampler, n: int, train: Teacher, held_out: Teacher) -> Tuned:
    default = sampler.scheduler.default_timesteps(n)
    default_errors = sampler.errors(default, adams_table(sampler.scheduler.angles[default].tolist()), held_out)
    path = best_path(train, n)
    timesteps, table = [train.timesteps[i] for i in path], least_squares_table(sampler, train, path)
    found = Tuned(n, timesteps, table, default_errors, sampler.errors(timesteps, table, held_out))
    for better in refined(sampler, train, timesteps, table, rounds=max(1, round(12 / n))):
        errors = sampler.errors(*better, held_out)
        if math.hypot(*errors) < math.hypot(*found.tuned):
            found = Tuned(n, *better, default_errors, errors)
    return found


def refined(
    sampler: Sampler, train: Teacher, timesteps: list[int], table: Table, rounds: int
) -> Iterator[tuple[list[int], Table]]:
    """Each better (timesteps, table) that Gauss-Newton finds, with a progress bar: stage 3 above."""
    damping, loss, n = 1e-3, math.hypot(*sampler.errors(timesteps, table, train)), len(timesteps)
    with tqdm(total=rounds * n * len(sampler.guidances), desc=f"{n} steps", delay=2, dynamic_ncols=True) as bar:
        for _ in range(rounds):
            unknowns, jacobian, residuals = _jacobian(sampler, train, timesteps, table, bar)
            normal, gradient = jacobian @ jacobian.T, jacobian @ residuals
            for _ in range(5):
                change = -_ridge(normal, gradient, damping)
                moved, new = list(map(float, timesteps)), [list(row) for row in table]
                for (k, j), value in zip(unknowns, change.tolist(), strict=True):
                    if j == 0:
                        moved[k] += value
                    else:
                        new[k][j] += value
                rounded = [round(t) for t in moved]
                if all(a > b for a, b in zip(rounded, [*rounded[1:], -1], strict=True)):
                    new_loss = math.hypot(*sampler.errors(rounded, new, train))
                    if new_loss < loss:
                        timesteps, table, loss, damping = rounded, new, new_loss, damping / 5
                        yield timesteps, table
                        break
                damping *= 10
            else:
                return


def _jacobian(
    sampler: Sampler, train: Teacher, timesteps: list[int], table: Table, bar: Any
) -> tuple[list[tuple[int, int]], Tensor, Tensor]:
    """The unknowns (step, column of the table, or 0 for the timestep), d end / d unknown, and end - teacher's end."""
    blocks, residuals = [], []
    for guidance, goal in zip(sampler.guidances, train.ends, strict=True):
        end, passed = sampler.run(timesteps, table, guidance, train.noise)
        residuals.append((end - goal).flatten())
        unknowns, rows = [], []
        for k, (x, d, history) in enumerate(passed):
            after, remembered = advance(table[k], x, d, history)
            for j, direction in enumerate([x, d, *history[: HISTORY - 1]], start=1):
                size = 3e-3 / float(direction.square().mean().sqrt())
                shifted, _ = sampler.run(timesteps, table, guidance, after + size * direction, remembered, k + 1)
                unknowns.append((k, j))
                rows.append((shifted - end).flatten() / size)
            if k > 0:
                size = max(1, timesteps[k] // 100)
                elsewhere = [*timesteps[:k], timesteps[k] + size, *timesteps[k + 1 :]]
                shifted, _ = sampler.run(elsewhere, table, guidance, x, history, k)
                unknowns.append((k, 0))
                rows.append((shifted - end).flatten() / size)
            bar.update()
        blocks.append(torch.stack(rows))
    return unknowns, torch.cat(blocks, 1).double(), torch.cat(residuals).double()


# -- files ------------------------------------------------------------------------------------------------------------


def _save(teacher: Teacher, path: Path) -> None:
    tensors = {name: getattr(teacher, name).contiguous().cpu() for name in ("states", "predictions", "ends")}
    with replacing_file(path) as temporary:
        save_file({**tensors, "timesteps": torch.tensor(teacher.timesteps)}, temporary)


def _load(path: Path, device: torch.device) -> Teacher:
    tensors = load_file(path, device=str(device))
    return Teacher(tensors.pop("timesteps").tolist(), **tensors)


def _digest(folder: Path, options: TuneOptions) -> str:
    """Of the model and of what tables depend on beside the number of steps."""
    digest = hashlib.blake2b(f"{options.guidance_scale} {options.seed} {TRAIN} {HELD_OUT}".encode(), digest_size=8)
    for path in sorted([*folder.glob("unet/*.safetensors"), folder / "scheduler" / "scheduler_config.json"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _write(folder: Path, scheduler: FewStepScheduler, results: list[Tuned]) -> None:
    """The scheduler with the tables that are kept, and its code, as `AutoModel.from_pretrained` reads them."""
    tables = {str(t.steps): {"timesteps": t.timesteps, "coefficients": t.coefficients} for t in results if t.kept}
    content = Path(inspect.getsourcefile(FewStepScheduler) or "").read_bytes()
    stem = f"scheduling_few_step_{hashlib.sha256(content).hexdigest()[:8]}"
    entry = {"_class_name": "FewStepScheduler", "auto_map": {"AutoModel": f"{stem}.FewStepScheduler"}}
    with replacing_folder(folder / FEW_STEP_FOLDER) as out:
        _few_step(scheduler.config, tuned=tables).save_pretrained(out)
        (out / f"{stem}.py").write_bytes(content)
        (out / "config.json").write_text(json.dumps(entry, indent=2) + "\n")
