"""The beta schedules: closed forms first, stock diffusers where it is right, and both side by side where it isn't."""

import inspect
import itertools
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from logsnr.schedulers.scheduling_beta import (
    BetaScheduler,
    ConstantBetaScheduler,
    CosineBetaScheduler,
    LaplaceBetaScheduler,
    LearnedBetaScheduler,
    LinearBetaScheduler,
    ScheduleWarning,
    SigmoidBetaScheduler,
)

OURS = [
    LinearBetaScheduler,
    CosineBetaScheduler,
    ConstantBetaScheduler,
    SigmoidBetaScheduler,
    LaplaceBetaScheduler,
    LearnedBetaScheduler,
]
TARGETS = ["epsilon", "sample", "v_prediction", "x0_minus_noise"]
SPACINGS = ["leading", "trailing", "linspace"]
DOUBLE = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of stock solvers under NumPy 2
ours = pytest.mark.parametrize("cls", OURS, ids=lambda c: c.__name__.removesuffix("BetaScheduler").lower())
targets = pytest.mark.parametrize("target", TARGETS)


class SquareBetaScheduler(BetaScheduler):
    """A user's own schedule, as the docstring of `BetaScheduler` has it."""

    @staticmethod
    def make_betas(num_train_timesteps: int, *, end: float = 0.03) -> torch.Tensor:
        return torch.linspace(0.01, end**0.5, num_train_timesteps) ** 2


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def a_and_s(scheduler: BetaScheduler) -> tuple[torch.Tensor, torch.Tensor]:
    bar = scheduler.alphas_cumprod.double()
    return bar.sqrt(), (1 - bar).sqrt()


def assert_near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest magnitude, or of 1."""
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


def stock_schedulers() -> list[type]:
    """Every stock scheduler that runs on the betas it is given, found by giving it some."""
    betas = SigmoidBetaScheduler().betas
    found = []
    for name in sorted(n for n in dir(diffusers) if n.endswith("Scheduler")):
        cls = getattr(diffusers, name)
        if "trained_betas" in inspect.signature(cls.__init__).parameters:
            try:
                with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                    made = cls(trained_betas=betas.tolist())
            except TypeError:  # RePaint wants an array
                continue
            if torch.equal(getattr(made, "betas", torch.zeros(())), betas) and hasattr(made, "alphas_cumprod"):
                found.append(cls)
    return [c for c in found if not c.__name__.startswith("CogVideoX")]  # another snr_shift_scale unless told


STOCK = stock_schedulers()


# -- the schedules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "name"), [(LinearBetaScheduler, "linear"), (CosineBetaScheduler, "squaredcos_cap_v2")])
def test_betas_are_stock_s_bit_for_bit(cls: type[BetaScheduler], name: str) -> None:
    made, stock = cls(), DDPMScheduler(beta_schedule=name)
    assert torch.equal(made.betas, stock.betas)
    assert torch.equal(made.alphas_cumprod, stock.alphas_cumprod)


def test_laplace_is_the_paper_s_where_stock_takes_a_root() -> None:
    made, stock = LaplaceBetaScheduler(), DDPMScheduler(beta_schedule="laplace")
    u = torch.arange(1, 1001, dtype=DOUBLE) / 1000
    log_snr = -0.5 * torch.copysign(torch.ones(()), 0.5 - u) * torch.log(1 - 2 * (u - 0.5).abs() + 1e-6)
    assert_near(made.alphas_cumprod.double(), torch.sigmoid(log_snr), 1e-6)
    # its sqrt(snr/(1+snr)) is a, not a^2 (and it restarts at alpha_bar(0) = 0.9995^(1/2))
    assert_near(stock.alphas_cumprod.double(), torch.sigmoid(log_snr).sqrt(), 1e-3)
    assert float(made.alphas_cumprod[-1]) == pytest.approx(1e-3, rel=1e-2)
    assert float(stock.alphas_cumprod[-1]) == pytest.approx(0.0316, rel=1e-2)


@ours
@pytest.mark.parametrize("total", [20, 100, 1000, 4000])
def test_defaults_reach_noise_without_a_warning(cls: type[BetaScheduler], total: int) -> None:
    made = cls(num_train_timesteps=total)  # pyproject makes a ScheduleWarning an error
    assert all(check.passed for check in made.checks())
    assert made.betas.shape == (total,)
    assert made.betas.dtype == torch.float32
    assert (torch.diff(made.alphas_cumprod) < 0).all()
    assert float(made.alphas_cumprod[-1]) <= 1.1e-3


def test_linear_rescales_with_the_length_of_the_chain() -> None:
    snr = [float(LinearBetaScheduler(num_train_timesteps=n).alphas_cumprod[-1]) for n in (50, 100, 250, 1000, 4000)]
    assert max(snr[1:]) < 2.1 * min(snr[1:])
    assert max(snr) < 6 * min(snr)
    stock = [float(DDPMScheduler(num_train_timesteps=n).alphas_cumprod[-1]) for n in (100, 250)]
    assert min(stock) > 0.05  # stock's don't, and end far from noise
    given = LinearBetaScheduler(num_train_timesteps=2000, beta_start=1e-4, beta_end=0.02)
    assert given.betas[-1] == torch.tensor(0.02)


def test_constant_product_is_beta_min_whatever_the_length() -> None:
    for total in (10, 100, 1000):
        made = ConstantBetaScheduler(num_train_timesteps=total, beta_min=0.999)
        assert made.betas.unique().numel() == 1
        assert float(made.alphas_cumprod[-1]) == pytest.approx(1e-3, rel=1e-3)


def test_cosine_and_sigmoid_closed_forms() -> None:
    u = torch.arange(1, 1001, dtype=DOUBLE) / 1000
    cosine = torch.cos((u + 0.008) / 1.008 * math.pi / 2).square() / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert_near(CosineBetaScheduler().alphas_cumprod.double(), cosine, 1e-5)
    low, high = torch.sigmoid(torch.tensor([-3.0, 3.0], dtype=DOUBLE))
    sigmoid = (high - torch.sigmoid(-3 + 6 * u)) / (high - low)
    assert_near(SigmoidBetaScheduler().alphas_cumprod.double(), sigmoid, 1e-5)


@ours
@pytest.mark.parametrize("shift", [-2.0, -2 * math.log(2), 1.0])
def test_shift_is_added_to_every_log_snr(cls: type[BetaScheduler], shift: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScheduleWarning)  # less noise may end above the bound
        shifted = cls(shift=shift)
    t = torch.arange(999)
    torch.testing.assert_close(shifted.log_snr(t), cls().log_snr(t) + shift, rtol=2e-3, atol=2e-3)


@ours
def test_zero_terminal_snr(cls: type[BetaScheduler]) -> None:
    plain, made = cls(), cls(zero_terminal_snr=True, prediction_type="v_prediction")
    assert made.betas[-1] == 1
    assert made.alphas_cumprod[-1] == 0
    assert made.log_snr(torch.tensor([999])).item() == -math.inf
    assert float(made.alphas_cumprod[0]) == pytest.approx(float(plain.alphas_cumprod[0]), abs=1e-6)
    last = made.add_noise(normal(1, 1, 4, 4), normal(1, 1, 4, 4, seed=1), torch.tensor([999]))
    assert torch.equal(last, normal(1, 1, 4, 4, seed=1))
    for target in TARGETS[1:]:
        made = cls(zero_terminal_snr=True, prediction_type=target)
        for n, eta in itertools.product((1, 5, 1000), (0.0, 1.0)):
            made.set_timesteps(n, eta=eta)
            assert made.timesteps[0] == 999
            for t in made.timesteps[:2]:
                assert made.step(normal(2, 1, 4, 4), t, normal(2, 1, 4, 4)).prev_sample.isfinite().all()


# -- errors and warnings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"trained_betas": [0.1] * 999}, "trained_betas"),
        ({"trained_betas": [0.0] + [0.1] * 999}, "betas"),
        ({"trained_betas": [1.0] + [0.1] * 999}, "betas"),
        ({"trained_betas": [float("nan")] * 1000}, "betas"),
        ({"trained_betas": [0.1] * 1000, "zero_terminal_snr": True, "prediction_type": "sample"}, "zero_terminal_snr"),
        ({"zero_terminal_snr": True}, "prediction_type"),
        ({"num_train_timesteps": 1}, "num_train_timesteps"),
        ({"beta_min": 0.5}, "`beta_min` is no option of LinearBetaScheduler, which has: beta_start, beta_end"),
        ({"beta_end": -1.0}, "betas"),
        ({"prediction_type": "noise"}, "prediction_type"),
        ({"variance_type": "fixed"}, "variance_type"),
        ({"timestep_spacing": "log"}, "timestep_spacing"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LinearBetaScheduler(**arguments)


@pytest.mark.parametrize(
    ("cls", "arguments", "named"),
    [
        (ConstantBetaScheduler, {"beta_min": 1.0}, "beta_min"),
        (SigmoidBetaScheduler, {"start": 3.0}, "start"),
        (SigmoidBetaScheduler, {"tau": 0.0}, "tau"),
        (LaplaceBetaScheduler, {"b": 0.0}, "`b`"),
    ],
)
def test_a_wrong_option_is_named(cls: type[BetaScheduler], arguments: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        cls(**arguments)


def test_the_base_class_is_abstract() -> None:
    with pytest.raises(TypeError, match="make_betas"):
        BetaScheduler()


@pytest.mark.parametrize(
    ("make", "figure"),
    [
        (lambda: ConstantBetaScheduler(num_train_timesteps=10, beta_min=1e-4), r"terminal SNR is 9985, above 0\.002"),
        (lambda: LinearBetaScheduler(num_train_timesteps=10), "cut off at 0.999 before the last is 4"),
        (lambda: LinearBetaScheduler(beta_end=0.5), r"lost to float32 is \d+"),
        (lambda: LinearBetaScheduler(beta_start=1e-8), "lost to float32 is 1"),
        (lambda: LinearBetaScheduler(shift=8.0), "terminal SNR"),
        (lambda: CosineBetaScheduler(trained_betas=LinearBetaScheduler().betas.tolist()), "differ by up to 0.98"),
    ],
)
def test_a_schedule_that_does_not_do_its_job_says_so(make: Any, figure: str) -> None:
    with pytest.warns(ScheduleWarning, match=figure):
        make()


# -- configuration ----------------------------------------------------------------------------------------------------

VARIANTS = [
    (LinearBetaScheduler, {}),
    (LinearBetaScheduler, {"num_train_timesteps": 250, "beta_end": 0.07, "prediction_type": "v_prediction"}),
    (CosineBetaScheduler, {"shift": -1.4, "clip_sample": False, "variance_type": "fixed_large"}),
    (ConstantBetaScheduler, {"beta_min": 0.9995, "thresholding": True, "sample_max_value": 2.0}),
    (SigmoidBetaScheduler, {"tau": 0.7, "zero_terminal_snr": True, "prediction_type": "sample"}),
    (LaplaceBetaScheduler, {"b": 0.6, "timestep_spacing": "leading", "clip_sample_range": 3.0}),
    (SquareBetaScheduler, {"end": 0.025, "num_train_timesteps": 500, "shift": -2.0}),
]
variants = pytest.mark.parametrize(("cls", "arguments"), VARIANTS, ids=lambda v: getattr(v, "__name__", ""))


def own_config(scheduler: Any) -> dict[str, Any]:
    return {k: v for k, v in scheduler.config.items() if k not in ("_use_default_values", "_class_name")}


@variants
def test_json_round_trip_is_bit_for_bit(cls: type[BetaScheduler], arguments: dict[str, Any], tmp_path: Path) -> None:
    made = cls(**arguments)
    made.save_pretrained(tmp_path)
    loaded = cls.from_pretrained(tmp_path)
    assert dict(loaded.config) == dict(made.config)
    assert loaded.config.trained_betas == made.betas.tolist()
    assert torch.equal(loaded.betas, made.betas)
    assert torch.equal(loaded._reverse.nan_to_num(), made._reverse.nan_to_num())


@pytest.mark.parametrize("stock", STOCK, ids=lambda c: c.__name__)
def test_stock_runs_on_our_betas_and_the_way_back_loses_nothing(
    stock: type, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    for cls, arguments in VARIANTS:
        if arguments.get("zero_terminal_snr"):
            continue  # stock needs its own flag: below
        made = cls(**arguments)
        swapped = stock.from_config(made.config)
        assert torch.equal(swapped.alphas_cumprod, made.alphas_cumprod)
        for key in ("num_train_timesteps", "prediction_type", "clip_sample", "thresholding", "timestep_spacing"):
            assert swapped.config[key] == made.config[key]
        back = cls.from_config(swapped.config)
        assert {k: back.config[k] for k in own_config(made)} == own_config(made)
        assert torch.equal(back.betas, made.betas)
    assert not [r for r in caplog.records if "logsnr" in r.getMessage()]
    stock.from_config({**made.config, "logsnr": 1})  # the capture works, and a plain key would be named
    assert [r for r in caplog.records if "'logsnr'" in r.getMessage()]


def test_at_least_21_stock_schedulers_run_on_our_betas() -> None:
    print(*(c.__name__ for c in STOCK))
    assert len(STOCK) >= 21


@pytest.mark.parametrize("stock", [DDIMScheduler, diffusers.EulerDiscreteScheduler, diffusers.UniPCMultistepScheduler])
def test_zero_terminal_snr_needs_stock_s_own_flag(stock: type) -> None:
    made = CosineBetaScheduler(zero_terminal_snr=True, prediction_type="v_prediction")
    swapped = stock.from_config(made.config, rescale_betas_zero_snr=True)
    assert_near(swapped.alphas_cumprod, made.alphas_cumprod, 1e-6)
    back = CosineBetaScheduler.from_config(swapped.config)
    assert {k: back.config[k] for k in own_config(made)} == own_config(made)


@pytest.mark.parametrize("stock", STOCK, ids=lambda c: c.__name__)
def test_ours_from_a_stock_config(stock: type) -> None:
    made = stock(beta_schedule="linear", beta_start=2e-4, beta_end=0.05, num_train_timesteps=400)
    taken = LinearBetaScheduler.from_config(made.config)
    assert torch.equal(taken.alphas_cumprod, made.alphas_cumprod)
    assert len(taken) == 400


def test_a_recorded_value_is_a_value_from_stock_to_ours_to_stock() -> None:
    """Stock alone drops what was left at its class's default: "leading" of DDPM becomes Euler's "linspace"."""
    first, euler = DDPMScheduler(), diffusers.EulerDiscreteScheduler
    assert euler.from_config(first.config).config.timestep_spacing == "linspace"
    assert euler.from_config(LinearBetaScheduler.from_config(first.config).config).config.timestep_spacing == "leading"


def test_trained_betas_win_and_a_foreign_formula_without_them_raises() -> None:
    foreign = DDPMScheduler(beta_schedule="squaredcos_cap_v2", beta_start=1e-3)
    with pytest.raises(ValueError, match=r"squaredcos_cap_v2.*trained_betas"):
        LinearBetaScheduler.from_config(foreign.config)
    with pytest.warns(ScheduleWarning, match="aren't its own"):
        taken = LinearBetaScheduler.from_config(foreign.config, trained_betas=foreign.betas.tolist())
    assert torch.equal(taken.betas, foreign.betas)
    assert torch.equal(CosineBetaScheduler.from_config(foreign.config).betas, foreign.betas)
    cosine = CosineBetaScheduler.from_config(LinearBetaScheduler().config, trained_betas=None)
    assert torch.equal(cosine.betas, foreign.betas)
    with pytest.raises(ValueError, match="trained_betas=None"):
        LinearBetaScheduler.from_config(taken.config, num_train_timesteps=50)


# -- forward process --------------------------------------------------------------------------------------------------


@ours
@pytest.mark.parametrize("shape", [(4, 8), (4, 3, 8), (4, 3, 8, 8), (4, 2, 3, 8, 8)])
def test_forward_closed_forms_in_any_number_of_dimensions(cls: type[BetaScheduler], shape: tuple[int, ...]) -> None:
    made = cls()
    x_0, noise, t = normal(*shape, dtype=DOUBLE), normal(*shape, seed=1, dtype=DOUBLE), torch.tensor([0, 9, 500, 999])
    a, s = (c[t].view(-1, *[1] * (len(shape) - 1)) for c in a_and_s(made))
    x_t = made.add_noise(x_0, noise, t)
    torch.testing.assert_close(x_t, a * x_0 + s * noise, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(made.get_velocity(x_0, noise, t), a * noise - s * x_0, rtol=1e-13, atol=1e-13)
    for i in range(4):  # a timestep of shape () is the same for all
        torch.testing.assert_close(made.add_noise(x_0, noise, t[i])[i], x_t[i])
    for target, value in {"sample": x_0, "v_prediction": a * noise - s * x_0, "x0_minus_noise": x_0 - noise}.items():
        torch.testing.assert_close(made.convert(noise, x_t, t, "epsilon", target), value, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(made.convert(value, x_t, t, target, "epsilon"), noise, rtol=1e-6, atol=1e-6)
    made.set_timesteps(timesteps=[999, 500, 9, 0])
    assert made.step(noise, t, x_t).prev_sample.shape == shape


@settings(max_examples=60, deadline=None)
@given(
    cls=st.sampled_from(OURS),
    t=st.integers(0, 999),
    source=st.sampled_from(TARGETS),
    target=st.sampled_from(TARGETS),
    seed=st.integers(0, 99),
)
def test_convert_there_and_back(cls: type[BetaScheduler], t: int, source: Any, target: Any, seed: int) -> None:
    made, at = cls(), torch.tensor(t)
    sample, output = normal(2, 1, 3, 3, seed=seed, dtype=DOUBLE), normal(2, 1, 3, 3, seed=seed + 100, dtype=DOUBLE)
    there = made.convert(output, sample, at, source, target)
    back = made.convert(there, sample, at, target, source)
    scale = float(sample.abs().max() + there.abs().max())
    torch.testing.assert_close(back, output, rtol=0, atol=1e-10 * max(1.0, scale))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, DOUBLE])
@pytest.mark.parametrize("t", [0, 5, 500, 999])
def test_add_noise_moments_in_every_precision(dtype: torch.dtype, t: int) -> None:
    made, n = LinearBetaScheduler(), 200_000
    a, s = (float(c[t]) for c in a_and_s(made))
    value = 0.5
    noisy = made.add_noise(torch.full((n, 1), value, dtype=dtype), normal(n, 1, dtype=dtype), torch.tensor(t))
    assert noisy.dtype == dtype
    assert float(noisy.double().mean()) == pytest.approx(a * value, abs=5 * s / n**0.5 + 1e-4)
    assert float(noisy.double().std()) == pytest.approx(s, rel=0.02)


def test_stock_adds_no_noise_in_bf16_at_the_first_timestep() -> None:
    noise, t = normal(1000, 1, dtype=torch.bfloat16), torch.tensor([0])
    clean = torch.zeros_like(noise)
    assert float(DDPMScheduler().add_noise(clean, noise, t).std()) == 0
    assert float(LinearBetaScheduler().add_noise(clean, noise, t).float().std()) == pytest.approx(0.01, rel=0.05)


@ours
def test_log_snr_is_the_log_of_the_ratio(cls: type[BetaScheduler]) -> None:
    made = cls()
    bar = made.alphas_cumprod.double()
    for t in (torch.arange(1000), torch.tensor(17), torch.tensor([3, 4])):
        expected = torch.log(bar / (1 - bar))[t].float()
        torch.testing.assert_close(made.log_snr(t), expected, rtol=1e-6, atol=1e-6)


@ours
def test_posterior_is_bayes_rule(cls: type[BetaScheduler]) -> None:
    """q(x_{t-1} | x_0) q(x_t | x_{t-1}) as a product of two Gaussians in x_{t-1}, at every t > 0."""
    made, t = cls(), torch.arange(1, 1000)
    bar = made.alphas_cumprod.double()
    x_0, x_t = normal(999, 1, dtype=DOUBLE), normal(999, 1, seed=1, dtype=DOUBLE)
    posterior = made.posterior(x_0, x_t, t)
    r, v = (bar[1:] / bar[:-1])[:, None], (1 - bar[:-1])[:, None]
    precision = 1 / v + r / (1 - r)
    mean = (bar[:-1, None].sqrt() * x_0 / v + r.sqrt() * x_t / (1 - r)) / precision
    torch.testing.assert_close(posterior.variance, 1 / precision, rtol=1e-9, atol=0)
    torch.testing.assert_close(posterior.mean, mean, rtol=1e-9, atol=1e-9)
    beta = made.betas[1:, None].double()  # the betas themselves, to the figures of alpha_bar's float32
    torch.testing.assert_close(posterior.variance, 1 / (1 / v + (1 - beta) / beta), rtol=1e-3, atol=2**-23)
    first = made.posterior(x_0[:1], x_t[:1], torch.tensor([0]))
    assert first.variance.item() == 0
    torch.testing.assert_close(first.mean, x_0[:1])


@ours
@pytest.mark.parametrize("total", [50, 1000, 4000])
def test_sde_has_the_chain_s_marginals(cls: type[BetaScheduler], total: int) -> None:
    """The mean and variance ODEs m' = f m, v' = 2 f v + g^2 integrated over (0, 1] meet the chain at each grid time."""
    made = cls(num_train_timesteps=total)
    one = torch.ones(total, 1, dtype=DOUBLE)
    ends = (torch.arange(total, dtype=DOUBLE) + 1) / total
    terms = made.sde(one, ends - 0.5 / total)
    for dtype in (torch.float32, DOUBLE):  # piecewise constant, on intervals closed at the right
        torch.testing.assert_close(made.sde(one, ends.to(dtype)), terms, rtol=0, atol=0)
        torch.testing.assert_close(made.sde(one, (ends - 0.9 / total).to(dtype)), terms, rtol=0, atol=0)
    mean, variance, means, variances = 1.0, 0.0, [], []
    for f, g in zip(terms.drift.flatten().tolist(), terms.diffusion.flatten().tolist(), strict=True):
        decay = math.exp(2 * f / total)
        mean *= math.exp(f / total)
        variance = variance * decay + g**2 * (decay - 1) / (2 * f)
        means.append(mean)
        variances.append(variance)
    bar = made.alphas_cumprod.double()
    assert_near(torch.tensor(means, dtype=DOUBLE).square(), bar, 1e-6 * total / 1000 + 1e-6)
    assert_near(torch.tensor(variances, dtype=DOUBLE), 1 - bar, 1e-6 * total / 1000 + 1e-6)
    assert torch.equal(made.sde(2 * one, ends).drift, 2 * terms.drift)


# -- reverse process: timesteps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", SPACINGS)
def test_timesteps_are_stock_s(spacing: Any) -> None:
    made, stock = LinearBetaScheduler(timestep_spacing=spacing), DDPMScheduler(timestep_spacing=spacing)
    for n in (*range(1, 130), 201, 250, 333, 500, 777, 999, 1000):
        made.set_timesteps(n)
        stock.set_timesteps(n)
        assert len(made.timesteps) == made.num_inference_steps == n
        assert torch.equal(made.timesteps, stock.timesteps[:n])
        # stock's trailing has one too many at 61, 103, ...: timestep -1, by rounding
        assert len(stock.timesteps) == n or (spacing == "trailing" and stock.timesteps[n:].tolist() == [-1])


def test_timesteps_of_one_s_own_and_their_errors() -> None:
    made = LinearBetaScheduler(timestep_spacing="leading", steps_offset=1)
    made.set_timesteps(timesteps=[900, 20, 3], device="cpu")
    assert made.timesteps.tolist() == [900, 20, 3]
    made.set_timesteps(10)
    assert made.timesteps.tolist() == list(range(901, 0, -100))
    for arguments, named in [
        ({}, "num_inference_steps.*timesteps"),
        ({"num_inference_steps": 5, "timesteps": [1]}, "num_inference_steps.*timesteps"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 1001}, "num_inference_steps"),
        ({"num_inference_steps": 1000}, "steps_offset"),
        ({"timesteps": [1, 2]}, "descending"),
        ({"timesteps": [2, 2]}, "descending"),
        ({"timesteps": []}, "descending"),
        ({"timesteps": [1000, 1]}, r"\[0, 1000\)"),
        ({"timesteps": [1, -1]}, r"\[0, 1000\)"),
        ({"num_inference_steps": 5, "eta": 1.5}, "eta"),
        ({"num_inference_steps": 5, "eta": float("nan")}, "eta"),
    ]:
        with pytest.raises(ValueError, match=named):
            made.set_timesteps(**arguments)


def test_a_step_at_a_timestep_that_was_not_chosen_is_nan() -> None:
    made = LinearBetaScheduler()
    made.set_timesteps(10)
    assert made.step(normal(1, 1, 2, 2), 500, normal(1, 1, 2, 2)).prev_sample.isnan().all()
    assert made.step(normal(1, 1, 2, 2), 499, normal(1, 1, 2, 2)).prev_sample.isfinite().all()


# -- a schedule of one's own ------------------------------------------------------------------------------------------


def test_a_user_s_subclass_works_like_ours(tmp_path: Path) -> None:
    assert SquareBetaScheduler.schedule_options() == {"end": 0.03}
    made = SquareBetaScheduler(end=0.025)
    assert made.betas[-1].item() == pytest.approx(0.025)
    assert made.betas[0].item() == pytest.approx(1e-4)
    made.save_pretrained(tmp_path)
    assert SquareBetaScheduler.from_pretrained(tmp_path).config["_logsnr"]["options"] == {"end": 0.025}
    with pytest.raises(ValueError, match="`start` is no option of SquareBetaScheduler, which has: end"):
        SquareBetaScheduler(start=1.0)
