"""The variational bound (ELBO) of a trained model in bits per dimension, by term, with its standard error.

It bounds the chain that the scheduler samples at eta = 1, clipping of the predicted clean image included (see
`logsnr.variational_bound` for the terms). The prior is known; the decoder is one evaluation of the network an image;
the K - 1 KL divergences are either all evaluated, or n of them: those of the steps

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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from logsnr.data import Batch, sample_seeds
from logsnr.errors import ConfigError, ModelError
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.variational_bound import VariationalBound


@dataclass(frozen=True)
class ElboTerms:
    """Bits per dimension, means over the images."""

    total: float
    """prior + kl + decoder, an upper bound on the negative log-likelihood."""
    standard_error: float
    """Of the total."""
    prior: float
    kl: float
    """Of all steps together."""
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
    model: Any,
    scheduler: BetaScheduler,
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
        model: a `UNet2DModel`, or what is called as one; evaluated as it is, in its own precision.
        scheduler: the model's own.
        batches: images with labels and positions k, as `ImageData.in_order` gives them. Labels are used where the model
            has classes; without them it gets the null label.
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
        bound = VariationalBound(scheduler, bits, respace)
    except ValueError as error:
        raise ConfigError(f"respace: {error}") from error
    steps = len(bound) - 1
    evaluations = steps if timesteps is None else min(timesteps, steps)
    sums, counts = torch.zeros(len(bound), dtype=torch.float64), torch.zeros(len(bound))
    parts: list[Tensor] = []  # of each batch: prior, KL and decoder of each image
    with tqdm(
        total=num_images * (evaluations + 1), desc="ELBO", unit=" evaluations", leave=False, delay=2, dynamic_ncols=True
    ) as bar:
        for images, labels, positions in first_images(batches, num_images):
            kl = torch.zeros(len(images), dtype=torch.float64)
            for j in range(-1, evaluations):  # -1 is the decoder
                chosen = torch.zeros(len(images), dtype=torch.int64)
                if j >= 0:
                    chosen = torch.from_numpy(_systematic(seed, positions, j, evaluations, steps))
                term = _term(model, scheduler, bound, images, labels, chosen, seed, positions)
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


def _term(
    model: Any,
    scheduler: BetaScheduler,
    bound: VariationalBound,
    images: Tensor,
    labels: Tensor | None,
    steps: Tensor,
    seed: int,
    positions: NDArray[np.int64],
) -> Tensor:
    """The term of each image's step, (batch,): one evaluation of the network."""
    timesteps = bound.timesteps[steps]
    noise, generator = torch.empty_like(images), torch.Generator()
    seeds = sample_seeds(seed, (positions << 32) + timesteps.numpy(), "likelihood noise")
    for row, value in zip(noise, seeds.tolist(), strict=True):
        row.normal_(generator=generator.manual_seed(value))
    noisy = scheduler.add_noise(images, noise, timesteps)
    output, variance_output = predict(model, scheduler, noisy, timesteps, labels)
    x_0 = scheduler.convert(output, noisy, timesteps, scheduler.prediction_type, "sample")
    return bound.terms(images, scheduler.clip_original_sample(x_0), variance_output, steps)


def _systematic(seed: int, positions: NDArray[np.int64], j: int, count: int, steps: int) -> NDArray[np.int64]:
    """i_j of the module's text for each image, in 1 .. steps."""
    u = sample_seeds(seed, positions, "likelihood steps") / 2.0**63
    return np.minimum(1 + np.floor(steps * ((j + u) / count)).astype(np.int64), steps)


def first_images(
    batches: Iterable[Batch], num_images: int
) -> Iterator[tuple[Tensor, Tensor | None, NDArray[np.int64]]]:
    """The first `num_images`, batch by batch: images in float64, labels, positions. ConfigError if there are fewer."""
    seen = 0
    for batch in batches:
        count = min(len(batch.clean), num_images - seen)
        seen += count
        labels = None if "class_labels" not in batch.condition else batch.condition["class_labels"][:count]
        yield batch.clean[:count].double(), labels, batch.positions[:count].numpy()
        if seen == num_images:
            return
    raise ConfigError(f"num_images is {num_images}, and there are {seen} images.")


def predict(
    model: Any, scheduler: BetaScheduler, sample: Tensor, timesteps: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """What the network says of x_t, and of the variance where it is learned, in float64 on the CPU.

    The network sees its own dtype and device, and for a label the image's, the null label, or nothing.
    """
    extra = {}
    embeds = model.config["num_class_embeds"]
    if embeds is not None:
        extra["class_labels"] = torch.full((len(sample),), embeds - 1) if labels is None else labels
    moved = {name: value.to(model.device) for name, value in extra.items()}
    output = model(sample.to(model.device, model.dtype), timesteps.to(model.device), return_dict=False, **moved)[0]
    learned = scheduler.variance_type == "learned_range"
    channels = sample.shape[1] * (2 if learned else 1)
    if output.shape[1] != channels:
        raise ModelError(
            f"The scheduler's variance_type {scheduler.variance_type} needs a network with {channels} output channels, "
            f"and this one has {output.shape[1]}."
        )
    output = output.cpu().double()
    return (output[:, : sample.shape[1]], output[:, sample.shape[1] :]) if learned else (output, None)
