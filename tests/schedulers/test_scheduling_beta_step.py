"""The reverse step: stock diffusers where it is right, exact answers on Gaussian data, and what a step costs."""

import itertools
import math
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch.utils._python_dispatch import TorchDispatchMode

from logsnr.schedulers.scheduling_beta import BetaScheduler, CosineBetaScheduler, LinearBetaScheduler

TARGETS = ["epsilon", "sample", "v_prediction", "x0_minus_noise"]
DOUBLE = torch.float64
targets = pytest.mark.parametrize("target", TARGETS)
stock_targets = pytest.mark.parametrize("target", TARGETS[:3])  # stock has no x0_minus_noise


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def assert_near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest magnitude, or of 1."""
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


# -- reverse process: parity with stock where it is right -------------------------------------------------------------


def pair(stock: type, **arguments: Any) -> tuple[BetaScheduler, Any]:
    made = LinearBetaScheduler(**arguments)
    return made, stock.from_config(made.config)


def x_0_tolerance(scheduler: BetaScheduler, t: torch.Tensor) -> float:
    """1e-5, or float32's own error of (x_t - s eps)/a where a is small and the clip leaves a difference standing."""
    return max(1e-5, 4e-7 / float(scheduler.alphas_cumprod[t]) ** 0.5)


@stock_targets
@pytest.mark.parametrize(
    ("variance", "spacing"),
    [("fixed_small", "leading"), ("fixed_large", "leading"), ("fixed_small", "trailing"), ("learned_range", "leading")],
)
@pytest.mark.parametrize("clip", [True, False])
def test_ancestral_step_is_ddpm_s(target: str, variance: str, spacing: str, clip: bool) -> None:
    made, stock = pair(
        DDPMScheduler, prediction_type=target, variance_type=variance, timestep_spacing=spacing, clip_sample=clip
    )
    output = normal(2, 6 if variance == "learned_range" else 3, 8, 8, seed=3003)
    for n in (1, 7, 50, 1000):
        made.set_timesteps(n)
        stock.set_timesteps(n)
        for i in {0, 1, n // 2, n - 2, n - 1} & set(range(n)):
            t, x = made.timesteps[i], normal(2, 3, 8, 8, seed=i)
            if variance == "learned_range" and i == n - 1 and t > 0:
                continue
            a, b = (s.step(output, t, x, generator=torch.Generator().manual_seed(1)) for s in (made, stock))
            assert_near(a.prev_sample, b.prev_sample)
            assert_near(a.pred_original_sample, b.pred_original_sample, x_0_tolerance(made, t))


@stock_targets
@pytest.mark.parametrize(
    ("eta", "counts"), [(0.0, (1, 7, 50, 1000)), (0.3, (2, 10, 50)), (0.7, (2, 10, 50)), (1.0, (2, 10, 50))]
)
@pytest.mark.parametrize("clip", [True, False])
def test_step_is_ddim_s(target: str, eta: float, counts: tuple[int, ...], clip: bool) -> None:
    made, stock = pair(DDIMScheduler, prediction_type=target, timestep_spacing="leading", clip_sample=clip)
    output, z = normal(2, 3, 8, 8, seed=3003), normal(2, 3, 8, 8, seed=4004)
    for n in counts:
        made.set_timesteps(n, eta=eta)
        stock.set_timesteps(n)
        for i in {0, 1, n // 2, n - 2, n - 1} & set(range(n)):
            t, x = made.timesteps[i], normal(2, 3, 8, 8, seed=i)
            a = made.step(output, t, x, variance_noise=z)
            b = stock.step(output, t, x, eta=eta, use_clipped_model_output=True, variance_noise=z)
            assert_near(a.prev_sample, b.prev_sample)
            assert_near(a.pred_original_sample, b.pred_original_sample, x_0_tolerance(made, t))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (3, 1, 5)])
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_thresholding_is_stock_s(shape: tuple[int, ...], size: float) -> None:
    """Below the quantile 1 it clips only, above `sample_max_value` it divides by that."""
    options = {"thresholding": True, "sample_max_value": 2.5, "dynamic_thresholding_ratio": 0.9}
    made, stock = pair(DDPMScheduler, prediction_type="sample", **options)
    output, x = size * normal(*shape, seed=1), normal(*shape)
    for t in (0, 300, 999):
        a, b = (s.step(output, t, x, generator=torch.Generator().manual_seed(1)) for s in (made, stock))
        assert_near(a.pred_original_sample, b.pred_original_sample)
        assert_near(a.prev_sample, b.prev_sample)
    half = made.step(output.bfloat16(), 300, x.bfloat16())
    assert half.prev_sample.dtype == torch.bfloat16


def test_noise_is_recomputed_from_the_clipped_image() -> None:
    """x' = a' x_0 + s' eps with the clipped x_0 and its own eps at eta = 0: stock keeps the unclipped eps."""
    made, stock = pair(DDIMScheduler, timestep_spacing="leading")
    made.set_timesteps(10, eta=0.0)
    stock.set_timesteps(10)
    x, output = 3 * normal(2, 3, 8, 8, dtype=DOUBLE), normal(2, 3, 8, 8, seed=1, dtype=DOUBLE)
    a = made.alphas_cumprod.double().sqrt()
    s = (1 - a.square()).sqrt()
    x_0 = ((x - s[500] * output) / a[500]).clamp(-1, 1)
    expected = a[400] * x_0 + s[400] * (x - a[500] * x_0) / s[500]
    assert_near(made.step(output, 500, x).prev_sample, expected, 1e-6)
    assert float((stock.step(output, 500, x).prev_sample - expected).abs().max()) > 0.5


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_fixed_large_changes_the_scale_of_the_noise_only(eta: float) -> None:
    small, large = (LinearBetaScheduler(variance_type=v) for v in ("fixed_small", "fixed_large"))
    x, output, zero, one = (
        normal(1, 1, 4, 4),
        normal(1, 1, 4, 4, seed=1),
        torch.zeros(1, 1, 4, 4),
        torch.ones(1, 1, 4, 4),
    )
    for scheduler in (small, large):
        scheduler.set_timesteps(20, eta=eta)
    bar = small.alphas_cumprod.double()
    for t, before in itertools.pairwise(small.timesteps):
        means = [s.step(output, t, x, variance_noise=zero).prev_sample for s in (small, large)]
        assert torch.equal(*means)
        by_z = [s.step(zero, t, zero, variance_noise=one).prev_sample[0, 0, 0, 0].item() for s in (small, large)]
        beta = float(1 - bar[t] / bar[before])
        assert by_z[0] == pytest.approx(eta * (beta * float((1 - bar[before]) / (1 - bar[t]))) ** 0.5, rel=1e-4)
        assert by_z[1] == pytest.approx(eta * beta**0.5, rel=1e-4)


# -- reverse process: exact on Gaussian data --------------------------------------------------------------------------

MEAN, STD = 0.3, 0.5


def best_output(x: torch.Tensor, a: torch.Tensor, s: torch.Tensor, target: str) -> torch.Tensor:
    """E[target | x_t] for x_0 ~ N(MEAN, STD^2): affine in x, so that the whole sampler is."""
    x_0 = (STD**2 * a * x + s**2 * MEAN) / (a**2 * STD**2 + s**2)
    eps = s * (x - a * MEAN) / (a**2 * STD**2 + s**2)
    return {"sample": x_0, "epsilon": eps, "v_prediction": a * eps - s * x_0, "x0_minus_noise": x_0 - eps}[target]


def propagate(scheduler: Any, target: str, **step: Any) -> tuple[float, float]:
    """Mean and std after sampling from the exact x_T, by probing each affine step at x = 0, x = 1 and z = 1."""
    x, z = torch.tensor([0.0, 1.0, 0.0], dtype=DOUBLE).view(3, 1, 1, 1), torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1, 1)
    bar = scheduler.alphas_cumprod.double()
    first = bar[scheduler.timesteps[0]]
    mean, variance = first.sqrt() * MEAN, first * STD**2 + 1 - first
    for t in scheduler.timesteps:
        output = best_output(x, bar[t].sqrt(), (1 - bar[t]).sqrt(), target)
        base, at_one, at_z = scheduler.step(output, t, x, variance_noise=z.double(), **step).prev_sample.flatten()
        mean, variance = base + (at_one - base) * mean, (at_one - base) ** 2 * variance + (at_z - base) ** 2
    return float(mean), float(variance.sqrt())


def recursion(scheduler: BetaScheduler, eta: float, large: bool) -> tuple[float, float]:
    """The same from DDIM's eq. 12 by hand, between consecutive timesteps, in float64."""
    bar = torch.cat([scheduler.alphas_cumprod.double(), torch.ones(1, dtype=DOUBLE)])
    times = [*scheduler.timesteps.tolist(), -1]
    mean, variance = float(bar[times[0]].sqrt()) * MEAN, float(bar[times[0]] * STD**2 + 1 - bar[times[0]])
    for t, u in itertools.pairwise(times):
        b, c = float(bar[t]), float(bar[u])
        small = (1 - b / c) * (1 - c) / (1 - b)
        slope_0, slope_eps = STD**2 * b**0.5 / (b * STD**2 + 1 - b), (1 - b) ** 0.5 / (b * STD**2 + 1 - b)
        rest = max(1 - c - eta**2 * small, 0) ** 0.5
        # E[x_0 | x_t] = MEAN + slope_0 (x_t - a MEAN), E[eps | x_t] = slope_eps (x_t - a MEAN)
        slope = c**0.5 * slope_0 + rest * slope_eps
        mean = c**0.5 * MEAN + slope * (mean - b**0.5 * MEAN)
        noise = 0.0 if u < 0 else eta**2 * (1 - b / c if large else small)
        variance = slope**2 * variance + noise
    return mean, variance**0.5


@targets
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_gaussian_data_come_back(target: Any, eta: float, variance: Any) -> None:
    made = CosineBetaScheduler(prediction_type=target, variance_type=variance, clip_sample=False)
    for n in (4, 30, 1000):
        made.set_timesteps(n, eta=eta)
        mean, std = propagate(made, target)
        expected = recursion(made, eta, variance == "fixed_large")
        # parity with stock's DDPM takes its float32 ratio of alpha_bar over, which 1000 steps add up
        assert (mean, std) == pytest.approx(expected, abs=2e-4 if n == 1000 and eta > 0 else 1e-5)
    assert mean == pytest.approx(MEAN, abs=1e-3)
    assert std == pytest.approx(STD, rel=0.01)


@pytest.mark.parametrize(("eta", "counts"), [(0.0, (20, 40, 80, 160)), (1.0, (160, 320, 640))])
def test_sampling_converges_at_order_one(eta: float, counts: tuple[int, ...]) -> None:
    made = CosineBetaScheduler(num_train_timesteps=4000, clip_sample=False, variance_type="fixed_small")
    errors = []
    for n in counts:
        made.set_timesteps(n, eta=eta)
        errors.append(abs(propagate(made, "epsilon")[1] - STD))
    orders = [math.log2(e / f) for e, f in itertools.pairwise(errors)]
    assert all(0.88 < order < 1.1 for order in orders), orders


@pytest.mark.parametrize(("spacing", "n"), [("trailing", 7), ("linspace", 10)])
def test_stock_ddim_s_previous_timestep_is_wrong_and_ours_is_right(spacing: Any, n: int) -> None:
    made = LinearBetaScheduler(timestep_spacing=spacing, clip_sample=False)
    stock = DDIMScheduler.from_config(made.config)
    made.set_timesteps(n, eta=0.0)
    stock.set_timesteps(n)
    assert torch.equal(made.timesteps, stock.timesteps)
    expected = recursion(made, 0.0, False)
    assert propagate(made, "epsilon") == pytest.approx(expected, abs=2e-5)
    assert propagate(stock, "epsilon") != pytest.approx(expected, abs=2e-3)
    # the time it thinks it has reached is not the next one of its own list
    reached = stock.timesteps - len(made) // n
    assert int((reached[:-1] != stock.timesteps[1:]).sum()) >= n // 2


# -- reverse process: cost --------------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """Names of the aten calls made, views included."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@targets
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_a_step_is_twelve_operations_and_waits_for_nothing(
    target: Any, dtype: torch.dtype, eta: float, variance: Any
) -> None:
    made = LinearBetaScheduler(prediction_type=target, variance_type=variance)
    made.set_timesteps(10, eta=eta)
    x = normal(2, 3, 8, 8, dtype=dtype)
    for timestep in (made.timesteps[3], made.timesteps[[3, 5]]):
        for noise in (x, None):
            with Operations() as operations:
                made.step(x, timestep, x, variance_noise=noise)
            assert len(operations.names) <= 12, operations.names
            assert not {"_local_scalar_dense", "item", "nonzero"} & set(operations.names)


@pytest.mark.parametrize("given", [True, False], ids=["noise given", "global generator"])
@pytest.mark.parametrize("variance", ["fixed_small", "learned_range"])
def test_one_graph_for_all_steps(given: bool, variance: Any) -> None:
    made = LinearBetaScheduler(variance_type=variance)
    made.set_timesteps(10)
    output, x = normal(2, 6 if variance == "learned_range" else 3, 8, 8, seed=1), normal(2, 3, 8, 8)
    torch._dynamo.reset()

    def run(step: Any) -> torch.Tensor:
        torch.manual_seed(0)
        sample = x
        for i, t in enumerate(made.timesteps):
            noise = normal(2, 3, 8, 8, seed=i) if given else None
            sample = step(output, t, sample, variance_noise=noise, return_dict=False)[0]
        return sample

    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = torch.compile(made.step, fullgraph=True, backend="eager")
        torch.testing.assert_close(run(compiled), run(made.step))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_a_step_in_another_precision_is_the_same_step(variance: Any, dtype: torch.dtype) -> None:
    made = LinearBetaScheduler(variance_type=variance)
    made.set_timesteps(10)
    output, x = normal(2, 6 if variance == "learned_range" else 3, 8, 8, seed=1), normal(2, 3, 8, 8)
    for t in made.timesteps[[0, 5]]:
        got = made.step(output.to(dtype), t, x.to(dtype), variance_noise=x.to(dtype)).prev_sample
        assert got.dtype == dtype
        wanted = made.step(output, t, x, variance_noise=x).prev_sample
        assert_near(got.float(), wanted, 0.03 if dtype == torch.bfloat16 else 1e-6)


def test_noise_of_a_generator_per_image_is_that_image_s_own() -> None:
    made = LinearBetaScheduler()
    made.set_timesteps(5)
    x, output, t = normal(3, 1, 8, 8), normal(3, 1, 8, 8, seed=1), made.timesteps[0]
    together = made.step(output, t, x, generator=[torch.Generator().manual_seed(i) for i in range(3)]).prev_sample
    for i in range(3):
        one = made.step(output[i : i + 1], t, x[i : i + 1], generator=torch.Generator().manual_seed(i)).prev_sample
        assert torch.equal(one[0], together[i])
    rows = made.step(output, made.timesteps[[0, 2, 4]], x, variance_noise=x).prev_sample  # one timestep an image
    for i in range(3):
        alone = made.step(output[i : i + 1], made.timesteps[2 * i], x[i : i + 1], variance_noise=x[i : i + 1])
        assert torch.equal(rows[i], alone.prev_sample[0])
