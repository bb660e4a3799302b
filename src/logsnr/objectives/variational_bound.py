r"""The variational bound on -log p(x_0), term by term: what `hybrid` and `vlb` train and what `evaluate` measures.

For a chain of the timesteps t_0 < ... < t_{K-1} = T - 1 (all of them, or a shorter chain through K of them),

    -log p(x_0) <=  KL(q(x_T | x_0) || N(0, I))                                        prior
                  + sum_{i >= 1} E KL(q(x_{i-1} | x_i, x_0) || p(x_{i-1} | x_i))       one KL a step
                  + E -log p(x_0 | x_{i=0})                                            decoder
                                                                        (Ho et al., 2006.11239, eq. 5)

where both Gaussians of a KL have the posterior's mean, one with x_0 and one with the network's x_0'. So, with k the
coefficient of x_0 in that mean and v the posterior's variance, a KL is for each dimension

    1/2 (log(var / v) + v / var - 1) + k^2 (x_0 - x_0')^2 / (2 var)

var is v for `fixed_small`, beta for `fixed_large`, and exp(u log beta + (1 - u) log v) for `learned_range`, u from the
second half of the network's channels (Nichol and Dhariwal, 2102.09672, eq. 15). The decoder is the mass that
N(x_0', var) has on a pixel's bin of width 2 / (2^bits - 1), the first and the last bin reaching to infinity
(2006.11239, eq. 13), or for continuous data (`bits` None) its density.

**The first step.** v is 0 at i = 0, and a decoder of variance 0 makes the bound infinite. As in the code of both
papers the variance there is the v of i = 1, for `fixed_small` and for `fixed_large`; `learned_range` lies between it
and beta_0.

All figures are in bits per dimension, each image's alone.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from logsnr.schedulers.scheduling_beta import BetaScheduler


class VariationalBound:
    """The terms of the bound for one scheduler's chain, or for a shorter one through `num_steps` of its timesteps.

    Args:
        scheduler: the forward process and the kind of the reverse step's variance.
        bits: depth of the images, whose values are then 2 k / (2^bits - 1) - 1; None takes them as continuous.
        num_steps: K; the timesteps are evenly spaced from 0 to T - 1, both in, as in improved DDPM.
        device, dtype: of the tensors that will come.
    """

    def __init__(
        self,
        scheduler: BetaScheduler,
        bits: int | None,
        num_steps: int | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        total = len(scheduler)
        steps = total if num_steps is None else num_steps
        if not 2 <= steps <= total:
            raise ValueError(f"A chain of {total} timesteps can be respaced to 2..{total} of them, not to {steps}.")
        self.timesteps = torch.from_numpy(np.linspace(0, total - 1, steps).round().astype(np.int64))
        self.variance_type = scheduler.variance_type
        self.bits = bits
        bar = scheduler.alphas_cumprod.double()[self.timesteps]
        before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
        beta, var, var_before = 1 - bar / before, 1 - bar, 1 - before
        small = beta / var * var_before
        small[0] = small[1]
        table = torch.stack([before.sqrt() * beta / var, small.log(), beta.log()])
        self._table = table.to(device=device, dtype=dtype)
        self._last = float(bar[-1])

    def __len__(self) -> int:
        return len(self.timesteps)

    def prior(self, images: Tensor) -> Tensor:
        """KL(q(x_T | x_0) || N(0, I)), (batch,), which no network changes."""
        mean, var = self._last**0.5 * images, 1 - self._last
        return _per_image(0.5 * (mean.square() + var - 1 - math.log(var)))

    def terms(self, images: Tensor, predicted: Tensor, variance_output: Tensor | None, steps: Tensor) -> Tensor:
        """The decoder's term where `steps` is 0, elsewhere the KL divergence of that step: (batch,).

        Args:
            images, predicted: x_0 and the network's x_0', (batch, channels, height, width).
            variance_output: what the network says of the variance, same shape; None for the fixed ones.
            steps: i, the place in `self.timesteps`, (batch,), on the CPU, so that nothing waits for the device.
        """
        shape = (-1, *[1] * (images.ndim - 1))
        keep_x0, small, large = (row.view(shape) for row in self._table[:, steps.to(self._table.device)])
        log_var = self._log_variance(small, large, variance_output, steps)
        error = keep_x0 * (images - predicted)
        kl = 0.5 * (log_var - small + torch.exp(small - log_var) - 1 + error.square() * torch.exp(-log_var))
        terms = _per_image(kl.expand_as(images))
        rows = (steps == 0).nonzero().flatten().to(images.device)
        if len(rows):
            at = log_var.expand_as(images)[rows]
            terms = terms.index_copy(0, rows, self._decoder(images[rows], predicted[rows], at))
        return terms

    def _log_variance(self, small: Tensor, large: Tensor, variance_output: Tensor | None, steps: Tensor) -> Tensor:
        if self.variance_type == "learned_range":
            assert variance_output is not None
            return torch.lerp(small, large, (variance_output + 1) / 2)
        if self.variance_type == "fixed_small":
            return small
        first = (steps == 0).view_as(small).to(small.device)
        return torch.where(first, small, large)

    def _decoder(self, images: Tensor, predicted: Tensor, log_var: Tensor) -> Tensor:
        if self.bits is None:
            square = (images - predicted).square() * torch.exp(-log_var)
            return _per_image(0.5 * (square + log_var + math.log(2 * math.pi)))
        return _per_image(-discretised_gaussian_log_prob(images, predicted, torch.exp(0.5 * log_var), self.bits))


def discretised_gaussian_log_prob(images: Tensor, mean: Tensor, std: Tensor, bits: int) -> Tensor:
    """Log of the mass of N(mean, std^2) on the bin of each value 2 k / (2^bits - 1) - 1 (2006.11239, eq. 13).

    log(Phi(b) - Phi(a)) is taken in whichever tail the bin lies, where neither is rounded to 1: it is finite however
    far off the mean is.
    """
    half = 1 / (2**bits - 1)
    centered = images - mean
    below, above = (centered - half) / std, (centered + half) / std
    right = centered > 0
    far, near = torch.where(right, -above, below), torch.where(right, -below, above)
    far_log, near_log = torch.special.log_ndtr(far), torch.special.log_ndtr(near)
    inside = near_log + torch.log(-torch.expm1(far_log - near_log))
    outer = torch.where(images < half - 1, torch.special.log_ndtr(above), torch.special.log_ndtr(-below))
    return torch.where(images.abs() > 1 - half, outer, inside)


def _per_image(nats: Tensor) -> Tensor:
    """Mean over the dimensions, in bits."""
    return nats.flatten(1).mean(1) / math.log(2)
