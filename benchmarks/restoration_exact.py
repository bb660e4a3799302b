"""How near the draws of each method of repair come to the exact posterior, where that is known.

    python benchmarks/restoration_exact.py gaussian > benchmarks/restoration_gaussian.md     8 minutes on one core
    python benchmarks/restoration_exact.py mixture > benchmarks/restoration_mixture.md       20 minutes

`gaussian`: x_0 ~ N(m, C) of 16 dimensions with the exact network; inpainting (8 of 16 known), blur and means of
four, sigma .05 on [0, 1]. The distance is that of Wasserstein (W2) between normal distributions, in standard
deviations of the posterior: sqrt(W2² / tr Cov).

`mixture`: the task of MCGDiff (Cardoso et al. 2023, arXiv 2308.07983, section 5): 25 normal components, their means on
a grid of distance 8, A and sigma drawn at random, d_y measurements; 20 problems each. The distance is sliced: W1 over
100 directions, of 1,000 draws a side, with the 95 % interval of its mean over the problems.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from logsnr.pipelines.restoration_methods import Level, Problem, make_method, spaced
from logsnr.pipelines.restoration_operators import Operator
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler

CHAIN = CosineBetaScheduler(num_train_timesteps=4000).alphas_cumprod
DOUBLE = torch.float64


class Matrix(Operator):
    """y = A x for pictures (1, 1, d) and a matrix (d_y, d)."""

    def __init__(self, matrix: Tensor, noise_std: float) -> None:
        super().__init__((1, 1, matrix.shape[1]), (len(matrix),), noise_std)
        self.matrix = matrix

    def apply(self, sample: Tensor) -> Tensor:
        return sample.flatten(1) @ self.matrix.T

    def norm(self) -> float:
        return float(torch.linalg.matrix_norm(self.matrix, 2)) ** 2


def draws(
    denoise: Callable[[Tensor, Level], Tensor],
    operator: Operator,
    measurement: Tensor,
    count: int,
    name: str,
    steps: int,
    options: dict[str, float],
) -> Tensor:
    """`count` draws (count, d), in [-1, 1]'s units."""
    method = make_method(name, options)
    generators = [torch.Generator().manual_seed(k) for k in range(count)]
    repeated = measurement.expand(count, -1).contiguous()
    problem = Problem(denoise, operator, repeated, generators, lambda level: None)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return method.draw(problem, spaced(CHAIN, steps, method.most_noise)).flatten(1)


# -- Gaussian ----------------------------------------------------------------------------------------------------


def gaussian(count: int, only: list[str]) -> None:
    size, sigma = 16, 0.05
    generator = torch.Generator().manual_seed(1)
    at = torch.arange(size, dtype=DOUBLE)
    covariance = 0.25 * torch.exp(-(at[:, None] - at[None]).abs() / 4)  # of x in [-1, 1]
    mean = 0.2 * torch.sin(at)
    kernel = torch.exp(-0.5 * (((at[:, None] - at[None] + size / 2) % size - size / 2) / 1.0) ** 2)
    tasks = {
        "inpainting": torch.eye(size, dtype=DOUBLE)[torch.randperm(size, generator=generator)[:8].sort().values],
        "blur": kernel / kernel.sum(1, keepdim=True),
        "×4": torch.eye(4, dtype=DOUBLE).repeat_interleave(4, 1) / 4,
    }
    values, basis = torch.linalg.eigh(covariance)

    def denoise(x: Tensor, level: Level) -> Tensor:
        gain = level.alpha * values / (level.alpha**2 * values + level.sigma**2)
        return (mean + ((x.flatten(1) - level.alpha * mean) @ basis * gain) @ basis.T).view(x.shape)

    rows = [
        ("moment, full solve", "moment", {"num_iterations": 16, "tolerance": 1e-9}, (20, 100, 1000)),
        ("moment", "moment", {}, (20, 100, 1000)),
        ("particles, 16", "particles", {"num_particles": 16}, (100,)),
        ("gibbs", "gibbs", {}, (200, 1000)),
        ("diffpir", "diffpir", {}, (20, 100)),
        ("dps", "dps", {}, (20, 100)),
    ]
    print("# Repair of Gaussian data: how far draws are from the exact posterior\n")
    print(f"W2 over the posterior's standard deviation, of {count:,} draws.")
    print("`python benchmarks/restoration_exact.py gaussian`\n")
    print(f"| method | steps | {' | '.join(tasks)} | seconds |\n|---|---|{'---|' * len(tasks)}---|")
    problems = []
    for matrix in tasks.values():
        operator = Matrix(matrix, sigma)
        half = matrix / 2
        gain = covariance @ half.T @ torch.linalg.inv(half @ covariance @ half.T + sigma**2 * torch.eye(len(half)))
        truth = torch.linalg.cholesky(covariance) @ torch.randn(size, generator=generator, dtype=DOUBLE) + mean
        y = operator.measure(((truth + 1) / 2).view(1, 1, 1, -1), 7)
        centre = mean + gain @ (y[0] - (matrix @ (mean + 1)) / 2)
        problems.append((operator, y, centre, covariance - gain @ half @ covariance))
    exact = []
    for _, _, centre, spread in problems:
        root = torch.linalg.cholesky(spread + 1e-12 * torch.eye(size))
        exact.append(
            distance(centre + torch.randn(count, size, generator=generator, dtype=DOUBLE) @ root.T, centre, spread)
        )
    print(f"| as many exact draws | | {' | '.join(f'{e:.3f}' for e in exact)} | |")
    for label, name, options, numbers in rows:
        if only and name not in only:
            continue
        for steps in numbers:
            found, begun = [], time.perf_counter()
            for operator, y, centre, spread in problems:
                drawn = draws(denoise, operator, y, count, name, steps, options)
                found.append(f"{distance(drawn, centre, spread):.3f}")
            seconds = time.perf_counter() - begun
            print(f"| {label} | {steps:,} | {' | '.join(found)} | {seconds:.0f} |", flush=True)


def distance(drawn: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """W2 between N(mean, covariance) and the normal distribution of the draws' moments, over the standard deviation."""
    own = torch.cov(drawn.T)
    root = _root(covariance)
    cross = _root(root @ own @ root)
    square = (drawn.mean(0) - mean).square().sum() + (own + covariance - 2 * cross).trace()
    return math.sqrt(max(0.0, float(square)) / float(covariance.trace()))


def _root(matrix: Tensor) -> Tensor:
    values, basis = torch.linalg.eigh((matrix + matrix.T) / 2)
    return (basis * values.clamp(min=0).sqrt()) @ basis.T


# -- Mixture -----------------------------------------------------------------------------------------------------


def mixture(problems: int, count: int, particles: int, steps: int, sizes: list[int]) -> None:
    print("# Repair of a mixture: how far draws are from the exact posterior\n")
    print(
        f"Sliced Wasserstein distance, {problems} problems, {count:,} draws a side, {steps} steps. "
        f"`python benchmarks/restoration_exact.py mixture`\n"
    )
    print("| d | method | d_y = 1 | 2 | 4 |\n|---|---|---|---|---|")
    methods = {
        "exact against exact": None,
        f"particles, {particles}": ("particles", {"num_particles": particles}),
        "moment": ("moment", {}),
    }
    for size in sizes:
        cells: dict[str, list[str]] = {label: [] for label in methods}
        for number in (1, 2, 4):
            found: dict[str, list[float]] = {label: [] for label in methods}
            for problem in tqdm(range(problems), desc=f"d = {size}, d_y = {number}", leave=False):
                for label, value in _mixture_problem(size, number, problem, count, steps, methods).items():
                    found[label].append(value)
            for label, values in found.items():
                each = torch.tensor(values, dtype=DOUBLE)
                cells[label].append(f"{each.mean():.2f} ± {1.96 * each.std() / math.sqrt(len(each)):.2f}")
        for label, texts in cells.items():
            print(f"| {size} | {label} | {' | '.join(texts)} |", flush=True)


def _mixture_problem(
    size: int, number: int, seed: int, count: int, steps: int, methods: dict[str, tuple[str, dict[str, int]] | None]
) -> dict[str, float]:
    generator = torch.Generator().manual_seed(1000 * size + 100 * number + seed)
    grid = torch.tensor([(-8.0 * i, -8.0 * j) for i in range(-2, 3) for j in range(-2, 3)], dtype=DOUBLE)
    means = grid.repeat(1, size // 2)
    weights = torch.randn(25, generator=generator, dtype=DOUBLE).square()
    weights = weights / weights.sum()
    u, _, v = torch.linalg.svd(torch.randn(number, size, generator=generator, dtype=DOUBLE), full_matrices=False)
    s = torch.rand(number, generator=generator, dtype=DOUBLE).sort(descending=True).values
    matrix = u @ torch.diag(s) @ v
    sigma = float(torch.rand((), generator=generator, dtype=DOUBLE) * s.max())
    truth = means[torch.multinomial(weights, 1, generator=generator)[0]]
    truth = truth + torch.randn(size, generator=generator, dtype=DOUBLE)
    y = matrix @ truth + sigma * torch.randn(number, generator=generator, dtype=DOUBLE)

    def exact(how_many: int) -> Tensor:
        inner = matrix @ matrix.T + sigma**2 * torch.eye(number)
        misfit = y - means @ matrix.T
        log_weights = weights.log() - 0.5 * (misfit @ torch.linalg.inv(inner) * misfit).sum(1)
        chosen = torch.multinomial(log_weights.softmax(0), how_many, True, generator=generator)
        gain = matrix.T @ torch.linalg.inv(inner)
        x = means[chosen] + torch.randn(how_many, size, generator=generator, dtype=DOUBLE)
        noise = sigma * torch.randn(how_many, number, generator=generator, dtype=DOUBLE)
        return x + (y - x @ matrix.T - noise) @ gain.T

    # In units in which the data's standard deviation is about 1/2: x = scale * x_0, y = A (x_0 + 1) / 2 there.
    scale = 24.0

    def denoise(x: Tensor, level: Level) -> Tensor:
        alpha, sigma_t = level.alpha / scale, level.sigma
        flat, variance = x.flatten(1), (level.alpha / scale) ** 2 + level.sigma**2
        log_weights = weights.log() - 0.5 * torch.cdist(flat, alpha * means).square() / variance
        centre = log_weights.softmax(1) @ means
        return ((centre + alpha / variance * (flat - alpha * centre)) / scale).view(x.shape) + 0 * sigma_t

    operator = Matrix(2 * scale * matrix, sigma)
    shifted = (y + scale * matrix.sum(1))[None]
    directions = torch.nn.functional.normalize(torch.randn(size, 100, generator=generator, dtype=DOUBLE), dim=0)
    truth_draws = exact(count)

    def sliced(draws_: Tensor) -> float:
        a, b = ((part @ directions).sort(0).values for part in (truth_draws, draws_))
        return float((a - b).abs().mean())

    return {
        label: sliced(
            exact(count)
            if how is None
            else scale * draws(denoise, operator, shifted, count, how[0], steps, dict(how[1]))
        )
        for label, how in methods.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["gaussian", "mixture"])
    parser.add_argument("--draws", type=int, help="3,200 of the Gaussian, 1,000 of the mixture unless given")
    parser.add_argument("--only", nargs="*", default=[], help="methods")
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--particles", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="*", default=[8, 80])
    asked = parser.parse_args()
    if asked.what == "gaussian":
        gaussian(asked.draws or 3200, asked.only)
    else:
        mixture(asked.problems, asked.draws or 1000, asked.particles, asked.steps, asked.sizes)
