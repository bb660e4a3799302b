"""The variational bound of a model of states (letters, tokens), in nats a sequence; by log-SNR; and in continuous time.

It bounds -log p(x_0) of the chain of T steps that the scheduler samples. With m_t = 1 - alpha_bar_t, the share of
states that haven't survived, it is the sum over t of E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)). That is all of
it: at t = 0 the KL is -log p(x_0 | x_t), and x_T, of which nothing is left, costs nothing.

Absorbing. The KL is w_t = (m_t - m_{t-1}) / m_t times the cross-entropy of the masked places, and the network knows
them, and no time. So a sequence of length L has only L cases: n masked places, with mean cross-entropy c_n,

    bound = sum over n of a_n E c_n,    a_n = n sum over t of w_t Binomial(n; L, m_t)

and in continuous time, where w_t becomes dm / m and the sum over t an integral over m in (0, 1), a_n = 1, whatever the
schedule (Ou et al., 2406.03736; MDLM, 2406.07524). Both come of the same draws: n is a systematic sample

    n_j = 1 + floor(L (j + u) / J),   j = 0 .. J - 1,   u uniform in [0, 1), one for each sequence,

and L a_n c_n is right in expectation. What a_n owes to the timesteps of a bin is what is spent there.

Other kernels. The timesteps are a systematic sample by the root of m_t: that whose interval [sqrt m_{t-1}, sqrt m_t)
holds (j + u) / J. A rare state that has changed costs log(1 / m), and by the root such terms have a finite variance.

Uniform, in continuous time. A state jumps at the rate b to any of K. The reverse rate to y is b / K times s(y) =
q(y | x_0) / q(x_t | x_0); the model's has s'(y), the same ratio of the mean of q over the leave-one-out denoiser. With
b dt = dm / (1 - m) the KL rate of the two (Lou et al., SEDD, 2310.16834; Schiff et al., UDLM, 2412.10193) gives

    limit = integral over m of 1 / (K (1 - m)) E sum over y of s'(y) - s(y) + s(y) log(s(y) / s'(y))

with m drawn as the square of (j + u) / J. The network knows timesteps alone, and is told the one nearest to m: that is
a model like any other, and the limit its bound.

All that is random for sequence k comes from (seed, k): its figures are the same in any batch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from logsnr.base.noise import chances_like
from logsnr.base.seeds import sample_seeds
from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoises
from logsnr.objectives.held_out import LOG_SNR_EDGES, bins
from logsnr.schedulers.scheduling_transition import TransitionScheduler

_BINS = len(LOG_SNR_EDGES) - 1
_WITH_LIMIT = ("absorbing", "uniform")
_LEAST_ROOT = 1e-6
"""sqrt(m) from which the limit is integrated: below it 1 - m is nearly 1 in float64."""


@dataclass(frozen=True, eq=False)
class StateBound:
    """Of each sequence, nats in float64; unbiased."""

    bound: Tensor
    """An upper bound on -log p(x_0) of the chain, (n,)."""
    by_log_snr: Tensor
    """What of it is spent in each bin of LOG_SNR_EDGES, (n, bins)."""
    limit: Tensor | None
    """The bound in continuous time, (n,); None where it has no closed form: for the kernels but absorbing and
    uniform."""


class _Draw(NamedTuple):
    """What one draw says of each sequence of a batch."""

    by_log_snr: Tensor
    limit: Tensor
    """NaN where there is none."""


@torch.no_grad()
def state_bound(
    denoiser: Denoises, batches: Iterable[Batch], *, num_sequences: int, draws: int, seed: int = 0
) -> StateBound:
    """The bound for all sequences of `batches`, with a progress bar.

    Args:
        denoiser: the model under its `TransitionScheduler`.
        batches: sequences with conditions and positions, as `SeededData.in_order` gives them.
        num_sequences: how many there are in them, for the bar.
        draws: J, how often each sequence is noised: evaluations of the network, twice that for the kernel uniform.
        seed: of noise and steps.
    """
    schedule: TransitionScheduler = denoiser.schedule
    draw = _masked if schedule.kernel == "absorbing" else _by_timestep
    spent, limits = list[Tensor](), list[Tensor]()
    with tqdm(total=num_sequences * draws, desc="Bound", unit=" draws", leave=False, delay=2) as bar:
        for batch in batches:
            condition = denoiser.conditioner.encode(batch.condition, denoiser.device)
            given = Batch(batch.clean, condition, batch.positions)
            each = []
            for j in range(draws):
                each.append(draw(denoiser, given, j, draws, seed))
                bar.update(len(batch.clean))
            spent.append(torch.stack([one.by_log_snr for one in each]).mean(0))
            limits.append(torch.stack([one.limit for one in each]).mean(0))
    by_log_snr, limit = torch.cat(spent), torch.cat(limits)
    return StateBound(by_log_snr.sum(1), by_log_snr, limit if schedule.kernel in _WITH_LIMIT else None)


def _systematic(batch: Batch, j: int, draws: int, seed: int, stream: str) -> Tensor:
    """(j + u) / J for each sequence, float64 in [0, 1)."""
    u = sample_seeds(seed, batch.positions.numpy(), stream) / 2.0**63
    return torch.from_numpy((j + np.minimum(u, 1 - 2.0**-53)) / draws)


def _uniform(batch: Batch, j: int, seed: int, stream: str) -> Tensor:
    """A uniform number for each place, float64 in [0, 1)."""
    return chances_like(batch.clean, sample_seeds(seed, (batch.positions.numpy() << 32) + j, stream))


def nearest_timesteps(schedule: TransitionScheduler, gone: Tensor) -> Tensor:
    """The timesteps at which about these shares of all states haven't survived."""
    shares = 1 - schedule.alphas_cumprod
    return torch.searchsorted((shares[1:] + shares[:-1]) / 2, gone)


# Absorbing


@functools.lru_cache(maxsize=1)
def mask_weights(schedule: TransitionScheduler, length: int) -> Tensor:
    """a_n for n = 1 .. length, by what the timesteps of each bin of log-SNR give to it: (length, bins), float64."""
    n = torch.arange(1, length + 1, dtype=torch.float64).unsqueeze(1)
    survival, t = schedule.alphas_cumprod, torch.arange(len(schedule))
    ways = torch.lgamma(torch.tensor(length + 1.0).double()) - torch.lgamma(n + 1) - torch.lgamma(length - n + 1)
    chance = (ways + torch.xlogy(n, 1 - survival) + torch.xlogy(length - n, survival)).exp()
    each = n * chance * schedule.elbo_weights(t)
    return torch.zeros(length, _BINS, dtype=torch.float64).index_add_(1, bins(schedule.log_snr(t)), each)


def _masked(denoiser: Denoises, batch: Batch, j: int, draws: int, seed: int) -> _Draw:
    schedule: TransitionScheduler = denoiser.schedule
    length, mask = batch.clean.shape[1], schedule.mask_token_id
    assert mask is not None
    n = 1 + (length * _systematic(batch, j, draws, seed, "bound places")).long()
    order = _uniform(batch, j, seed, "bound noise").argsort(1).argsort(1)
    hidden = order < n.unsqueeze(1)
    x_t = batch.clean.masked_fill(hidden, mask)
    logits = denoiser(x_t, nearest_timesteps(schedule, n / length), batch.condition).output[hidden].double()
    nats = -logits.log_softmax(-1).gather(1, batch.clean[hidden].unsqueeze(1)).squeeze(1)
    total = torch.zeros(len(n), dtype=torch.float64).index_add_(0, hidden.nonzero()[:, 0], nats)
    limit = length * total / n
    return _Draw(limit.unsqueeze(1) * mask_weights(schedule, length)[n - 1], limit)


# Other kernels


def _by_timestep(denoiser: Denoises, batch: Batch, j: int, draws: int, seed: int) -> _Draw:
    schedule: TransitionScheduler = denoiser.schedule
    roots = torch.cat([torch.zeros(1, dtype=torch.float64), (1 - schedule.alphas_cumprod).sqrt()])
    v = _systematic(batch, j, draws, seed, "bound steps")
    t = torch.searchsorted(roots[1:], v, right=True).clamp(max=len(schedule) - 1)
    x_t = schedule.add_noise(batch.clean, _uniform(batch, j, seed, "bound noise"), t)
    logits = denoiser(x_t, t, batch.condition).output
    nats = schedule.bound(logits, batch.clean, x_t, t).sum(1) / (roots[t + 1] - roots[t])
    spent = torch.zeros(len(t), _BINS, dtype=torch.float64)
    spent[torch.arange(len(t)), bins(schedule.log_snr(t))] = nats
    if schedule.kernel != "uniform":
        return _Draw(spent, torch.full_like(v, torch.nan))
    return _Draw(spent, _uniform_limit(denoiser, batch, j, draws, seed))


def _uniform_limit(denoiser: Denoises, batch: Batch, j: int, draws: int, seed: int) -> Tensor:
    """The integrand of the limit, times 2 sqrt(m), the derivative of a square."""
    schedule: TransitionScheduler = denoiser.schedule
    states, x_0 = schedule.num_states, batch.clean
    v = _systematic(batch, j, draws, seed, "limit steps").clamp(min=_LEAST_ROOT)
    left = (1 - v.square()).unsqueeze(1)
    noise = _uniform(batch, j, seed, "limit noise")
    anywhere = ((noise - left) / (1 - left) * states).long().clamp(max=states - 1)
    x_t = torch.where(noise < left, x_0, anywhere)
    t = nearest_timesteps(schedule, v.square())
    p = schedule.denoise(denoiser(x_t, t, batch.condition).output, x_t, t)
    others = leave_one_out(p, x_t, schedule.alphas_cumprod[t].unsqueeze(1))
    return 2 * v * uniform_rate(others, x_0, x_t, left).sum(1)


def uniform_rate(others: Tensor, x_0: Tensor, x_t: Tensor, left: Tensor) -> Tensor:
    """The integrand of the limit, of each place (n, length), where `left` = 1 - m survives, (n, 1).

    others: the leave-one-out denoiser's law of x_0, (n, length, K)."""
    states, rare, often = others.shape[-1], (1 - left) / others.shape[-1], left + (1 - left) / others.shape[-1]
    law = left.unsqueeze(2) * others + rare.unsqueeze(2)
    here, true_here = law.gather(2, x_t.unsqueeze(2)).squeeze(2), torch.where(x_t == x_0, often, rare)
    # s and s' are laws of y over what they are at x_t, where y = x_t itself adds nothing
    cross = rare * law.log().sum(2) + left * law.gather(2, x_0.unsqueeze(2)).squeeze(2).log()
    negentropy = (states - 1) * torch.xlogy(rare, rare) + torch.xlogy(often, often)
    divergence = (negentropy - cross + here.log() - true_here.log()) / true_here
    return (1 / here - 1 / true_here + divergence) / (states * left)


def leave_one_out(p: Tensor, x_t: Tensor, left: Tensor) -> Tensor:
    """p(x_0 | x_t) / q(x_t | x_0) of the kernel uniform, normalised, (n, length, K): what the other places say."""
    rare = ((1 - left) / p.shape[-1]).unsqueeze(2)
    divided = p / rare
    divided.scatter_(2, x_t.unsqueeze(2), p.gather(2, x_t.unsqueeze(2)) / (left.unsqueeze(2) + rare))
    return divided / divided.sum(-1, keepdim=True)
