"""logsnr.evaluation.ode: on Gaussian data the exact likelihood, image by image, and honest errors."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from gaussian import DOUBLE, SHAPES, exact, gaussian
from test_likelihood import TARGETS, scheduler
from tiny_unet import tiny_unet
from torch import Tensor

from logsnr.base.errors import ConfigError
from logsnr.data.seeded import Batch
from logsnr.evaluation.likelihood import elbo
from logsnr.evaluation.ode import OdeLikelihood, ode_likelihood
from logsnr.models.denoiser import Denoiser
from logsnr.models.networks import conditioner_of
from logsnr.models.schedules import known_schedules

COUNTS = {1: 100, 16: 48, 192: 24}


def bits(log_prob: Tensor, dimensions: int) -> float:
    return -float(log_prob.mean()) / dimensions / math.log(2)


def measure(model: Denoiser, images: Tensor, **options: Any) -> OdeLikelihood:
    batch = Batch(images, {}, torch.arange(len(images)))
    return ode_likelihood(model, [batch], **{"num_images": len(images), "bits": None, **options})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("zero", [False, True])
def test_the_likelihood_is_exact(target: str, zero: bool) -> None:
    """Of each pair of images; without zero terminal SNR the model's x_T isn't quite N(0, I)."""
    if zero and target == "epsilon":
        return
    data = gaussian(16)
    for name in ("linear", "cosine", "sigmoid"):
        s = scheduler(name, target, zero_terminal_snr=zero)
        for images in data.sample(4, 1).split(2):
            found = measure(exact(data, s), images, trace="exact", tolerance=1e-5)
            bound = 5e-5 if zero else 3e-3 if name == "linear" else 3e-4
            assert abs(found.bits_per_dim.total - bits(data.log_prob(images), 16)) < bound
            assert found.bits_per_dim.solver_error < 1e-4


def test_the_likelihood_is_the_entropy_in_expectation() -> None:
    """Each schedule, target and dimension, by Hutchinson's estimate; z-scores of mean 0 and variance 1."""
    scores = []
    for case, (name, target, d) in enumerate(itertools.product(known_schedules(), TARGETS, SHAPES)):
        # laplace's first step has noise of 0.2: data must be smooth on that scale
        data = gaussian(d, smallest=0.3, largest=0.7)
        s = scheduler(name, target)
        found = measure(exact(data, s), data.sample(COUNTS[d], 500 + case), tolerance=1e-3, seed=case)
        scores.append((found.bits_per_dim.total - data.entropy()) / found.bits_per_dim.standard_error)
    z = torch.tensor(scores)
    assert z.abs().max() < 4
    assert abs(z.mean()) < 3 / len(z) ** 0.5
    assert 0.7 < z.std() < 1.35  # four standard errors


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("name", known_schedules())
def test_with_the_exact_score_it_is_at_most_the_bound(name: str, variance: str) -> None:
    data = gaussian(16, smallest=0.3, largest=0.7)
    s = scheduler(name, variance=variance)
    batches = list(data.batches(64, 3))
    ode = ode_likelihood(exact(data, s), batches, num_images=64, bits=None, tolerance=1e-3)
    bound = elbo(exact(data, s), batches, num_images=64, bits=None, timesteps=40)
    assert ode.bits_per_dim.total < bound.bits_per_dim.total


def test_the_solver_s_error_is_about_what_it_says() -> None:
    data = gaussian(16)
    s = scheduler("linear", "v_prediction")
    images = data.sample(8, 0)
    wanted = measure(exact(data, s), images, tolerance=1e-9).bits_per_dim.total
    previous = 0.0
    for tolerance in (1e-1 / 2, 1e-2, 1e-3, 1e-4):
        found = measure(exact(data, s), images, tolerance=tolerance)
        assert abs(found.bits_per_dim.total - wanted) < 3 * found.bits_per_dim.solver_error + 1e-6
        assert found.evaluations >= previous
        previous = found.evaluations
    assert abs(found.bits_per_dim.total - wanted) < 1e-4


# Dequantisation and trace


@pytest.mark.parametrize("depth", [3, 8, 16])
def test_dequantised_data_cost_the_mass_of_their_bins(depth: int) -> None:
    """Gaussian data rounded to bins: -log of a bin's mass, in the mean over uniform noise by Jensen a bit more."""
    data, largest = gaussian(1), 2**depth - 1
    s = scheduler("cosine", zero_terminal_snr=True)
    images = ((data.sample(300, 0).clamp(-1, 1) + 1) / 2 * largest).round() * 2 / largest - 1
    found = measure(exact(data, s), images, bits=depth, repeats=2, tolerance=1e-5)
    mean, std = float(data.mean), float(data.variances.sqrt())
    low, high = ((images.flatten() + side / largest - mean) / std for side in (-1, 1))
    mass = torch.special.ndtr(high) - torch.special.ndtr(low)
    # p varies within a bin: E -log p - (-log E p) is half the variance of its slope times the noise, to first order
    jensen = (2 / largest / std) ** 2 / 24 / math.log(2)
    gap = found.bits_per_dim.total - float(-mass.log2().mean())
    noise = 4 * (2 / largest / std) / math.sqrt(12 * 600) / math.log(2)  # of 600 draws of u, slope 1 / std
    assert abs(gap - jensen) < noise + 1e-4


def test_the_trace_s_estimate_is_unbiased_and_an_image_s_own() -> None:
    data = gaussian(16)
    s = scheduler("cosine", zero_terminal_snr=True)
    model, images = exact(data, s), data.sample(6, 0)
    wanted = measure(model, images, trace="exact").bits_per_dim.total
    each = [measure(model, images, tolerance=1e-3, seed=seed).bits_per_dim.total for seed in range(30)]
    assert abs(np.mean(each) - wanted) < 4 * np.std(each) / 30**0.5
    assert np.std(each) > 1e-3

    k = torch.arange(6)
    parts = [Batch(images[i : i + 2], {}, k[i : i + 2]) for i in (0, 2, 4)]
    split = ode_likelihood(model, parts, num_images=6, bits=None, tolerance=1e-6)
    whole = measure(model, images, tolerance=1e-6)
    assert split.bits_per_dim.total == pytest.approx(whole.bits_per_dim.total, abs=1e-5)
    assert split.bits_per_dim.standard_error == pytest.approx(whole.bits_per_dim.standard_error, rel=1e-3)


def test_repeats_are_draws_of_the_noise() -> None:
    data = gaussian(16)
    s = scheduler("cosine")
    found = measure(exact(data, s), data.sample(4, 0), repeats=3, tolerance=1e-2)
    one = [measure(exact(data, s), data.sample(4, 0), tolerance=1e-2, seed=seed) for seed in range(2)]
    assert one[0].bits_per_dim.total != one[1].bits_per_dim.total
    assert found.repeats == 3
    assert found.evaluations == pytest.approx(one[0].evaluations, rel=0.3)


def test_a_u_net_in_float32() -> None:
    """A real network, with classes and a learned variance: both traces agree on its flow."""
    unet = tiny_unet(2, sample_size=4, out_channels=2, block_out_channels=(4,), norm_num_groups=2)
    s = scheduler("cosine", "v_prediction", "learned_range")
    images = gaussian(16).sample(3, 0)
    batch = Batch(images.float(), {"class_labels": torch.tensor([0, 1, 0])}, torch.arange(3))
    options: dict[str, Any] = {"num_images": 3, "bits": 8, "tolerance": 1e-2}
    model = Denoiser(unet, s, conditioner_of(unet))
    whole = ode_likelihood(model, [batch], trace="exact", **options)
    guess = ode_likelihood(model, [batch], trace="hutchinson", **options)
    assert whole.bits_per_dim.total == pytest.approx(guess.bits_per_dim.total, abs=0.5)
    assert whole.dequantisation == "uniform, 8 bit"
    assert all(p.grad is None for p in unet.parameters())
    json.dumps(dataclasses.asdict(whole), allow_nan=False)
    bound = elbo(model, [batch], num_images=3, bits=8, timesteps=5)
    assert math.isfinite(bound.bits_per_dim.total)


def test_what_can_t_be_is_said() -> None:
    data = gaussian(1)
    s = scheduler("cosine")
    images = data.sample(4, 0).to(DOUBLE)
    for options, words in [
        ({"num_images": 1}, "num_images must be at least 2"),
        ({"num_images": 5}, "num_images is 5, and there are 4 images"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"tolerance": 0.0}, r"tolerance must be in \(0, 0.1\)"),
    ]:
        with pytest.raises(ConfigError, match=words):
            measure(exact(data, s), images, **options)
