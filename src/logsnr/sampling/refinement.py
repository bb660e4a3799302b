"""Timesteps and coefficients of a few-step sampler, fitted to fine solutions: what `logsnr tune` finds.

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
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from tqdm import trange

from logsnr.sampling.trajectories import Paths, Solutions, advance
from logsnr.schedulers.scheduling_few_step import HISTORY, Table

_FEWER, _FEWEST = 64, 10
"""Numbers of images that a first guess is fitted to, and that its first timestep is tried on."""
ROUNDS, BATCH = 18, 20
"""Steps of the refinement, and images of each, for each guidance. Ten times the work gains a few percent."""
_PLACES_AT_ONCE = 16_384
"""Pixels, or whatever places there are beside channels, of samples whose gradient is in memory."""
_RATES = 0.7, 0.12
"""Share of the full step that the first and the last round take."""


def best_path(teacher: Solutions, n: int) -> list[int]:
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


def least_squares_table(paths: Paths, teacher: Solutions, path: list[int], first: int) -> tuple[Table, float]:
    """Coefficients that bring each step nearest to the teacher's next state, from where the sampler is, and the RMSE
    at the end. The network sees the noise, which is the path's first state, at the grid's timestep `first`."""
    condition = paths.conditions(len(teacher.noise))
    xs, table = [teacher.noise] * len(paths.guidances), []
    histories: list[list[Tensor]] = [[] for _ in xs]
    for i, after in zip([first, *path[1:]], [*path[1:], None], strict=True):
        t = teacher.timesteps[i]
        ds = [paths.predict(x, t, w, condition) for x, w in zip(xs, paths.guidances, strict=True)]
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


def first_guess(paths: Paths, train: Solutions, n: int) -> tuple[list[int], Table]:
    """Stage 2 above: timesteps and least-squares coefficients, with the best first timestep."""
    path, few = best_path(train, n), train.images(_FEWEST)
    first = min(range(path[1]), key=lambda node: least_squares_table(paths, few, path, node)[1])
    table, _ = least_squares_table(paths, train.images(_FEWER), path, first)
    return [train.timesteps[i] for i in [first, *path[1:]]], table


def refined(paths: Paths, train: Solutions, timesteps: list[int], table: Table) -> tuple[list[int], Table]:
    """Stage 3 above, with a progress bar."""
    n, generator = len(timesteps), torch.Generator().manual_seed(len(timesteps))
    free, values = _free(n), torch.tensor([[t, *row] for t, row in zip(timesteps, table, strict=True)]).double()
    normal, weight, mean = torch.zeros(2 * [free.shape[1]], dtype=torch.float64), 0.0, torch.zeros_like(values)
    last = range(ROUNDS - max(1, ROUNDS // 3), ROUNDS)
    order = torch.empty(0, dtype=torch.long)
    for i in trange(ROUNDS, desc=f"{n} steps", delay=2, dynamic_ncols=True):
        if len(order) < BATCH:
            order = torch.randperm(len(train.noise), generator=generator)
        batch, order = order[:BATCH], order[BATCH:]
        loss, gradient, gauss_newton = _derivatives(paths, train, batch, values, free, generator)
        normal, weight = 0.9 * normal + gauss_newton, 0.9 * weight + 1
        step = -_ridge(normal / weight, gradient, 1e-2)
        step *= _RATES[0] * (_RATES[1] / _RATES[0]) ** (i / (ROUNDS - 1))
        moves = float(step @ (normal / weight) @ step)  # the ends by so much, squared; outside, J is another
        values += (free @ step * min(1.0, math.sqrt(0.25 * loss / moves))).view_as(values)
        values[:, 0] = _apart(values[:, 0], len(paths.scheduler))
        mean += values / len(last) * (i in last)
    rounded = [round(t) for t in mean[:, 0].tolist()]
    return rounded, _with_contrast(paths, train, rounded, mean[:, 1:].tolist())


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


def _with_contrast(paths: Paths, train: Solutions, timesteps: list[int], table: Table) -> Table:
    """The table whose ends have the teacher's variance over the places of a sample, by scaling the last row.

    A sample of channels alone has no places, and keeps its table."""
    if not paths.shape[1:]:
        return table
    condition = paths.conditions(len(train.noise))
    ends = torch.stack([paths.run(timesteps, table, w, train.noise, condition) for w in paths.guidances])
    scale = float((train.ends.flatten(3).var(-1).sum() / ends.flatten(3).var(-1).sum()).sqrt())
    return [*table[:-1], [scale * value for value in table[-1]]]


def _apart(timesteps: Tensor, total: int) -> Tensor:
    """The timesteps in [0, total), each at least 2 below that before."""
    margin = 2.0 * torch.arange(len(timesteps), dtype=timesteps.dtype)
    descending = (timesteps + margin).clamp(max=total - 1).cummin(0).values
    return descending.clamp(min=float(margin[-1])) - margin


def _derivatives(
    paths: Paths, train: Solutions, batch: Tensor, values: Tensor, free: Tensor, generator: torch.Generator
) -> tuple[float, Tensor, Tensor]:
    """Mean square distance to the teacher's ends; half its gradient; and J^T J, estimated: along `free` directions."""
    conditions, total = paths.conditions(len(train.noise)), len(batch) * train.ends[0, 0].numel() * len(paths.guidances)
    loss, count = 0.0, free.shape[1]
    gradient, normal = torch.zeros(count, dtype=torch.float64), torch.zeros(count, count, dtype=torch.float64)
    at_once = max(1, _PLACES_AT_ONCE // math.prod(paths.shape[1:]))
    for guidance, ends in zip(paths.guidances, train.ends, strict=True):
        for part in batch.split(at_once):
            with torch.inference_mode(False), torch.enable_grad():
                # the same values for every image, as variables of its own
                copies = values.float().to(paths.device)[:, :, None].repeat(1, 1, len(part)).requires_grad_()
                rows = copies[:, 1:].reshape(*copies[:, 1:].shape, *[1] * len(paths.shape))
                x, condition = train.noise[part].clone(), {name: c[part].clone() for name, c in conditions.items()}
                end = paths.run(copies[:, 0], rows, guidance, x, condition)
                residual = end.detach() - ends[part].clone()
                random = torch.randn(end.shape, generator=generator).to(end.device)
                (of_residual,) = torch.autograd.grad(end, copies, residual, retain_graph=True)
                (of_random,) = torch.autograd.grad(end, copies, random)
            loss += float(residual.square().sum()) / total
            gradient += free.T @ of_residual.sum(2).flatten().double().cpu() / total
            sketch = free.T @ of_random.flatten(0, 1).double().cpu()
            normal += sketch @ sketch.T / total
    return loss, gradient, normal
