"""Targets and weightings against the formulas of the papers, none of them read from the implementation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import get_args

import pytest
import torch

from logsnr.models.schedules import known_schedules, make_scheduler
from logsnr.objectives.targets import squared_error_in_sample, squared_errors, target
from logsnr.objectives.vlb import VlbObjective
from logsnr.objectives.weightings import loss_weights, sample_weights
from logsnr.schedulers.scheduling_beta import BetaScheduler, ScheduleWarning
from logsnr.settings import objective
from logsnr.settings.objective import (
    EdmWeighting,
    ElboWeighting,
    MinSnrWeighting,
    P2Weighting,
    SigmoidWeighting,
    SimpleWeighting,
    VlbConfig,
    WeightingConfig,
)
from logsnr.settings.schedule import PredictionType, ScheduleConfig

TARGETS: tuple[PredictionType, ...] = get_args(PredictionType)
WEIGHTINGS = [cls() for cls in objective.WEIGHTINGS]
SCHEDULES = [(name, zero) for name in known_schedules() for zero in (False, True) if (name, zero) != ("learned", True)]


def scheduler(
    name: str = "cosine",
    prediction_type: PredictionType = "v_prediction",
    zero: bool = False,
    length: int = 1000,
    **options: float,
) -> BetaScheduler:
    with warnings.catch_warnings():  # not every schedule is good for every length, and here it needn't be
        warnings.simplefilter("ignore", ScheduleWarning)
        return make_scheduler(
            ScheduleConfig.named(
                name,
                num_train_timesteps=length,
                prediction_type=prediction_type,
                zero_terminal_snr=zero,
                options=options,
            )
        )


def exact_coefficients(s: BetaScheduler) -> tuple[torch.Tensor, torch.Tensor]:
    """a and s of x_t = a x_0 + s eps in float64, from the log-SNRs, (T,)."""
    log_snr = s.log_snr(torch.arange(len(s))).double()
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


# Targets


@pytest.mark.parametrize("prediction_type", TARGETS)
def test_each_target_is_what_its_name_says(prediction_type: PredictionType) -> None:
    s = scheduler(prediction_type=prediction_type, length=50)
    images, noise = torch.randn(2, 50, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.arange(50)
    a, sigma = (c.view(-1, 1, 1, 1) for c in exact_coefficients(s))
    wanted = {
        "epsilon": noise,
        "sample": images,
        "v_prediction": a * noise - sigma * images,
        "x0_minus_noise": images - noise,
    }[prediction_type]
    torch.testing.assert_close(target(s, images, noise, t), wanted, rtol=1e-6, atol=1e-6)
    exact = squared_errors(s, wanted.float(), images.float(), noise.float(), t)
    assert exact.shape == (50,)
    assert exact.max() < 1e-10
    off = squared_errors(s, (wanted + 0.5).float(), images.float(), noise.float(), t)
    torch.testing.assert_close(off, torch.full((50,), 0.25), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("name", "zero"), SCHEDULES)
@pytest.mark.parametrize("weighting", [w for w in WEIGHTINGS if w != SimpleWeighting()], ids=lambda w: w.name)
def test_a_weighted_loss_is_the_same_for_every_target(name: str, zero: bool, weighting: WeightingConfig) -> None:
    """The same wrong x_0, said as noise, image, v or x_0 - noise, costs the same."""
    generator = torch.Generator().manual_seed(0)
    images, noise, wrong = torch.randn(3, 1000, 1, 2, 2, generator=generator, dtype=torch.float64)
    t = torch.arange(1000)
    targets = [p for p in TARGETS if not (zero and p == "epsilon")]
    losses = {}
    for prediction_type in targets:
        s = scheduler(name, prediction_type, zero)
        a, sigma = (c.view(-1, 1, 1, 1) for c in exact_coefficients(s))
        noisy = a * images + sigma * noise
        output = s.convert(wrong, noisy, t, "sample", prediction_type)
        error = output - target(s, images, noise, t)
        weights = loss_weights(s, weighting)
        assert weights.dtype == torch.float32
        assert bool(torch.isfinite(weights).all())
        assert bool((weights >= 0).all())
        losses[prediction_type] = weights.double() * error.square().flatten(1).mean(1)
    in_sample = sample_weights(s.log_snr(t).double(), weighting) * (wrong - images).square().flatten(1).mean(1)
    for prediction_type, loss in losses.items():
        torch.testing.assert_close(loss, in_sample, rtol=1e-4, atol=1e-12, msg=lambda m, p=prediction_type: f"{p}: {m}")


@pytest.mark.parametrize("prediction_type", TARGETS)
def test_simple_is_the_plain_squared_error(prediction_type: PredictionType) -> None:
    assert (loss_weights(scheduler(prediction_type=prediction_type), SimpleWeighting()) == 1).all()


@pytest.mark.parametrize("prediction_type", TARGETS)
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda w: w.name)
def test_weights_are_finite_at_zero_terminal_snr(prediction_type: PredictionType, weighting: WeightingConfig) -> None:
    if prediction_type == "epsilon":
        return
    for name in known_schedules():
        if name == "learned":  # which has two finite ends
            continue
        weights = loss_weights(scheduler(name, prediction_type, zero=True), weighting)
        assert bool(torch.isfinite(weights).all())


# Weightings


def test_weights_on_the_noise_and_on_v_are_the_papers() -> None:
    """Hang et al. (2303.09556) write min-SNR for the noise and for v, Salimans and Ho the truncated SNR for x_0."""
    s = scheduler(prediction_type="epsilon")
    alpha_bar = s.alphas_cumprod.double()
    snr = alpha_bar / (1 - alpha_bar)
    close = {"rtol": 2e-5, "atol": 0}  # float32 alphas_cumprod against the table of log-SNRs
    got = {w.name: loss_weights(s, w).double() for w in WEIGHTINGS}
    torch.testing.assert_close(got["snr"], torch.ones_like(snr), **close)
    torch.testing.assert_close(got["min_snr"], snr.clamp(max=5) / snr, **close)
    torch.testing.assert_close(got["truncated_snr"], snr.clamp(min=1) / snr, **close)
    torch.testing.assert_close(got["p2"], 1 / (1 + snr), **close)

    v = scheduler(prediction_type="v_prediction")
    for gamma in (1.0, 5.0, 20.0):
        weights = loss_weights(v, MinSnrWeighting(gamma)).double()
        torch.testing.assert_close(weights, snr.clamp(max=gamma) / (snr + 1), **close)
    weights = loss_weights(scheduler(prediction_type="epsilon"), P2Weighting(0.5)).double()
    torch.testing.assert_close(weights, (1 + snr) ** -0.5, **close)
    assert torch.equal(VlbObjective(v, VlbConfig()).weights, loss_weights(v, ElboWeighting()))


@pytest.mark.parametrize(("name", "zero"), SCHEDULES)
def test_elbo_is_the_sum_of_the_kl_divergences(name: str, zero: bool) -> None:
    """KL(q(x_{t-1} | x_t, x_0) || q(x_{t-1} | x_t, x_0')), two Gaussians of one variance, for t >= 1 (2006.11239)."""
    s = scheduler(name, "sample", zero)
    t = torch.arange(1, 1000)
    generator = torch.Generator().manual_seed(0)
    x_t, x_0, other = torch.randn(3, len(t), 1, 2, 2, generator=generator, dtype=torch.float64)
    p, q = s.posterior(x_0, x_t, t), s.posterior(other, x_t, t)
    kl = ((p.mean - q.mean).square() / (2 * p.variance)).flatten(1).sum(1)
    weights = sample_weights(s.log_snr(torch.arange(1000)).double(), ElboWeighting())[1:]
    terms = weights * (x_0 - other).square().flatten(1).sum(1)
    assert torch.isclose(terms.sum(), 1000 * kl.sum(), rtol=1e-3)
    # term by term, but where the difference of two neighbouring float32 log-SNRs has few digits
    torch.testing.assert_close(terms, 1000 * kl, rtol=2e-2, atol=0)


def test_elbo_at_the_first_step_is_a_gaussian_decoder() -> None:
    """-log N(x_0; x_0', 1 / snr_0), less its constant, is snr_0 / 2 times the squared error."""
    s = scheduler()
    log_snr = s.log_snr(torch.arange(1000)).double()
    weights = sample_weights(log_snr, ElboWeighting())
    assert math.isclose(weights[0], 1000 * log_snr[0].exp() / 2, rel_tol=1e-9)


def bump(log_snr: torch.Tensor) -> torch.Tensor:
    """A test function on the line of log-SNRs that vanishes outside (-4, 6)."""
    return torch.where((log_snr - 1).abs() < 5, torch.cos((log_snr - 1) * torch.pi / 10).square(), 0)


@pytest.mark.parametrize(
    ("weighting", "density"),
    [
        # E_t[w f] is an integral over lambda of f times this
        (ElboWeighting(), lambda y: y.exp() / 2),
        (SigmoidWeighting(), lambda y: torch.sigmoid(-y) * y.exp() / 2),
        (
            EdmWeighting(),
            lambda y: torch.exp(-0.5 * ((y - 2.4) / 2.4) ** 2) / (2.4 * math.sqrt(2 * math.pi)) * (4 + y.exp()),
        ),
    ],
)
@pytest.mark.parametrize(("name", "options"), [("cosine", {}), ("sigmoid", {}), ("linear", {}), ("laplace", {"b": 2})])
def test_three_weightings_are_the_same_integral_for_every_schedule(
    name: str, options: dict[str, float], weighting: WeightingConfig, density: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    s = scheduler(name, "sample", length=4000, **options)
    log_snr = s.log_snr(torch.arange(4000)).double()
    figure = (sample_weights(log_snr, weighting) * bump(log_snr)).mean()
    line = torch.linspace(-4, 6, 10001, dtype=torch.float64)
    assert math.isclose(figure, torch.trapezoid(density(line) * bump(line), line), rel_tol=0.01)


def test_edm_is_the_loss_of_karras() -> None:
    """2206.00364, eq. 2 and table 1: E over ln sigma ~ N(-1.2, 1.2^2) of (sigma^2 + sd^2) / (sigma sd)^2 times the
    squared error of the denoiser, by direct quadrature; sigma is s / a, so lambda = -2 ln sigma.
    """
    for sigma_data in (0.5, 0.3):
        ln_sigma = torch.linspace(-3, 2, 20001, dtype=torch.float64)
        sigma = ln_sigma.exp()
        density = torch.exp(-0.5 * ((ln_sigma + 1.2) / 1.2) ** 2) / (1.2 * math.sqrt(2 * math.pi))
        weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
        wanted = torch.trapezoid(density * weight * bump(-2 * ln_sigma), ln_sigma)
        s = scheduler("cosine", "sample", length=4000)
        log_snr = s.log_snr(torch.arange(4000)).double()
        config = EdmWeighting(sigma_data)
        assert math.isclose((sample_weights(log_snr, config) * bump(log_snr)).mean(), wanted, rel_tol=0.01)


def test_the_bias_of_sigmoid_moves_it_along_the_log_snr() -> None:
    s = scheduler("cosine", "epsilon")
    log_snr = s.log_snr(torch.arange(1000)).double()
    ratio = sample_weights(log_snr, SigmoidWeighting(2.0)) / sample_weights(log_snr, SigmoidWeighting())
    torch.testing.assert_close(ratio, (1 + log_snr.exp()) / (1 + (log_snr - 2).exp()), rtol=1e-9, atol=0)


def test_squared_error_in_sample() -> None:
    log_snr = torch.linspace(-12, 12, 49, dtype=torch.float64)
    snr = log_snr.exp()
    a, s = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    wanted = {"epsilon": 1 / snr, "sample": snr**0, "v_prediction": s**2, "x0_minus_noise": (s / (a + s)) ** 2}
    for prediction_type in TARGETS:
        got = squared_error_in_sample(prediction_type, log_snr)
        torch.testing.assert_close(got, wanted[prediction_type], rtol=1e-9, atol=0)
