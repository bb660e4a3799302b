"""Draws from p(x_0 | y), by a network that knows p(x_0) alone: one class a method, each a step with its equations.

    x_t = α_t x_0 + σ_t ε          x_0 in [-1, 1]; α_t² = ᾱ_t, σ_t² = 1 - ᾱ_t
    y   = A((x_0 + 1) / 2) + σ n   pictures and measurements in [0, 1]

D(x_t) = E[x_0 | x_t] is the network's estimate. What differs is how E[x_0 | x_t, y] is had from it.

Timesteps lie densely where there is little noise: (σ_t / α_t)^(1/7) falls evenly (Karras et al. 2022, arXiv
2206.00364, eq. 5), from what the method begins with to 1 / steps (.01 at least), or as far as the chain reaches. Evenly
spaced timesteps spend most of their steps where nothing is decided; so do few steps that begin with much noise, or end
with next to none.

The errors named below are of `benchmarks/restoration_exact.py`: the distance (W2) of the draws' distribution from the
exact one, in standard deviations of the latter, on a Gaussian of 16 dimensions with its exact network; for inpainting,
blur and down-scaling. As many exact draws have .04.

This file stands alone: it is copied beside the pipelines that use it.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

_MOST, _LEAST, _POWER = 200.0, 0.01, 7.0
_QUIET = 2e-3
"""Below this σ a measurement counts as that noisy: equations without noise are singular."""


class Level(NamedTuple):
    """A timestep of the network's chain: x_t = alpha x_0 + sigma ε."""

    timestep: int
    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """The noise in the picture's own scale."""
        return self.sigma / self.alpha


def spaced(alphas_cumprod: Tensor, steps: int, most: float = _MOST, start: int | None = None) -> list[Level]:
    """`steps` timesteps of a chain, falling, spaced as the file's text says, from σ_t / α_t = `most` or timestep
    `start`, whichever has less noise. `ValueError` if it has fewer."""
    alpha_bar = alphas_cumprod.double().cpu()
    ratios = ((1 - alpha_bar) / alpha_bar.clamp(min=1e-20)).sqrt()
    first = max(0, int((ratios <= most).sum()) - 1)
    first = first if start is None else min(first, start)
    last = min(int((ratios < max(_LEAST, 1 / max(1, steps))).sum()), first)
    if not 1 <= steps <= first - last + 1:
        raise ValueError(f"num_inference_steps must be in 1..{first - last + 1}, and is {steps}.")
    high, low = (float(ratios[t]) ** (1 / _POWER) for t in (first, last))
    wanted = torch.linspace(high, low, steps, dtype=torch.float64) ** _POWER
    chosen = [int(t) for t in (ratios.log()[None] - wanted.log()[:, None]).abs().argmin(1)]
    for k in range(1, steps):  # each of its own, from the first down
        chosen[k] = min(chosen[k], chosen[k - 1] - 1)
    for k in range(steps):  # and room for those that follow
        chosen[k] = max(chosen[k], last + steps - 1 - k)
    return [Level(t, float(alpha_bar[t].sqrt()), float((1 - alpha_bar[t]).sqrt())) for t in chosen]


class Measured(Protocol):
    """What the methods ask of an operator; see the file of operators."""

    shape: tuple[int, ...]
    noise_std: float
    linear: bool

    @property
    def num_measured(self) -> int: ...
    def apply(self, sample: Tensor) -> Tensor: ...
    def adjoint(self, measurement: Tensor) -> Tensor: ...
    def solve(self, z: Tensor, measurement: Tensor, rho: float) -> Tensor: ...
    def pinv(self, measurement: Tensor) -> Tensor: ...
    def observed(self) -> Tensor | None: ...
    def spectrum(self) -> object | None: ...
    def norm(self) -> float: ...


@dataclass(frozen=True)
class Problem:
    """What is to be drawn: n pictures, one for each measurement.

    denoise: D(x_t), (rows, c, h, w) in [-1, 1]; rows may be a multiple of n, those of a picture side by side.
    measurement: (n, ...), in [0, 1].
    generators: of the noise, one for each picture.
    advance: called with the level after each step.
    start: x_0 in [-1, 1] to begin from, with noise added; None begins from noise alone.
    """

    denoise: Callable[[Tensor, Level], Tensor]
    operator: Measured
    measurement: Tensor
    generators: Sequence[torch.Generator]
    advance: Callable[[Level], None]
    start: Tensor | None = None

    @property
    def sigma(self) -> float:
        """Of the noise, on [0, 1]."""
        return max(self.operator.noise_std, _QUIET)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal (rows, ...), each picture's rows from its own generator."""
        each = shape[0] // len(self.generators)
        like = self.measurement
        parts = [torch.randn(each, *shape[1:], generator=g, device=g.device, dtype=like.dtype) for g in self.generators]
        return torch.cat(parts).to(like.device)

    def begin(self, level: Level, copies: int = 1, start: Tensor | None = None) -> Tensor:
        """x_t at the first level, from `self.start`, else `start`, else from noise alone."""
        noise = self.normal((len(self.measurement) * copies, *self.operator.shape))
        start = start if self.start is None else self.start
        if start is None:
            return math.hypot(level.alpha * 0.5, level.sigma) * noise  # of data whose standard deviation is 1/2
        return level.alpha * start.repeat_interleave(copies, 0) + level.sigma * noise

    def residual(self, estimate: Tensor, measurement: Tensor | None = None) -> Tensor:
        """y - A x for x in [-1, 1]."""
        y = self.measurement if measurement is None else measurement
        return y - self.operator.apply((estimate + 1) / 2)


def first_guess(operator: Measured, measurement: Tensor) -> Tensor:
    """x_0 in [-1, 1] as the measurement alone suggests it: the likeliest picture of independent pixels, N(0, 1/4)."""
    gray = torch.full((len(measurement), *operator.shape), 0.5).to(measurement)
    return 2 * operator.solve(gray, measurement, (max(operator.noise_std, 0.005) / 0.25) ** 2) - 1


class Method(Protocol):
    """A way to draw.

    requires: what it can't do without: "linear", "mask", or nothing.
    gradients: whether it needs the network's.
    copies: pictures that it carries for each one that it draws.
    steps: how many are usual.
    most_noise: σ_t / α_t of the first.
    cost: evaluations of the network for a picture; a gradient counts as one more.
    ticks: how often `advance` is called, at most.
    """

    requires: str | None
    gradients: bool
    steps: int
    most_noise: float

    @property
    def copies(self) -> int: ...
    def cost(self, steps: int) -> int: ...
    def ticks(self, steps: int) -> int: ...
    def draw(self, problem: Problem, levels: list[Level]) -> Tensor: ...


# -- Steps -------------------------------------------------------------------------------------------------------


class _Walk:
    """From level to level by second-order steps of the reverse SDE, DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095).

    With h = log(ratio_s / ratio_t) from s to t, and D' = D + (h / 2 h_before) (D - D_before) its extrapolation:

        x_t = (σ_t / σ_s) e^(-h) x_s + α_t (1 - e^(-2h)) D' + σ_t sqrt(1 - e^(-2h)) n
    """

    def __init__(self) -> None:
        self.before: Tensor | None = None
        self.h_before = 1.0

    def mean_and_std(
        self, x: Tensor, estimate: Tensor, now: Level, after: Level, straight: bool = False
    ) -> tuple[Tensor, float]:
        """Of x_t given x_s, where `estimate` is of x_0 at s. straight: without extrapolation, for the last step of few,
        which is long."""
        h = math.log(now.ratio / after.ratio)
        ahead = estimate
        if self.before is not None and not straight:
            ahead = estimate + h / (2 * self.h_before) * (estimate - self.before)
        gain = -math.expm1(-2 * h)
        mean = after.sigma / now.sigma * math.exp(-h) * x + after.alpha * gain * ahead
        return mean, after.sigma * math.sqrt(gain)

    def remember(self, estimate: Tensor, now: Level, after: Level) -> None:
        self.before, self.h_before = estimate, math.log(now.ratio / after.ratio)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows."""
        self.before = None if self.before is None else self.before[rows]


def _descend(problem: Problem, levels: list[Level], estimate: Callable[[Tensor, Level], Tensor]) -> Tensor:
    """From noise to a picture, where `estimate` is E[x_0 | x_t, y]."""
    x, walk = problem.begin(levels[0]), _Walk()
    for now, after in zip(levels, [*levels[1:], None], strict=True):
        found = estimate(x, now)
        problem.advance(now)
        if after is not None:
            mean, std = walk.mean_and_std(x, found, now, after, straight=after is levels[-1])
            x = mean + std * problem.normal(x.shape)
            walk.remember(found, now, after)
    return found


# -- Moment matching ---------------------------------------------------------------------------------------------


class _Corrected(NamedTuple):
    """At a level: D(x_t), E[x_0 | x_t, y], and log p(y | x_t) but for a constant (None unless asked for)."""

    prior: Tensor
    posterior: Tensor
    log_likelihood: Tensor | None


def _corrected(
    problem: Problem, x: Tensor, level: Level, iterations: int, tolerance: float, twist: bool = False
) -> _Corrected:
    """p(x_0 | x_t) taken for the normal distribution of its mean and covariance (Rozet et al. 2024, arXiv 2405.13712):

        C = Cov[x_0 | x_t] = (σ_t² / α_t) ∂D/∂x_t                                         (their eq. 13, Tweedie)
        E[x_0 | x_t, y] = D + C Aᵀ (A C Aᵀ + σ² I)⁻¹ (y - A D)                            (eq. 12)

    A network's Jacobian isn't symmetric, so the system is solved by least residuals; each iteration costs one gradient.
    Where A has a spectrum, they are led by r² A Aᵀ + σ² I, with r² the variance of x_0 given x_t of a pixel alone.
    """
    operator, copies = problem.operator, len(x) // len(problem.measurement)
    y = problem.measurement.repeat_interleave(copies, 0)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        prior = problem.denoise(x, level)
    scale = level.sigma**2 / level.alpha

    def covariance(v: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(prior, x, v, retain_graph=True)
        return scale * gradient

    def spread(v: Tensor) -> tuple[Tensor, Tensor]:
        """C Aᵀ v, and (A C Aᵀ + σ² I) v; A is of pictures in [0, 1], whose unit is two of x_0's."""
        image = covariance(operator.adjoint(v)) / 2
        return image, operator.apply(image) / 2 + problem.sigma**2 * v

    right = problem.residual(prior.detach(), y)
    likelihood = None
    if right[0].numel() <= iterations:  # the matrix itself, by a gradient for each of its columns
        units = torch.eye(right[0].numel()).to(right).view(-1, 1, *right.shape[1:])
        columns = [spread(unit.expand_as(right)) for unit in units]
        matrix = torch.stack([column.flatten(1) for _, column in columns], 2)
        weights = torch.linalg.solve(matrix, right.flatten(1)).view(right.shape)
        parts = zip(columns, weights.flatten(1).unbind(1), strict=True)
        images = torch.stack([_scaled(image, weight) for (image, _), weight in parts])
        images, log_determinant = images.sum(0), torch.linalg.slogdet(matrix).logabsdet
    else:
        weights, images = _residuals(spread, right, iterations, tolerance, _preconditioner(problem, level))
        if twist:
            # log det by the trace, of one probe: exact where A C Aᵀ is a multiple of the identity
            probe = problem.normal(right.shape).sign()
            count = operator.num_measured
            trace = (probe * spread(probe)[1]).flatten(1).sum(1) - problem.sigma**2 * (right[0].numel() - count)
            log_determinant = count * (trace / count).clamp(min=problem.sigma**2).log()
    if twist:
        likelihood = -0.5 * (right * weights).flatten(1).sum(1) - 0.5 * log_determinant
    return _Corrected(prior.detach(), prior.detach() + images, likelihood)


def _preconditioner(problem: Problem, level: Level) -> Callable[[Tensor], Tensor]:
    """(r² A Aᵀ + σ² I)⁻¹ where A has a spectrum, in which `solve` is quick; else nothing is changed."""
    operator = problem.operator
    if operator.spectrum() is None:
        return lambda v: v
    noise, alone = (level.ratio / 2) ** 2, 0.25**2  # on [0, 1]
    rho = problem.sigma**2 * (1 / noise + 1 / alone)

    def precondition(v: Tensor) -> Tensor:
        explained = operator.solve(v.new_zeros(len(v), *operator.shape), v, rho)
        return (v - operator.apply(explained)) / problem.sigma**2

    return precondition


def _residuals(
    spread: Callable[[Tensor], tuple[Tensor, Tensor]],
    right: Tensor,
    iterations: int,
    tolerance: float,
    precondition: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """w with M w = right, and the image that belongs to it, where spread(v) is (the image of v, M v): generalised
    conjugate residuals, the least residual over P r_0, P r_1, … (Eisenstat et al. 1983), with P near to M⁻¹.

    Each row stops by itself, when its residual is under `tolerance` of |right|, so that rows don't feel one another.
    """
    rest, solution, image = right, torch.zeros_like(right), torch.zeros(())
    enough = tolerance * right.flatten(1).norm(dim=1)
    before: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(iterations):
        active = rest.flatten(1).norm(dim=1) > enough
        if before and not bool(active.any()):
            break
        direction = precondition(rest)
        seen, product = spread(direction)
        for earlier in before:
            overlap = (product * earlier[0]).flatten(1).sum(1)
            product, seen, direction = (
                v - _scaled(e, overlap) for v, e in zip((product, seen, direction), earlier, strict=True)
            )
        length = product.flatten(1).norm(dim=1)
        unit = torch.where(active & (length > 0), 1 / length.clamp(min=1e-30), 0.0)
        product, seen, direction = (_scaled(v, unit) for v in (product, seen, direction))
        before.append((product, seen, direction))
        along = (rest * product).flatten(1).sum(1)
        rest = rest - _scaled(product, along)
        solution, image = solution + _scaled(direction, along), image + _scaled(seen, along)
    return solution, image


def _scaled(rows: Tensor, factors: Tensor) -> Tensor:
    """Each row times its factor."""
    return rows * factors.view(-1, *[1] * (rows.ndim - 1))


@dataclass(frozen=True)
class Moment:
    """Moment matching (MMPS; Rozet et al. 2024, arXiv 2405.13712). For linear operators; the default.

    Exact on a Gaussian in the limit of many steps and iterations: .06, .08, .05 in 20 steps, .03, .04, .04 in 100. Of
    several modes one chain can pick those of the wrong weight: see `particles`.

    num_iterations: most iterations of the solver in a step, each of which costs a gradient.
    tolerance: it stops when this share of the residual is left.
    """

    num_iterations: int = 8
    tolerance: float = 1e-3
    requires = "linear"
    gradients = True
    steps = 20
    most_noise = 10.0
    copies = 1

    def cost(self, steps: int) -> int:
        return steps * (1 + self.num_iterations)

    def ticks(self, steps: int) -> int:
        return steps

    def draw(self, problem: Problem, levels: list[Level]) -> Tensor:
        return _descend(
            problem,
            levels,
            lambda x, level: _corrected(problem, x, level, self.num_iterations, self.tolerance).posterior,
        )


@dataclass(frozen=True)
class Particles:
    """Twisted sequential Monte Carlo (TDS; Wu et al. 2023, arXiv 2306.17775), proposal and twist by moment matching.

    Each draw is one of `num_particles`, which are weighted in each step by how well they explain y, and chosen anew
    when few of them carry the weight. Exact in the limit of many particles and steps: .04 in 100 steps with 16, and the
    only method for several modes (benchmarks/restoration_mixture.md). On trained networks few particles outlive, which
    is said; a draw is then no better than one of `moment`.

    num_particles: for each draw, at that many times the cost.
    num_iterations, tolerance: of the solver, as in `moment`.
    """

    num_particles: int = 8
    num_iterations: int = 8
    tolerance: float = 1e-3
    requires = "linear"
    gradients = True
    steps = 50
    most_noise = 20.0

    @property
    def copies(self) -> int:
        return self.num_particles

    def cost(self, steps: int) -> int:
        return steps * self.num_particles * (2 + self.num_iterations)

    def ticks(self, steps: int) -> int:
        return steps

    def draw(self, problem: Problem, levels: list[Level]) -> Tensor:
        number, count = len(problem.measurement), self.num_particles
        x = problem.begin(levels[0], count)
        free, guided = _Walk(), _Walk()
        base = x.new_zeros(number, count)  # log weights but for the twist at x
        alive = []
        for now, after in zip(levels, [*levels[1:], None], strict=True):
            found = _corrected(problem, x, now, self.num_iterations, self.tolerance, twist=True)
            problem.advance(now)
            assert found.log_likelihood is not None
            twist = found.log_likelihood.view(number, count)
            weights = (base + twist).softmax(1)
            if after is None:
                break
            effective = 1 / weights.square().sum(1)
            alive.append(float(effective.mean()))
            few = (effective < count / 2)[:, None]
            kept = torch.where(few, _systematic(problem, weights), torch.arange(count, device=x.device))
            base = torch.where(few, -twist.gather(1, kept), base)
            rows = (kept + count * torch.arange(number, device=x.device)[:, None]).flatten()
            for walk in (free, guided):
                walk.keep(rows)
            x, prior, posterior = x[rows], found.prior[rows], found.posterior[rows]
            free_mean, std = free.mean_and_std(x, prior, now, after)
            mean, _ = guided.mean_and_std(x, posterior, now, after)
            free.remember(prior, now, after)
            guided.remember(posterior, now, after)
            noise = problem.normal(x.shape)
            x = mean + std * noise
            # log N(x_t; free mean, std²) - log N(x_t; mean, std²)
            change = 0.5 * (noise.square() - ((x - free_mean) / std).square())
            base = base + change.flatten(1).sum(1).view(number, count)
        _warn_of_few(alive, count)
        chosen = _systematic(problem, weights)[:, 0] + count * torch.arange(number, device=x.device)
        return found.posterior[chosen]


def _systematic(problem: Problem, weights: Tensor) -> Tensor:
    """Indices drawn in proportion to `weights`, (n, particles), in an order of chance, each picture's by itself."""
    count = weights.shape[1]
    kept = []
    for row, generator in zip(weights.double().cpu(), problem.generators, strict=True):
        start = torch.rand(1, generator=generator, device=generator.device, dtype=torch.float64).cpu()
        order = torch.randperm(count, generator=generator, device=generator.device).cpu()
        points = (start + torch.arange(count)) / count
        kept.append(torch.searchsorted(row.cumsum(0) / row.sum(), points).clamp(max=count - 1)[order])
    return torch.stack(kept).to(weights.device)


def _warn_of_few(alive: list[float], count: int) -> None:
    if count >= 4 and alive and (least := sorted(alive)[len(alive) // 10]) < 0.25 * count:
        warnings.warn(
            f"of {count} particles, {least:.1f} carried the weight in the worst tenth of the steps: draws are about "
            "those of method moment, which costs less. More particles or more steps help where the network is exact.",
            stacklevel=2,
        )


# -- Without the covariance ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DiffPir:
    """DiffPIR (Zhu et al. 2023, arXiv 2305.08995, algorithm 1). For every operator, without gradients: the quickest.

        x̂_0 = argmin_x |y - A x|² / σ² + |x - D|² / r_t²,   r_t² = (σ_t / α_t)² / λ
        ε̂   = (x_t - α_t x̂_0) / σ_t
        x_s  = α_s x̂_0 + σ_s (sqrt(1 - ζ) ε̂ + sqrt(ζ) n)

    Biased, .43, .36 and .34 in 20 steps, .31 in 100: r_t isn't the uncertainty of D, and what is drawn varies less than
    what is possible. With ζ = 1 a step remembers nothing but x̂_0, so that steps of more noise than the data have
    variance are wasted: it begins where σ_t / α_t is 5, from what y alone suggests.

    lambda_: λ; more stays nearer to D.
    zeta: ζ in [0, 1], the share of the noise that is new in each step.
    """

    lambda_: float = 1.0
    zeta: float = 1.0
    requires = None
    gradients = False
    steps = 20
    most_noise = 5.0
    copies = 1

    def cost(self, steps: int) -> int:
        return steps

    def ticks(self, steps: int) -> int:
        return steps

    def draw(self, problem: Problem, levels: list[Level]) -> Tensor:
        x = problem.begin(levels[0], start=first_guess(problem.operator, problem.measurement))
        for now, after in zip(levels, [*levels[1:], None], strict=True):
            estimate = problem.denoise(x, now)
            problem.advance(now)
            rho = self.lambda_ * (2 * problem.sigma / now.ratio) ** 2  # r_t is of pictures in [-1, 1]
            found = 2 * problem.operator.solve((estimate + 1) / 2, problem.measurement, rho) - 1
            if after is not None:
                seen = (x - now.alpha * found) / now.sigma
                noise = math.sqrt(1 - self.zeta) * seen + math.sqrt(self.zeta) * problem.normal(x.shape)
                x = after.alpha * found + after.sigma * noise
        return found


@dataclass(frozen=True)
class Dps:
    """Diffusion posterior sampling (DPS; Chung et al. 2022, arXiv 2209.14687), for every operator that has a gradient.

    Each step of the reverse SDE is followed by one against the gradient of |y - A(D(x_t))|, whose length is
    `step_size` times that of the noise at hand, times the share of it that the step takes away: so it doesn't grow with
    the number of steps. Biased, .26, .37 and .13 in 20 steps, .24, .16 and .32 in 100; for few evaluations, and where
    nothing else can be had.
    """

    step_size: float = 0.5
    requires = None
    gradients = True
    steps = 100
    most_noise = 10.0
    copies = 1

    def cost(self, steps: int) -> int:
        return 2 * steps

    def ticks(self, steps: int) -> int:
        return steps

    def draw(self, problem: Problem, levels: list[Level]) -> Tensor:
        x, walk = problem.begin(levels[0]), _Walk()
        for now, after in zip(levels, [*levels[1:], None], strict=True):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                estimate = problem.denoise(x, now)
                misfit = problem.residual(estimate).flatten(1).norm(dim=1)
                (gradient,) = torch.autograd.grad(misfit.sum(), x)
            x, estimate = x.detach(), estimate.detach()
            problem.advance(now)
            if after is not None:
                mean, std = walk.mean_and_std(x, estimate, now, after, straight=after is levels[-1])
                walk.remember(estimate, now, after)
                unit = _scaled(gradient, 1 / gradient.flatten(1).norm(dim=1).clamp(min=1e-30))
                share = 1 - (after.ratio / now.ratio) ** 2  # 1 - e^(-2h), of the noise that the step takes away
                length = self.step_size * share * after.sigma * math.sqrt(x[0].numel())
                x = mean + std * problem.normal(x.shape) - length * unit
        return estimate


@dataclass(frozen=True)
class RePaint:
    """RePaint (Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1), for masks: known pixels are replaced by y with
    noise of the level, and each step is gone `num_resamples` times so that the others come to fit."""

    num_resamples: int = 5
    requires = "mask"
    gradients = False
    steps = 20
    most_noise = _MOST
    copies = 1

    def cost(self, steps: int) -> int:
        return steps * self.num_resamples

    def ticks(self, steps: int) -> int:
        return (steps - 1) * self.num_resamples + 1

    def draw(self, problem: Problem, levels: list[Level]) -> Tensor:
        known = problem.operator.observed()
        assert known is not None
        known = known.to(problem.measurement.device)
        seen, sigma = 2 * problem.measurement - 1, 2 * problem.sigma
        x = problem.begin(levels[0])
        for now, after in zip(levels, [*levels[1:], None], strict=True):
            for again in range(self.num_resamples if after is not None else 1):
                estimate = problem.denoise(x, now)
                problem.advance(now)
                if after is None:
                    break
                mean, std = _Walk().mean_and_std(x, estimate, now, after)
                missing = math.sqrt(max(0.0, after.sigma**2 - (after.alpha * sigma) ** 2))
                noise = problem.normal((2 * len(x), *x.shape[1:])).unflatten(0, (len(x), 2)).unbind(1)
                lower = torch.where(known, after.alpha * seen + missing * noise[0], mean + std * noise[1])
                if again + 1 < self.num_resamples:  # up again: q(x_s | x_t)
                    rise = now.alpha / after.alpha
                    rest = math.sqrt(now.sigma**2 - (rise * after.sigma) ** 2)
                    lower = rise * lower + rest * problem.normal(x.shape)
                x = lower
        return torch.where(known & (problem.operator.noise_std == 0), seen, estimate)


# -- Split Gibbs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gibbs:
    """The split Gibbs sampler (PnP-DM; Wu et al. 2024, arXiv 2405.18782): in turn a picture z that explains y, near x,
    and a picture x of the network's, near z. For every operator.

        z ~ p(y | z) N(z; x, ρ² I)          x ~ p(x) N(z; x, ρ² I): the reverse SDE from the level whose noise is ρ

    ρ falls from `rho` over the first half of the rounds. It is exact as ρ goes to 0, where nothing moves any more;
    for linear A it is exact at every ρ with ρ² |A|² < σ² too, for there z may be given a narrower likelihood,
    N(y; A z, σ² I - ρ² A Aᵀ), which with what the coupling adds is that of x:

        z | x, y ~ N(x + ρ²/σ² Aᵀ (y - A x), ρ² I - ρ⁴/σ² AᵀA)

    In 1,000 steps .04; in 200 .28 where pixels are hidden, for ρ is small beside what they can be, else .04.

    rho: of the first round, of pictures in [0, 1].
    num_inner_steps: evaluations of the network in a round.
    """

    rho: float = 1.0
    num_inner_steps: int = 8
    requires = None
    gradients = False
    steps = 200
    most_noise = _MOST
    copies = 1

    def cost(self, steps: int) -> int:
        return steps

    def ticks(self, steps: int) -> int:
        return steps

    def draw(self, problem: Problem, levels: list[Level]) -> Tensor:
        operator, y, sigma = problem.operator, problem.measurement, problem.sigma
        last = sigma / math.sqrt(2 * operator.norm()) if operator.linear else 0.02
        last = min(max(last, levels[-1].ratio), 0.5 * self.rho)
        rounds = max(2, len(levels) // self.num_inner_steps)
        x = (self._begin(problem, levels) + 1) / 2
        for k in range(rounds):
            rho = last * (self.rho / last) ** max(0.0, 1 - k / (rounds // 2))
            inner = self._inner(levels, 2 * rho)
            rho = inner[0].ratio / 2
            if not operator.linear:
                z = self._langevin(problem, x, rho)
            elif rho**2 * operator.norm() <= 0.55 * sigma**2:
                pull = operator.adjoint(y - operator.apply(x))
                z = x + (rho / sigma) ** 2 * pull + rho * self._narrowed(problem, rho, x.shape)
            else:  # the exact draw: solve for what was moved at random
                moved, noise = x + rho * problem.normal(x.shape), problem.normal(y.shape)
                z = operator.solve(moved, y + sigma * noise, (sigma / rho) ** 2)
            x = (self._denoised(problem, inner[0].alpha * (2 * z - 1), inner) + 1) / 2
        return 2 * x - 1

    def _begin(self, problem: Problem, levels: list[Level]) -> Tensor:
        return problem.start if problem.start is not None else problem.begin(levels[0]).clamp(-1, 1)

    def _inner(self, levels: list[Level], ratio: float) -> list[Level]:
        """Levels from the one whose noise is nearest to `ratio` down to the last, as many as a round has."""
        first = min(range(len(levels)), key=lambda k: abs(math.log(levels[k].ratio / ratio)))
        count = min(self.num_inner_steps, len(levels) - first)
        places = torch.linspace(first, len(levels) - 1, count, dtype=torch.float64).round().long().tolist()
        return [levels[k] for k in places]

    def _denoised(self, problem: Problem, x: Tensor, levels: list[Level]) -> Tensor:
        """A draw from p(x_0 | x_t)."""
        walk = _Walk()
        for now, after in zip(levels, [*levels[1:], None], strict=True):
            found = problem.denoise(x, now)
            problem.advance(now)
            if after is not None:
                mean, std = walk.mean_and_std(x, found, now, after)
                x = mean + std * problem.normal(x.shape)
                walk.remember(found, now, after)
        return found

    def _narrowed(self, problem: Problem, rho: float, shape: Sequence[int]) -> Tensor:
        """sqrt(I - (ρ/σ)² AᵀA) n, by the binomial series, whose terms fall at least as 0.55^k."""
        term = total = problem.normal(shape)
        for k in range(1, 30):
            applied = problem.operator.adjoint(problem.operator.apply(term))
            term = (k - 1.5) / k * (rho / problem.sigma) ** 2 * applied
            total = total + term
        return total

    def _langevin(self, problem: Problem, x: Tensor, rho: float, steps: int = 30) -> Tensor:
        """Unadjusted Langevin steps in z, from the nearest picture that explains y."""
        operator, y, sigma = problem.operator, problem.measurement, problem.sigma
        step = 0.25 / (sigma**-2 + rho**-2)
        z = operator.solve(x, y, (sigma / rho) ** 2)
        for _ in range(steps):
            with torch.enable_grad():
                at = z.detach().requires_grad_()
                misfit = (y - operator.apply(at)).square().sum() / (2 * sigma**2)
                (gradient,) = torch.autograd.grad(misfit, at)
            gradient = gradient + (z - x) / rho**2
            z = z - step * gradient + math.sqrt(2 * step) * problem.normal(z.shape)
        return z


METHODS: dict[str, type[Any]] = {
    "moment": Moment,
    "particles": Particles,
    "diffpir": DiffPir,
    "dps": Dps,
    "gibbs": Gibbs,
    "repaint": RePaint,
}


def make_method(name: str, options: dict[str, Any] | None = None) -> Method:
    """A method by its name, with options. Raises `ValueError` for a name or an option that isn't there."""
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, and is {name!r}.")
    known = [field.name for field in dataclasses.fields(METHODS[name])]
    if unknown := sorted(set(options or {}) - set(known)):
        raise ValueError(f"method {name} has the options {', '.join(known)}, and was given {', '.join(unknown)}.")
    method: Method = METHODS[name](**(options or {}))
    return method
