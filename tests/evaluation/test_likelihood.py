"""logsnr.evaluation.likelihood: the bound in closed form on Gaussian data, term by term, and its standard error."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import warnings
from typing import Any, get_args

import pytest
import torch
from gaussian import DOUBLE, SHAPES, ExactModel, Gaussian, exact, gaussian
from torch import Tensor

from logsnr.base.errors import ConfigError, ModelError
from logsnr.conditions.class_label import ClassLabel
from logsnr.data.seeded import Batch
from logsnr.evaluation.likelihood import elbo
from logsnr.models.denoiser import Denoiser
from logsnr.models.schedules import known_schedules, resolve_scheduler_class
from logsnr.objectives.variational_bound import VariationalBound, discretised_gaussian_log_prob
from logsnr.schedulers.scheduling_beta import BetaScheduler, ScheduleWarning, VarianceType
from logsnr.settings.schedule import PredictionType

TARGETS: tuple[PredictionType, ...] = get_args(PredictionType)
VARIANCES: tuple[VarianceType, ...] = get_args(VarianceType)
LEARNED = 0.4  # what a network with a learned variance says of it
COUNTS = {1: 400, 16: 128, 192: 64}


def scheduler(name: str, target: str = "v_prediction", variance: str = "fixed_small", **options: Any) -> BetaScheduler:
    cls = resolve_scheduler_class(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScheduleWarning)
        return cls(prediction_type=target, variance_type=variance, clip_sample=False, **options)


def closed_form(data: Gaussian, s: BetaScheduler, steps: int) -> tuple[float, list[float], float]:
    """Prior, each KL divergence and a Gaussian decoder, expected over data and noise, in bits per dimension.

    The error of E[x_0 | x_t] along an axis of variance c^2 has variance 1 / (1 / c^2 + snr).
    """
    t = torch.linspace(0, len(s) - 1, steps, dtype=DOUBLE).round().long()
    bar = s.alphas_cumprod.double()[t]
    last = bar[-1]
    square = (data.variances + (data.basis.T @ data.mean).square()).mean()  # E x_0^2 doesn't depend on the axes
    prior = 0.5 * (last * square + (1 - last) - 1 - (1 - last).log())
    error = (1 / (1 / data.variances + (bar / (1 - bar))[:, None])).mean(1)
    before, now = bar[:-1], bar[1:]
    beta = 1 - now / before
    small = (1 - before) / (1 - now) * beta
    first = {"fixed_small": small[0], "fixed_large": small[0]}.get(s.variance_type)
    u = (LEARNED + 1) / 2
    var = {"fixed_small": small, "fixed_large": beta}.get(s.variance_type, beta**u * small ** (1 - u))
    first = (1 - bar[0]) ** u * small[0] ** (1 - u) if first is None else first
    move = before * beta**2 / (1 - now) ** 2 * error[1:]
    kl = 0.5 * ((var / small).log() + small / var - 1) + move / (2 * var)
    decoder = 0.5 * (2 * math.pi * first).log() + error[0] / (2 * first)
    return float(prior) / math.log(2), (kl / math.log(2)).tolist(), float(decoder) / math.log(2)


# Gaussian data, everything known


@pytest.mark.parametrize("dimensions", SHAPES)
def test_the_bound_is_the_closed_form_s(dimensions: int) -> None:
    """Each schedule, target and variance; all steps, or a sample of them; z-scores of mean 0 and variance 1."""
    data, count = gaussian(dimensions), COUNTS[dimensions]
    scores = []
    for case, (name, target, variance) in enumerate(itertools.product(known_schedules(), TARGETS, VARIANCES)):
        s = scheduler(name, target, variance)
        model = exact(data, s, LEARNED if variance == "learned_range" else None)
        result = elbo(
            model, data.batches(count, 1000 + case),
            num_images=count, bits=None, respace=12, timesteps=(None, 4)[case % 2], seed=case,
        )  # fmt: skip
        prior, kl, decoder = closed_form(data, s, 12)
        found = result.bits_per_dim
        assert found.total == pytest.approx(found.prior + found.kl + found.decoder)
        scores.append((found.total - prior - sum(kl) - decoder) / found.standard_error)
    z = torch.tensor(scores)
    assert z.abs().max() < 4
    assert abs(z.mean()) < 3 / len(z) ** 0.5
    assert 0.7 < z.std() < 1.35  # four standard errors
    assert 0.5 < (z.abs() < 1).float().mean() < 0.86  # 68 % expected


@pytest.mark.parametrize("variance", VARIANCES)
def test_each_term_is_the_closed_form_s(variance: VarianceType) -> None:
    data, s = gaussian(16), scheduler("linear", "epsilon", variance)
    model = exact(data, s, LEARNED if variance == "learned_range" else None)
    found = elbo(model, data.batches(600, 1, 600), num_images=600, bits=None, respace=10).bits_per_dim
    prior, kl, decoder = closed_form(data, s, 10)
    assert found.prior == pytest.approx(prior, rel=0.2)
    assert found.decoder == pytest.approx(decoder, abs=0.03)
    assert found.kl_terms == pytest.approx(kl, rel=0.06)
    assert sum(t for t in found.kl_terms if t is not None) == pytest.approx(found.kl)


def test_zero_terminal_snr_has_no_prior_term() -> None:
    data, s = gaussian(16), scheduler("cosine", zero_terminal_snr=True)
    found = elbo(exact(data, s), data.batches(128, 1), num_images=128, bits=None, respace=20)
    prior, kl, decoder = closed_form(data, s, 20)
    assert found.bits_per_dim.prior == prior == 0
    assert abs(found.bits_per_dim.total - sum(kl) - decoder) < 4 * found.bits_per_dim.standard_error


@pytest.mark.parametrize("name", known_schedules())
def test_the_bound_is_a_bound(name: str) -> None:
    """Above the entropy for every chain. beta fits data that are much wider than the noise, and the bound can be tight;
    the posterior's variance, too small for them, costs half a bit and more."""
    data, gaps = gaussian(16), {}
    for variance in VARIANCES:
        s = scheduler(name, variance=variance, num_train_timesteps=4000)
        figures = [sum([p, *kl, d]) for p, kl, d in (closed_form(data, s, k) for k in (10, 100, 1000))]
        assert min(figures) > data.entropy()
        gaps[variance] = figures[-1] - data.entropy()
    if name in ("cosine", "linear", "sigmoid"):
        assert gaps["fixed_large"] < 0.03 < 0.5 < gaps["fixed_small"]


def test_the_first_step_s_variance_is_the_second_s() -> None:
    """With the posterior's own, which is 0, a Gaussian decoder's term would be infinite."""
    s = scheduler("linear", "sample")
    assert s.posterior(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.tensor([0])).variance == 0
    var = float(s._forward[5, 1])  # the table that `posterior` reads, in float64
    x_0, predicted = torch.tensor([0.3, 0.31], dtype=DOUBLE).view(2, 1, 1, 1)
    for variance in ("fixed_small", "fixed_large", "learned_range"):
        s = scheduler("linear", "sample", variance)
        lowest = -torch.ones(1, 1, 1, 1, dtype=DOUBLE) if variance == "learned_range" else None
        term = VariationalBound(s, None).terms(x_0[None], predicted[None], lowest, torch.tensor([0]))
        nats = 0.5 * (0.01**2 / var + math.log(2 * math.pi * var))
        assert float(term) == pytest.approx(nats / math.log(2), rel=1e-6)


def test_terms_are_those_of_the_steps_that_are_sampled() -> None:
    """Mean and variance of `BetaScheduler.step` at eta = 1 against the posterior, as two Gaussians, at random steps."""
    generator = torch.Generator().manual_seed(0)
    t = torch.tensor([1, 2, 17, 500, 999])
    x_t, x_0, predicted, said = torch.randn(4, len(t), 1, 3, 3, generator=generator, dtype=DOUBLE)
    for variance in VARIANCES:
        s = scheduler("cosine", "sample", variance)
        wanted = []
        for i in range(len(t)):
            output = torch.cat([predicted, said], 1) if variance == "learned_range" else predicted
            arguments = output[i, None], t[i], x_t[i, None]
            mean, moved = (s.step(*arguments, variance_noise=torch.full_like(x_t[:1], z)).prev_sample for z in (0, 1))
            var, q = (moved - mean).square(), s.posterior(x_0, x_t, t)
            v, error = q.variance[i], (q.mean[i] - mean).square()
            wanted.append((0.5 * ((var / v).log() + (v + error) / var - 1)).mean() / math.log(2))
        got = VariationalBound(s, 8).terms(x_0, predicted, said, t)
        torch.testing.assert_close(got, torch.stack(wanted), rtol=1e-3, atol=0)


# The discretised decoder


def test_the_bins_share_out_all_of_the_mass() -> None:
    values = torch.arange(256, dtype=DOUBLE) / 127.5 - 1
    for mean, std in [(0.0, 0.01), (-0.97, 0.2), (1.5, 0.004), (0.1234, 3.0), (-40.0, 0.01)]:
        log = discretised_gaussian_log_prob(
            values, torch.tensor(mean, dtype=DOUBLE), torch.tensor(std, dtype=DOUBLE), 8
        )
        assert bool(torch.isfinite(log).all())
        assert float(log.exp().sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_mass_of_a_bin_by_quadrature(bits: int) -> None:
    largest = 2**bits - 1
    k = torch.tensor([1, 2, largest // 3, largest // 2, largest - 1], dtype=DOUBLE)
    values, mean, std = 2 * k / largest - 1, torch.tensor(-0.4, dtype=DOUBLE), torch.tensor(0.3, dtype=DOUBLE)
    log = discretised_gaussian_log_prob(values, mean, std, bits)
    for value, found in zip(values, log, strict=True):
        line = torch.linspace(float(value) - 1 / largest, float(value) + 1 / largest, 2001, dtype=DOUBLE)
        density = torch.exp(-0.5 * ((line - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        assert float(found) == pytest.approx(math.log(torch.trapezoid(density, line)), rel=1e-6)


def test_far_off_bins_keep_their_gradient() -> None:
    """In float32, as in training: no mass is rounded to 0, and none to that of its neighbour."""
    values = (torch.tensor([0.0, 7, 100, 250, 255]) / 127.5 - 1).repeat(4)
    mean = torch.tensor([-1.0, -0.2, 0.5, 3.0]).repeat_interleave(5).requires_grad_()
    log = discretised_gaussian_log_prob(values, mean, torch.tensor(0.005), 8)
    (slope,) = torch.autograd.grad(log.sum(), mean)
    assert bool(torch.isfinite(log).all() & torch.isfinite(slope).all())
    far = ((values - mean).abs() > 0.1) & (values.abs() < 1)
    assert bool((slope[far] * (values - mean)[far].sign() > 1000).all())


@pytest.mark.parametrize("bits", [8, 16])
def test_the_decoder_s_term_on_quantised_data_by_quadrature(bits: int) -> None:
    """One pixel of a few values; the network is the posterior mean of the Gaussian of their moments. The expectation
    over the noise, and the mass of each bin, are sums over fine grids."""
    s = scheduler("linear", "epsilon", "fixed_large")
    largest = 2**bits - 1
    k = torch.tensor([0, largest // 4, largest // 2 + 1, largest], dtype=DOUBLE)
    images = (2 * k / largest - 1).repeat(500).view(-1, 1, 1, 1)
    model = exact(gaussian(1), s)
    batch = Batch(images, {}, torch.arange(len(images)))
    found = elbo(model, [batch], num_images=2000, bits=bits, timesteps=1).bits_per_dim.decoder
    bar = s.alphas_cumprod.double()
    a, sigma = bar[0].sqrt(), (1 - bar[0]).sqrt()
    x_0, noise = images[:4].flatten(), torch.linspace(-6, 6, 401, dtype=DOUBLE)
    x_t = a * x_0[:, None] + sigma * noise
    mean, var = float(model.network.data.mean), float(model.network.data.variances)
    predicted = mean + a * var / (a**2 * var + sigma**2) * (x_t - a * mean)
    beta = 1 - bar[1] / bar[0]
    std = (beta * sigma**2 / (1 - bar[1])).sqrt()
    low, high = x_0 - 1 / largest, x_0 + 1 / largest
    low[0], high[-1] = -2, 2  # far outside
    line = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, 8001, dtype=DOUBLE)
    surprise = []
    for values, guess in zip(line, predicted, strict=True):
        density = torch.exp(-0.5 * ((values - guess[:, None]) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        surprise.append(-torch.trapezoid(density, values).log2())
    weights = torch.exp(-0.5 * noise**2)
    wanted = (torch.stack(surprise) * weights).sum(1) / weights.sum()
    assert found == pytest.approx(float(wanted.mean()), rel=0.03)


# Images, batches, seeds


def each_image(model: Denoiser, images: Tensor, size: int, **options: Any) -> list[float]:
    """An image's own figure is what it changes in the mean."""
    k = torch.arange(len(images))
    batches = [Batch(images[i : i + size], {}, k[i : i + size]) for i in range(0, len(images), size)]
    n = len(images)
    means = [
        n_ * elbo(model, batches, num_images=n_, bits=None, **options).bits_per_dim.total for n_ in range(2, n + 1)
    ]
    return [b - a for a, b in itertools.pairwise(means)]


def test_an_image_s_figure_does_not_depend_on_its_batch() -> None:
    data, s = gaussian(16), scheduler("cosine")
    model, images = exact(data, s), data.sample(7, 0)
    whole = each_image(model, images, 7, respace=6, timesteps=3)
    assert whole == pytest.approx(each_image(model, images, 2, respace=6, timesteps=3), rel=1e-9)
    assert whole != pytest.approx(each_image(model, images, 7, respace=6, timesteps=3, seed=1), rel=1e-3)


def test_all_steps_are_a_sample_of_all_of_them() -> None:
    data, s = gaussian(1), scheduler("cosine")
    results = [
        elbo(exact(data, s), data.batches(5, 0), num_images=5, bits=None, respace=9, timesteps=n)
        for n in (None, 8, 1000)
    ]
    assert results[0] == results[1] == results[2]
    assert results[0].kl_evaluations == 8


def test_steps_are_sampled_evenly() -> None:
    data, s = gaussian(1), scheduler("cosine")
    result = elbo(exact(data, s), data.batches(2000, 0, 2000), num_images=2000, bits=None, respace=8, timesteps=3)
    assert all(term is not None for term in result.bits_per_dim.kl_terms)
    few = elbo(exact(data, s), data.batches(2, 0), num_images=2, bits=None, timesteps=3)
    assert sum(term is not None for term in few.bits_per_dim.kl_terms) <= 6
    assert len(few.bits_per_dim.kl_terms) == 999
    json.dumps(dataclasses.asdict(few), allow_nan=False)


def test_clipping_is_part_of_the_model() -> None:
    data = Gaussian((1, 1, 1), torch.ones(1, dtype=DOUBLE), torch.ones(1, dtype=DOUBLE), torch.ones(1, 1, dtype=DOUBLE))
    plain = scheduler("cosine")
    clipped = type(plain).from_config(plain.config, clip_sample=True)
    inside = data.sample(500, 0).clamp(-1, 1)
    figures = [
        elbo(exact(data, s), [Batch(inside, {}, torch.arange(500))], num_images=500, bits=8, respace=20)
        for s in (plain, clipped)
    ]
    assert figures[1].bits_per_dim.total < figures[0].bits_per_dim.total - 0.02


class Labelled(ExactModel):
    """Keeps the labels that it is given."""

    def forward(self, sample: Tensor, timesteps: Tensor, return_dict: bool, class_labels: Tensor) -> tuple[Tensor]:  # type: ignore[override]
        self.labels = class_labels
        return super().forward(sample, timesteps, return_dict)


def test_labels_are_the_images_or_the_null_label() -> None:
    data, s = gaussian(1), scheduler("cosine")
    model, images, k = Labelled(data, s), data.sample(4, 0), torch.arange(4)
    for labels, wanted in [(torch.tensor([2, 0, 1, 2]), [2, 0, 1]), (None, [3, 3, 3])]:
        elbo(
            Denoiser(model, s, ClassLabel(3)),
            [Batch(images, {} if labels is None else {"class_labels": labels}, k)],
            num_images=3,
            bits=None,
            respace=3,
        )
        assert model.labels.tolist() == wanted


def test_what_can_t_be_is_said() -> None:
    data, s = gaussian(1), scheduler("cosine")
    model = exact(data, s)
    for options, words in [
        ({"num_images": 1}, "num_images must be at least 2"),
        ({"num_images": 20}, "num_images is 20, and there are 8 images"),
        ({"timesteps": 0}, "timesteps must be at least 1"),
        ({"respace": 1}, "respace: A chain of 1000 timesteps can be respaced to 2..1000 of them, not to 1"),
        ({"respace": 1001}, "not to 1001"),
    ]:
        with pytest.raises(ConfigError, match=words):
            elbo(model, data.batches(8, 0), **{"num_images": 8, "bits": None, "respace": 3, **options})
    with pytest.raises(ModelError, match="learned_range needs a network with 2 output channels, and this one has 1"):
        elbo(
            Denoiser(model.network, scheduler("cosine", variance="learned_range")),
            data.batches(8, 0),
            num_images=8,
            bits=None,
        )
