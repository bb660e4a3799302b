"""ConsistencyScheduler: exact with the exact function of each segment, and the same as stock's DDIMScheduler."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from logsnr.schedulers.scheduling_beta import CosineBetaScheduler, LinearBetaScheduler
from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler

DOUBLE = torch.float64
MEAN, STD = 0.3, 0.5


def consistency(target: Any = "v_prediction", **options: Any) -> ConsistencyScheduler:
    schedule = CosineBetaScheduler(prediction_type=target, clip_sample=False)
    made = ConsistencyScheduler.from_config(schedule.config, **options)
    assert isinstance(made, ConsistencyScheduler)
    return made


@pytest.mark.parametrize("target", ["sample", "v_prediction", "x0_minus_noise"])
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_the_exact_function_of_each_segment_gives_the_data(target: str, n: int) -> None:
    """For data N(m, d^2) the ODE's paths are x_t = a_t m + sqrt(a_t^2 d^2 + s_t^2) u: affine, and so is x_0."""
    made = consistency(target)
    made.set_timesteps(n)
    bar = torch.cat([made.alphas_cumprod.double(), torch.ones(1)])
    x = torch.tensor([0.0, 1.0], dtype=DOUBLE).view(2, 1, 1, 1)
    first = bar[made.timesteps[0]]
    mean, std = first.sqrt() * MEAN, (first * STD**2 + 1 - first).sqrt()
    for t, after in zip(made.timesteps, [*made.timesteps[1:], torch.tensor(-1)], strict=True):
        (a, s), (b, r) = ((bar[k].sqrt(), (1 - bar[k]).sqrt()) for k in (t, after))
        reached = b * MEAN + ((b**2 * STD**2 + r**2) / (a**2 * STD**2 + s**2)).sqrt() * (x - a * MEAN)
        x_0 = (reached - r / s * x) / (b - r / s * a)
        eps = (x - a * x_0) / s
        output = {"sample": x_0, "v_prediction": a * eps - s * x_0, "x0_minus_noise": x_0 - eps}[target]
        base, at_one = made.step(output, t, x).prev_sample.flatten()
        mean, std = base + (at_one - base) * mean, (at_one - base) * std
    assert (float(mean), float(std)) == pytest.approx((MEAN, STD), abs=1e-6)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_stock_ddim_makes_the_same_images(target: str, n: int) -> None:
    schedule = LinearBetaScheduler(prediction_type=target, clip_sample=False)  # type: ignore[arg-type]
    made = ConsistencyScheduler.from_config(schedule.config, distilled_steps=n)
    stock = DDIMScheduler.from_config(made.config)
    assert stock.config["_consistency"] == n
    for scheduler in (made, stock):
        scheduler.set_timesteps(n)
    assert made.timesteps.tolist() == stock.timesteps.tolist()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    ours, its = x, x
    for t in made.timesteps:
        output = torch.randn(x.shape, generator=torch.Generator().manual_seed(int(t)))
        a, b = made.step(output, t, ours), stock.step(output, t, its)
        torch.testing.assert_close(a.pred_original_sample, b.pred_original_sample, rtol=1e-4, atol=1e-4)
        ours, its = a.prev_sample, b.prev_sample
        torch.testing.assert_close(ours, its, rtol=1e-4, atol=1e-4)
    assert torch.equal(a.prev_sample, a.pred_original_sample)


def test_the_number_of_steps_stays_with_the_model() -> None:
    made = consistency(distilled_steps=2)
    assert made.timesteps.tolist() == [999, 499]
    stock = DDIMScheduler.from_config(made.config)
    again = ConsistencyScheduler.from_config(stock.config)
    assert again.distilled_steps == 2
    assert again.timesteps.tolist() == [999, 499]
    with pytest.raises(ValueError, match="must be 2, for which this model was distilled, and is 20"):
        again.set_timesteps(20)
    again.set_timesteps(timesteps=[999, 700, 100])
    assert again.num_inference_steps == 3


def test_the_schedule_s_own_class_comes_back() -> None:
    schedule = CosineBetaScheduler(200, prediction_type="v_prediction", shift=-1.0)
    made = ConsistencyScheduler.from_config(schedule.config, distilled_steps=2)
    again = CosineBetaScheduler.from_config(made.config)  # of other betas or options it would warn
    assert torch.equal(again.betas, schedule.betas)
    assert again.config["_logsnr"] == schedule.config["_logsnr"]
    assert torch.equal(made.alphas_cumprod, schedule.alphas_cumprod)
    x, z, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.tensor([0, 70, 199])
    torch.testing.assert_close(made.add_noise(x, z, t), schedule.add_noise(x, z, t))


def test_a_learned_variance_is_of_no_use_and_a_wrong_timestep_shows() -> None:
    made = consistency(clip_sample=True, distilled_steps=2)
    x, output = 3 * torch.randn(3, 2, 4, 4), torch.randn(3, 4, 4, 4)
    first, last = made.timesteps
    half = made.step(output[:, :2], first, x)
    torch.testing.assert_close(made.step(output, first, x).prev_sample, half.prev_sample)
    assert float(made.step(output, last, x).prev_sample.abs().max()) <= 1
    rows = made.step(output, made.timesteps[[0, 1, 0]], x).prev_sample  # one timestep an image
    torch.testing.assert_close(rows[[0, 2]], half.prev_sample[[0, 2]])
    assert bool(made.step(output, 17, x).prev_sample.isnan().all())
    assert made.step(output.bfloat16(), first, x.bfloat16()).prev_sample.dtype == torch.bfloat16


def test_a_zero_terminal_snr_is_pure_noise() -> None:
    schedule = CosineBetaScheduler(prediction_type="v_prediction", zero_terminal_snr=True)
    made = ConsistencyScheduler.from_config(schedule.config)
    assert torch.equal(made.betas, schedule.betas)
    assert float(made.angles[-1]) == pytest.approx(math.pi / 2)
    made.set_timesteps(1)
    v, x = torch.rand(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
    torch.testing.assert_close(made.step(v, 999, x).prev_sample, -v)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ConsistencyScheduler(prediction_type="flow"), "`prediction_type` must be one of epsilon, "),
        (lambda: ConsistencyScheduler(5, trained_betas=[0.1, 0.2]), "num_train_timesteps = 5 values, and has 2"),
        (lambda: ConsistencyScheduler(2, trained_betas=[0.1, 1.0]), "can't start from zero terminal SNR"),
        (lambda: ConsistencyScheduler(distilled_steps=0), r"`distilled_steps` must be in \[1, 1000\], and is 0"),
        (lambda: ConsistencyScheduler().set_timesteps(), "Pass one of"),
        (lambda: ConsistencyScheduler().set_timesteps(0), r"must be in \[1, 1000\], and is 0"),
        (lambda: ConsistencyScheduler().set_timesteps(timesteps=[1, 2]), "descending integers"),
        (lambda: ConsistencyScheduler().set_timesteps(timesteps=[1000, 2]), r"must lie in \[0, 1000\)"),
    ],
)
def test_what_breaks_a_rule_is_refused(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
