"""The variational bound (ELBO) of a trained model in bits per dimension, by term, with its standard error.

It bounds the chain that the scheduler samples at eta = 1, clipping of the predicted clean image included (see
`logsnr.objectives.variational_bound` for the terms). The prior is known; the decoder is one evaluation of the network
an image; the K - 1 KL divergences are either all evaluated, or n of them: those of the steps

    i_j = 1 + floor((K - 1) (j + u) / n),   j = 0 .. n - 1,   u uniform in [0, 1), one for each image,

a systematic sample, in which each step has the same chance and any stretch of the chain its share (Kingma et al.,
2107.00630, appendix I.1). (K - 1) / n times their sum is then the sum of all of them in expectation.

Images are independent, and so are their noise and u: the standard error is the spread of their figures over the root
of their number. It covers the choice of the images as well as of noise and steps. All that is random for image k
comes from (seed, k): its figure is the same, up to round-off, in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from logsnr.base.errors import ConfigError
from logsnr.base.noise import normal_like
from logsnr.base.seeds import sample_seeds
from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoiser
from logsnr.objectives.variational_bound import VariationalBound


@dataclass(frozen=True)
class ElboTerms:
    """Bits per dimension, means over the images."""

    total: float
    """prior + kl + decoder, an upper bound on the negative log-likelihood."""
    standard_error: float
    """Standard error of the total."""
    prior: float
    kl: float
    """KL divergences of all steps together."""
    decoder: float
    kl_terms: tuple[float | None, ...]
    """One for each step of the chain but the first, which is the decoder; None where no image was evaluated."""


@dataclass(frozen=True)
class Elbo:
    """What `elbo` found, and how."""

    bits_per_dim: ElboTerms
    num_images: int
    chain_length: int
    """K: T, or what it was respaced to."""
    kl_evaluations: int
    """n, evaluated KL divergences an image; K - 1 is all of them."""
    decoder: str
    """What x_0 is drawn from at the end: `discretised Gaussian, 8 bit`, or `Gaussian density` for continuous data."""
    seed: int


@torch.no_grad()
def elbo(
    denoiser: Denoiser,
    batches: Iterable[Batch],
    *,
    num_images: int,
    bits: int | None,
    timesteps: int | None = None,
    respace: int | None = None,
    seed: int = 0,
) -> Elbo:
    """The bound for the first `num_images` of `batches`, with a progress bar.

    Args:
        denoiser: the model under its own schedule; evaluated as it is, in its own precision.
        batches: samples with conditions and positions k, as `ImageData.in_order` gives them. Where a sample has no
            condition, the network gets the null one.
        num_images: at least 2.
        bits: depth of the images; None for continuous data.
        timesteps: n, KL divergences evaluated an image; all when not given.
        respace: length of a shorter chain through evenly spaced timesteps.
        seed: of noise and steps.

    Raises ConfigError for a number out of its range.
    """
    if num_images < 2:
        raise ConfigError(f"num_images must be at least 2, for a standard error, and is {num_images}.")
    if timesteps is not None and timesteps < 1:
        raise ConfigError(f"timesteps must be at least 1, and is {timesteps}.")
    try:
        bound = VariationalBound(denoiser.schedule, bits, respace)
    except ValueError as error:
        raise ConfigError(f"respace: {error}") from error
    steps = len(bound) - 1
    evaluations = steps if timesteps is None else min(timesteps, steps)
    sums, counts = torch.zeros(len(bound), dtype=torch.float64), torch.zeros(len(bound))
    parts: list[Tensor] = []  # of each batch: prior, KL and decoder of each image
    with tqdm(
        total=num_images * (evaluations + 1), desc="ELBO", unit=" evaluations", leave=False, delay=2, dynamic_ncols=True
    ) as bar:
        for batch in first_samples(batches, num_images):
            images, positions = batch.clean, batch.positions.numpy()
            kl = torch.zeros(len(images), dtype=torch.float64)
            for j in range(-1, evaluations):  # -1 is the decoder
                chosen = torch.zeros(len(images), dtype=torch.int64)
                if j >= 0:
                    chosen = torch.from_numpy(_systematic(seed, positions, j, evaluations, steps))
                term = _term(denoiser, bound, batch, chosen, seed)
                if j < 0:
                    decoder = term
                else:
                    kl += term * steps / evaluations
                sums.index_add_(0, chosen, term)
                counts += torch.bincount(chosen, minlength=len(bound))
                bar.update(len(images))
            parts.append(torch.stack([bound.prior(images), kl, decoder]))
    each = torch.cat(parts, 1)
    prior, kl_sum, decoder_mean = each.mean(1).tolist()
    total = each.sum(0)
    terms = [s / n if n else None for s, n in zip(sums.tolist(), counts.tolist(), strict=True)]
    return Elbo(
        ElboTerms(
            total=float(total.mean()),
            standard_error=float(total.std()) / math.sqrt(len(total)),
            prior=prior,
            kl=kl_sum,
            decoder=decoder_mean,
            kl_terms=tuple(terms[1:]),
        ),
        num_images=len(total),
        chain_length=len(bound),
        kl_evaluations=evaluations,
        decoder="Gaussian density" if bits is None else f"discretised Gaussian, {bits} bit",
        seed=seed,
    )


def _term(denoiser: Denoiser, bound: VariationalBound, batch: Batch, steps: Tensor, seed: int) -> Tensor:
    """The term of each sample's step, (batch,): one evaluation of the network."""
    schedule, timesteps = denoiser.schedule, bound.timesteps[steps]
    numbers = (batch.positions.numpy() << 32) + timesteps.numpy()
    noise = normal_like(batch.clean, sample_seeds(seed, numbers, "likelihood noise"))
    noisy = schedule.add_noise(batch.clean, noise, timesteps)
    output, variance = denoiser(noisy, timesteps, denoiser.conditioner.encode(batch.condition, denoiser.device))
    x_0 = schedule.convert(output, noisy, timesteps, schedule.prediction_type, "sample")
    return bound.terms(batch.clean, schedule.clip_original_sample(x_0), variance, steps)


def _systematic(seed: int, positions: NDArray[np.int64], j: int, count: int, steps: int) -> NDArray[np.int64]:
    """The step i_j of a systematic sample for each image, in 1 .. steps (see the top of this file)."""
    u = sample_seeds(seed, positions, "likelihood steps") / 2.0**63
    return np.minimum(1 + np.floor(steps * ((j + u) / count)).astype(np.int64), steps)


def first_samples(batches: Iterable[Batch], num_samples: int) -> Iterator[Batch]:
    """The first `num_samples`, batch by batch, in float64. ConfigError if there are fewer."""
    seen = 0
    for batch in batches:
        count = min(len(batch.clean), num_samples - seen)
        seen += count
        first = batch.take(torch.arange(count), batch.positions[:count])
        yield Batch(first.clean.double(), first.condition, first.positions)
        if seen == num_samples:
            return
    raise ConfigError(f"num_images is {num_samples}, and there are {seen} images.")
