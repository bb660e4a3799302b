r"""The likelihood of a trained model as a continuous normalising flow: its probability-flow ODE, solved adaptively.

A variance-preserving process at log-SNR lambda has x = a x_0 + s eps with a = cos phi, s = sin phi and
phi = arctan(s / a) = arctan(exp(-lambda / 2)): 0 at the clean image, pi / 2 at pure noise. In phi the
probability-flow ODE (Song et al., 2011.13456, eq. 13) has no coefficients left,

    dx / dphi = v(x, phi),   v = a eps - s x_0,

v being the network's, made from whatever it predicts (Salimans and Ho, 2202.00512, eq. 11 and appendix D). It is
integrated in phi, from 0 to the chain's last timestep, whose x the model takes for N(0, I), and with it the change of
density (Chen et al., 1806.07366, eq. 8)

    log p(x_0) = log N(x_T; 0, I) + int_0^{phi_T} div v dphi.

Between timesteps the network is given a fractional one, linear in phi. Below the first the score is the one at the
first, -eps(x, t = 0) / s_0, so that the flow reaches the clean image itself: for smooth data the error in log p is of
order s_0^4. The network is taken as it is: predictions aren't clipped.

**Dequantisation.** Images of b bits are values 2 k / (2^b - 1) - 1. Uniform noise u of a bin's width w = 2 / (2^b - 1)
makes them continuous, and by Jensen -log P(x) <= E_u -log p(x + u) - D log w (Theis et al., 1511.01844, eq. 4).

**Trace.** div v is the trace of the Jacobian: exact, in D vector-Jacobian products, or Hutchinson's unbiased estimate
e^T (dv / dx) e with one Rademacher vector e for the whole path (Grathwohl et al., 1810.01367), in one.

**Solver and errors.** scipy's `solve_ivp` with RK45 (Dormand and Prince), whose embedded error estimate is held below
`tolerance` on each step, in root mean square over all images of a batch: of x, and of log p over the root of D. (Of
order 8, DOP853 takes more evaluations: networks aren't as smooth as that. scipy is what keeps its solvers in repair.)
An image's figure thus depends on its batch, within the tolerance. What that does to the result is measured: the first
batch is solved again at ten times the tolerance, and the mean difference is `solver_error`. Everything random for
image k, u and e of each of the `repeats`, comes from (seed, k); the standard error is the spread of the images' means
over the root of their number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor
from tqdm import tqdm

from logsnr.base.errors import ConfigError, ModelError
from logsnr.base.noise import signs_like, uniform_like
from logsnr.base.seeds import sample_seeds
from logsnr.data.seeded import Batch, Condition
from logsnr.evaluation.likelihood import first_samples
from logsnr.models.denoiser import Denoiser

Trace = Literal["hutchinson", "exact"]


@dataclass(frozen=True)
class OdeTerms:
    """Bits per dimension, means over the images."""

    total: float
    """The negative log-likelihood; with dequantisation an upper bound on it."""
    standard_error: float
    """From the choice of images, of the dequantising noise and of the trace's probes."""
    solver_error: float
    """Mean change of the first batch's figures when the tolerance is ten times as large."""


@dataclass(frozen=True)
class OdeLikelihood:
    """What `ode_likelihood` found, and how."""

    bits_per_dim: OdeTerms
    num_images: int
    repeats: int
    trace: Trace
    tolerance: float
    evaluations: float
    """Of the network, each with its vector-Jacobian products; mean over the images and repeats."""
    dequantisation: str
    """`uniform, 8 bit`, or `none` for continuous data."""
    seed: int


def ode_likelihood(
    denoiser: Denoiser,
    batches: Iterable[Batch],
    *,
    num_images: int,
    bits: int | None,
    trace: Trace = "hutchinson",
    repeats: int = 1,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> OdeLikelihood:
    """The likelihood of the first `num_images` of `batches`, with a progress bar.

    Args:
        denoiser, batches, num_images, bits, seed: as for `logsnr.evaluation.likelihood.elbo`.
        trace: `exact` costs as many backward passes as an image has values.
        repeats: draws of the dequantising noise and of the trace's probe an image.
        tolerance: of the solver, per step, absolute.

    Raises ConfigError for a number out of its range, ModelError if the solver gives up.
    """
    if num_images < 2:
        raise ConfigError(f"num_images must be at least 2, for a standard error, and is {num_images}.")
    if repeats < 1:
        raise ConfigError(f"repeats must be at least 1, and is {repeats}.")
    if not 0 < tolerance < 0.1:
        raise ConfigError(f"tolerance must be in (0, 0.1), and is {tolerance}.")
    flow = _Flow(denoiser, trace)
    figures: list[Tensor] = []
    evaluations, solver_error = 0.0, None
    with tqdm(
        total=num_images * repeats, desc="ODE likelihood", unit=" images", leave=False, delay=2, dynamic_ncols=True
    ) as bar:
        for batch in first_samples(batches, num_images):
            images, positions = batch.clean, batch.positions.numpy()
            condition = denoiser.conditioner.encode(batch.condition, denoiser.device)
            bpd = torch.zeros(repeats, len(images), dtype=torch.float64)
            for r in range(repeats):
                x, offset = _dequantised(images, bits, sample_seeds(seed, positions, f"dequantisation {r}"))
                probes = signs_like(images, sample_seeds(seed, positions, f"trace {r}"))
                bpd[r], used = flow.bits_per_dim(x, condition, probes, tolerance)
                evaluations += used * len(images) / (num_images * repeats)
                if solver_error is None:
                    looser, _ = flow.bits_per_dim(x, condition, probes, 10 * tolerance)
                    solver_error = float((looser - bpd[r]).mean().abs())
                bar.update(len(images))
            figures.append(bpd.mean(0) + offset)
    each = torch.cat(figures)
    assert solver_error is not None
    return OdeLikelihood(
        OdeTerms(float(each.mean()), float(each.std()) / math.sqrt(len(each)), solver_error),
        num_images=len(each),
        repeats=repeats,
        trace=trace,
        tolerance=tolerance,
        evaluations=evaluations,
        dequantisation="none" if bits is None else f"uniform, {bits} bit",
        seed=seed,
    )


class _Flow:
    """The ODE of one model."""

    def __init__(self, denoiser: Denoiser, trace: Trace) -> None:
        self.denoiser, self.schedule, self.trace = denoiser, denoiser.schedule, trace
        bar = self.schedule.alphas_cumprod.double()
        self.angles = torch.atan2((1 - bar).sqrt(), bar.sqrt()).numpy()

    def bits_per_dim(
        self, images: Tensor, condition: Condition, probes: Tensor, tolerance: float
    ) -> tuple[Tensor, int]:
        """-log2 p of continuous images, per dimension, (batch,), and the evaluations of the network."""
        count, size = len(images), images[0].numel()

        def derivative(angle: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
            x = torch.from_numpy(state[: count * size]).view_as(images)
            velocity, divergence = self._velocity(x, angle, condition, probes)
            return torch.cat([velocity.flatten(), divergence / math.sqrt(size)]).numpy()

        state = torch.cat([images.flatten(), torch.zeros(count, dtype=torch.float64)]).numpy()
        evaluations = 0
        # in two parts, since v has a kink at the first timestep
        for start, end in itertools.pairwise((0.0, float(self.angles[0]), float(self.angles[-1]))):
            solved = solve_ivp(derivative, (start, end), state, "RK45", t_eval=[end], rtol=1e-12, atol=tolerance)
            if not solved.success:
                raise ModelError(f"The ODE can't be solved to the tolerance {tolerance:g}: {solved.message}")
            state, evaluations = solved.y[:, -1], evaluations + solved.nfev
        noise, divergence = torch.from_numpy(state[: count * size]).view(count, size), state[count * size :]
        log_prior = -0.5 * (noise.square() + math.log(2 * math.pi)).mean(1)
        log_prob = log_prior + torch.from_numpy(divergence) / math.sqrt(size)
        return -log_prob / math.log(2), evaluations

    def _velocity(self, x: Tensor, angle: float, condition: Condition, probes: Tensor) -> tuple[Tensor, Tensor]:
        """v, in the shape of x, and its divergence (batch,)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            v = self._v(x, angle, condition)
            if self.trace == "hutchinson":
                (product,) = torch.autograd.grad((v * probes).sum(), x)
                return v.detach(), (product * probes).flatten(1).sum(1)
            divergence = torch.zeros(len(x), dtype=torch.float64)
            each = v.flatten(1)
            for d in range(each.shape[1]):
                (row,) = torch.autograd.grad(each[:, d].sum(), x, retain_graph=d + 1 < each.shape[1])
                divergence += row.flatten(1)[:, d]
            return v.detach(), divergence

    def _v(self, x: Tensor, angle: float, condition: Condition) -> Tensor:
        at = max(angle, float(self.angles[0]))
        timestep = float(np.interp(at, self.angles, np.arange(len(self.angles))))
        output, _ = self.denoiser(x, torch.full((len(x),), timestep), condition)
        a, s = math.cos(at), math.sin(at)
        if self.schedule.prediction_type == "epsilon":
            v = (output - s * x) / a
        elif self.schedule.prediction_type == "sample":
            v = (a * x - output) / s
        elif self.schedule.prediction_type == "v_prediction":
            v = output
        else:
            x_0 = (x + s * output) / (a + s)
            v = (a - s) * x_0 - a * output
        if angle < at:  # the score at the first timestep
            return math.tan(angle) * ((a * v + s * x) / s - x)
        return v


def _dequantised(images: Tensor, bits: int | None, seeds: NDArray[np.int64]) -> tuple[Tensor, float]:
    """Images plus uniform noise within their bins, and what the bins' width adds to the bits per dimension."""
    if bits is None:
        return images, 0.0
    width = 2 / (2**bits - 1)
    return images + width * uniform_like(images, seeds), -math.log2(width)
