"""The few-step sampler: stock's solvers as tables, orders of convergence on exact scores, configs, cost of a step."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from rounding import UNIT
from torch.utils._python_dispatch import TorchDispatchMode

from logsnr.schedulers.scheduling_beta import CosineBetaScheduler, LinearBetaScheduler, rescale_to_zero_terminal_snr
from logsnr.schedulers.scheduling_few_step import (
    FewStepScheduler,
    adams_table,
    ddim_table,
    dpm_solver_table,
    ipndm_table,
)

DOUBLE = torch.float64
TARGETS = ["epsilon", "sample", "v_prediction", "x0_minus_noise"]
targets = pytest.mark.parametrize("target", TARGETS)
Denoiser = Callable[[torch.Tensor, float], torch.Tensor]
"""(x, angle) -> E[x_0 | x]."""


def gaussian(x: torch.Tensor, angle: float, mean: float = 0.3, std: float = 0.5) -> torch.Tensor:
    a, s = math.cos(angle), math.sin(angle)
    return mean + a * std**2 / (a**2 * std**2 + s**2) * (x - a * mean)


def mixture(x: torch.Tensor, angle: float) -> torch.Tensor:
    """Of three Gaussians for each pixel."""
    a, s = math.cos(angle), math.sin(angle)
    means, std = torch.tensor([-0.8, 0.1, 0.7], dtype=x.dtype), 0.35
    logits = -((x[..., None] - a * means) ** 2) / (2 * (a**2 * std**2 + s**2))
    parts = torch.stack([gaussian(x, angle, float(m), std) for m in means], -1)
    return (logits.softmax(-1) * parts).sum(-1)


def output_of(x_0: torch.Tensor, x: torch.Tensor, angle: float, target: str) -> torch.Tensor:
    a, s = math.cos(angle), math.sin(angle)
    eps = (x - a * x_0) / s
    return {"epsilon": eps, "sample": x_0, "v_prediction": a * eps - s * x_0, "x0_minus_noise": x_0 - eps}[target]


def sample(scheduler: Any, denoiser: Denoiser, noise: torch.Tensor, n: int | None = None, **how: Any) -> torch.Tensor:
    """Drive any scheduler by an exact network, in float64 where it lets one."""
    if n is not None:
        scheduler.set_timesteps(n, **how)
    bar = scheduler.alphas_cumprod.double()
    target, x = scheduler.config["prediction_type"], noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        angle = math.atan2(float((1 - bar[int(t)]).sqrt()), float(bar[int(t)].sqrt()))
        x = scheduler.step(output_of(denoiser(scaled, angle), scaled, angle, target), t, x, return_dict=False)[0]
    return x


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*(shape or (2, 1, 8, 8)), generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def with_table(scheduler: FewStepScheduler, timesteps: torch.Tensor, table: Any) -> FewStepScheduler:
    chosen = timesteps.tolist()
    scheduler.set_timesteps(timesteps=chosen, coefficients=table(scheduler.angles[chosen].tolist()))
    return scheduler


# -- stock's solvers are tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS[:3])
@pytest.mark.parametrize("n", [1, 5, 20])
def test_order_one_is_ddim(target: str, n: int) -> None:
    stock = DDIMScheduler(prediction_type=target, clip_sample=False, timestep_spacing="leading")
    expected = sample(stock, mixture, noise(), n)
    ours = FewStepScheduler.from_config(stock.config)
    for table in (ddim_table, lambda angles: ipndm_table(angles, 1)):
        found = sample(with_table(ours, stock.timesteps, table), mixture, noise())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS[:3])
@pytest.mark.parametrize("n", [2, 5, 20])
def test_the_dpm_solver_s_table_is_stock_s(target: str, n: int) -> None:
    stock = DPMSolverMultistepScheduler(prediction_type=target, timestep_spacing="linspace")
    expected = sample(stock, mixture, noise(), n)
    ours = with_table(FewStepScheduler.from_config(stock.config), stock.timesteps, dpm_solver_table)
    torch.testing.assert_close(sample(ours, mixture, noise()), expected, rtol=0, atol=1e-5)


@targets
def test_targets_are_the_same_sampler(target: Any) -> None:
    ends = []
    for name in ("sample", target):
        ours = FewStepScheduler.from_config(CosineBetaScheduler(prediction_type=name).config)
        ends.append(sample(ours, mixture, noise(), 7))
    torch.testing.assert_close(*ends, rtol=0, atol=3e-4)  # of float32, where a is 5e-5


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_adams_is_exact_for_a_polynomial_velocity(order: int) -> None:
    """dx/dphi = v, of degree order - 1, with the history already there."""
    angles = [1.5, 1.3, 0.9, 0.4, 0.1]
    v = [0.3, -1.2, 0.8, 2.0][:order]
    value = lambda phi: sum(c * phi**k for k, c in enumerate(v))  # noqa: E731
    integral = lambda phi: sum(c * phi ** (k + 1) / (k + 1) for k, c in enumerate(v))  # noqa: E731
    for i, row in enumerate(adams_table(angles, order)):
        if i + 1 < order:
            continue
        end = integral([*angles, 0.0][i + 1])
        h = [-math.sin(angles[j]) * value(angles[j]) for j in range(i, i - order, -1)]
        assert row[1] * integral(angles[i]) + sum(b * g for b, g in zip(row[2:], h, strict=False)) == pytest.approx(end)


def test_ipndm_is_exact_for_constant_noise_predictions() -> None:
    """eps constant: x / a grows by eps tan(phi), whatever the order."""
    angles = [1.5, 1.3, 0.9, 0.4, 0.1]
    for order in (1, 2, 3, 4):
        for i, row in enumerate(ipndm_table(angles, order)):
            used = range(i, max(i - order, -1), -1)
            after = [*angles, 0.0][i + 1]
            found = row[1] * 0.7 + sum(b * -math.tan(angles[j]) for b, j in zip(row[2:], used, strict=False))
            a, a_after = math.cos(angles[i]), math.cos(after)
            assert found == pytest.approx(a_after * (0.7 / a + math.tan(after) - math.tan(angles[i])))
    with pytest.raises(ValueError, match="zero terminal SNR"):
        ipndm_table([math.pi / 2, 1.0])


# -- order of convergence ---------------------------------------------------------------------------------------------


def angles_to_scheduler(angles: torch.Tensor, target: str = "v_prediction") -> FewStepScheduler:
    """A scheduler whose timesteps have these ascending angles, so that its own integer timesteps round nothing."""
    bar = torch.cat([torch.ones(1, dtype=DOUBLE), torch.cos(angles).square()])
    betas = (1 - bar[1:] / bar[:-1]).tolist()
    return FewStepScheduler(len(angles), trained_betas=betas, prediction_type=target)


def graded(total: int = 480) -> torch.Tensor:
    """Angles up to pi/2 whose steps are smaller toward the noise, where the history is short and the order low."""
    u = torch.arange(1, total + 1, dtype=DOUBLE) / total
    return (math.pi / 2 - 0.01) * (1 - (1 - u) ** 2)


def even(total: int = 480) -> torch.Tensor:
    return (math.pi / 2 - 0.01) * torch.arange(1, total + 1, dtype=DOUBLE) / total


def orders(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


def errors(scheduler: Any, denoiser: Denoiser, set_timesteps: Callable[[int], None], counts: Any) -> list[float]:
    """Distances to the solution of all 480 steps from the same noise, by number of steps."""
    reference = FewStepScheduler.from_config(scheduler.config)
    reference.set_timesteps(
        timesteps=list(range(480))[::-1], coefficients=adams_table(reference.angles.flip(0).tolist(), 4)
    )
    end = sample(reference, denoiser, noise())
    found = []
    for n in counts:
        set_timesteps(n)
        found.append(float((sample(scheduler, denoiser, noise()) - end).square().mean().sqrt()))
    return found


@pytest.mark.parametrize("denoiser", [gaussian, mixture])
@pytest.mark.parametrize(("order", "angles"), [(1, even), (2, even), (3, graded)])
def test_adams_reaches_its_order(denoiser: Denoiser, order: int, angles: Callable[[], torch.Tensor]) -> None:
    ours = angles_to_scheduler(angles())

    def set_timesteps(n: int) -> None:
        chosen = ours.default_timesteps(n)
        ours.set_timesteps(timesteps=chosen, coefficients=adams_table(ours.angles[chosen].tolist(), order))

    found = orders(errors(ours, denoiser, set_timesteps, (10, 20, 40)))
    assert sum(found) / 2 > order - 0.3, found


@pytest.mark.parametrize("denoiser", [gaussian, mixture])
def test_the_default_converges_faster_than_stock(denoiser: Denoiser) -> None:
    """At order two, beside stock's solvers on the same timesteps."""
    ours, counts = angles_to_scheduler(even()), (10, 20, 40, 80)
    default = errors(ours, denoiser, ours.set_timesteps, counts)
    assert orders(default)[-1] > 1.8, default
    for stock in (DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler):
        other = stock.from_config(ours.config, timestep_spacing="trailing", clip_sample=False)
        other.angles = ours.angles
        theirs = errors(other, denoiser, other.set_timesteps, counts)
        assert default[-1] < theirs[-1], (stock, default, theirs)


# -- tuned tables, configurations -------------------------------------------------------------------------------------

TUNED = {
    "3": {
        "timesteps": [990, 600, 150],
        "coefficients": [
            [0.1, 0.9, 0.1, 0.0, 0.0, 0.0],
            [0.0, 0.5, 0.6, -0.2, 0.0, 0.0],
            [0.0, 0.0, 1.2, -0.3, 0.1, 0.0],
        ],
    }
}


def test_a_tuned_table_is_used_for_its_number_of_steps() -> None:
    ours = FewStepScheduler(tuned=TUNED)
    assert ours.tuned_steps == [3]
    ours.set_timesteps(3)
    assert ours.timesteps.tolist() == [990, 600, 150]
    outputs, x, x_0 = [noise(2, 3, 4, seed=k) for k in range(3)], noise(2, 3, 4, seed=9), []
    found = expected = x
    for output, t, row in zip(outputs, ours.timesteps, TUNED["3"]["coefficients"], strict=True):
        bar = ours.alphas_cumprod[t].double()
        x_0.append((expected - (1 - bar).sqrt() * output) / bar.sqrt() + row[0] * expected)
        expected = row[1] * expected + sum(b * h for b, h in zip(row[2:], reversed(x_0), strict=False))
        found = ours.step(output, t, found).prev_sample
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    ours.set_timesteps(4)
    assert ours.timesteps.tolist() == [999, 749, 499, 249]


def test_a_pipeline_that_guides_loses_no_history() -> None:
    """Stock's pipelines scale each sample twice, for two outputs, and step once with their mixture."""
    scheduler = FewStepScheduler.from_config(CosineBetaScheduler(prediction_type="v_prediction").config)
    once = sample(scheduler, mixture, noise(), 6)

    class Twice:
        def __getattr__(self, name: str) -> Any:
            return getattr(scheduler, name)

        def scale_model_input(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return scheduler.scale_model_input(torch.cat([x, x]), t)[: len(x)]

    assert torch.equal(sample(Twice(), mixture, noise(), 6), once)


@pytest.mark.parametrize("cls", [DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler])
def test_takes_over_and_comes_back(cls: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    """T, betas and target from any scheduler; tuned tables survive stock ones; what is saved is loaded."""
    base = CosineBetaScheduler(num_train_timesteps=1000, prediction_type="v_prediction", clip_sample=False)
    tuned = FewStepScheduler.from_config(base.config, tuned=TUNED)
    assert torch.equal(tuned.alphas_cumprod, base.alphas_cumprod)
    stock = cls.from_config(tuned.config)
    assert torch.equal(stock.alphas_cumprod, base.alphas_cumprod)
    again = FewStepScheduler.from_config(stock.config)
    again.save_pretrained(tmp_path)
    loaded = FewStepScheduler.from_pretrained(tmp_path)
    assert caplog.text == ""
    for other in (again, loaded):
        assert torch.equal(other.alphas_cumprod, base.alphas_cumprod)
        assert other.config["prediction_type"] == "v_prediction"
        assert other.tuned_steps == [3]
    back = CosineBetaScheduler.from_config(loaded.config)
    assert torch.equal(back.betas, base.betas)


def test_takes_over_formulas_of_stock() -> None:
    for options in ({"beta_schedule": "squaredcos_cap_v2"}, {"beta_schedule": "scaled_linear", "beta_end": 0.012}):
        stock = DDPMScheduler(num_train_timesteps=500, prediction_type="sample", **options)
        ours = FewStepScheduler.from_config(stock.config)
        assert torch.equal(ours.alphas_cumprod, stock.alphas_cumprod)
        assert ours.prediction_type == "sample"


def rounding_of_stock_s_rescaling(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """What float32 can move in stock's rescaled betas, which are 1 - (d_t / d_{t-1})^2 with d_t = s_t - s_T.

    s_t is right to 2 units (1 - beta, the product, halved by the root; the root itself), and d_t to 4 units of s_t,
    which is much near the end, where little is left. The square counts that twice; five operations follow.
    """
    root = torch.cumprod(1 - before.double(), 0).sqrt()
    d = 4 * root / (root - root[-1])
    d[-1] = 0  # exactly 0, and so is the last alpha
    units = 2 * (d + torch.cat([torch.zeros(1), d[:-1]])) + 5
    return (1 - after) * units * UNIT + UNIT


@pytest.mark.parametrize("target", TARGETS[1:])
def test_zero_terminal_snr(target: Any) -> None:
    ours = FewStepScheduler(rescale_betas_zero_snr=True, prediction_type=target)
    assert float(ours.alphas_cumprod[-1]) == 0
    before = LinearBetaScheduler().betas
    betas = rescale_to_zero_terminal_snr(before)
    assert bool(((ours.betas - betas).abs() <= rounding_of_stock_s_rescaling(before, betas)).all())
    again = FewStepScheduler.from_config(ours.config)
    assert torch.equal(again.betas, ours.betas)
    end, fine = (sample(again, gaussian, noise(), n) for n in (100, 1000))
    torch.testing.assert_close(end, fine, rtol=0, atol=3e-3)
    exact = 0.3 + 0.5 * noise()
    torch.testing.assert_close(fine, exact, rtol=0, atol=0.02)  # sigma at t = 0 is 0.01
    with pytest.raises(ValueError, match="zero terminal SNR"):
        FewStepScheduler(rescale_betas_zero_snr=True)


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (3, 1, 5)])
def test_thresholding_is_stock_s(size: float, shape: tuple[int, ...]) -> None:
    stock = DDPMScheduler(
        prediction_type="sample", thresholding=True, sample_max_value=2.5, dynamic_thresholding_ratio=0.9
    )
    ours = FewStepScheduler.from_config(stock.config)
    output, x = size * noise(*shape, seed=1).float(), noise(*shape).float()
    for t in (0, 300, 999):
        generator = torch.Generator().manual_seed(1)
        expected = stock.step(output, t, x, generator=generator).pred_original_sample
        torch.testing.assert_close(ours.step(output, t, x).pred_original_sample, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prediction_type": "flow"}, "`prediction_type` must be one of .* 'flow'"),
        ({"trained_betas": [0.1, 0.2]}, "`trained_betas` must hold num_train_timesteps = 1000"),
        ({"tuned": {"4": TUNED["3"]}}, "`tuned` must hold 4 timesteps"),
        ({"tuned": {"3": {**TUNED["3"], "timesteps": [5, 600, 3]}}}, "`timesteps` must be a list of descending"),
        ({"tuned": {"3": {**TUNED["3"], "timesteps": [1000, 600, 3]}}}, "`timesteps` must lie in"),
    ],
)
def test_what_breaks_a_rule_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FewStepScheduler(**options)


# -- cost -------------------------------------------------------------------------------------------------------------


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
def test_a_step_is_twelve_operations_and_waits_for_nothing(target: Any, dtype: torch.dtype) -> None:
    ours = FewStepScheduler(prediction_type=target)
    ours.set_timesteps(10)
    x = ours.scale_model_input(noise().to(dtype))
    for timestep in (ours.timesteps[3], ours.timesteps[[3, 5]]):
        with Operations() as operations:
            ours.step(x, timestep, x)
        assert len(operations.names) <= 12, operations.names
        assert not {"_local_scalar_dense", "item", "nonzero"} & set(operations.names)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_graph_for_all_steps(dtype: torch.dtype) -> None:
    ours = FewStepScheduler()
    output, x = noise(seed=1).to(dtype), noise().to(dtype)
    torch._dynamo.reset()

    def run(step: Any) -> torch.Tensor:
        ours.set_timesteps(10)
        found = x
        for t in ours.timesteps:
            found = step(output, t, ours.scale_model_input(found), return_dict=False)[0]
        return found

    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = torch.compile(ours.step, fullgraph=True, backend="eager")
        torch.testing.assert_close(run(compiled), run(ours.step))


def test_each_image_at_a_timestep_of_its_own() -> None:
    ours = FewStepScheduler(tuned=TUNED)
    ours.set_timesteps(3)
    x, output = noise(3, 1, 4, 4), noise(3, 1, 4, 4, seed=1)
    rows = ours.step(output, ours.timesteps, x).prev_sample
    for i, t in enumerate(ours.timesteps):
        ours.set_timesteps(3)
        alone = ours.step(output[i : i + 1], t, x[i : i + 1]).prev_sample
        torch.testing.assert_close(rows[i : i + 1], alone)
