"""ConsistencyScheduler: multistep sampling, exact with the exact function, and the same as stock's LCMScheduler."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_lcm import LCMScheduler

from logsnr.schedulers.scheduling_beta import CosineBetaScheduler, LinearBetaScheduler
from logsnr.schedulers.scheduling_consistency import NOISE_LEVELS, ConsistencyScheduler

DOUBLE = torch.float64
MEAN, STD = 0.3, 0.5
targets = pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction", "x0_minus_noise"])


def consistency(target: Any = "v_prediction", **options: Any) -> ConsistencyScheduler:
    schedule = CosineBetaScheduler(prediction_type=target, clip_sample=False)
    made = ConsistencyScheduler.from_config(schedule.config, **options)
    assert isinstance(made, ConsistencyScheduler)
    return made


def output_of(x_0: torch.Tensor, x: torch.Tensor, a: torch.Tensor, s: torch.Tensor, target: str) -> torch.Tensor:
    """What a network says whose x_0 is `x_0`."""
    eps = (x - a * x_0) / s
    return {"sample": x_0, "epsilon": eps, "v_prediction": a * eps - s * x_0, "x0_minus_noise": x_0 - eps}[target]


@targets
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_the_exact_function_gives_the_data(target: str, n: int) -> None:
    """For data N(m, d^2) the ODE's paths are x_t = a_t m + (x_0 - m) sqrt(a_t^2 + s_t^2 / d^2): f is affine."""
    made = consistency(target)
    made.set_timesteps(n)
    x, z = torch.tensor([0.0, 1.0, 0.0], dtype=DOUBLE).view(3, 1, 1, 1), torch.tensor([0.0, 0.0, 1.0], dtype=DOUBLE)
    bar = made.alphas_cumprod.double()
    first = bar[made.timesteps[0]]
    mean, variance = first.sqrt() * MEAN, first * STD**2 + 1 - first
    for t in made.timesteps:
        a, s = bar[t].sqrt(), (1 - bar[t]).sqrt()
        x_0 = MEAN + (x - a * MEAN) / (a**2 + s**2 / STD**2).sqrt()
        output = output_of(x_0, x, a, s, target)
        if target == "epsilon":
            output = output.clamp(-1e3, 1e3)
        base, at_one, at_z = made.step(output, t, x, variance_noise=z.view(3, 1, 1, 1)).prev_sample.flatten()
        mean, variance = base + (at_one - base) * mean, (at_one - base) ** 2 * variance + (at_z - base) ** 2
    # float32's table times 2e4, which is s / a at the last timestep
    assert (float(mean), float(variance.sqrt())) == pytest.approx((MEAN, STD), abs=3e-3 if target == "epsilon" else 1e-6)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction"])
def test_stock_lcm_given_the_same_timesteps_makes_the_same_images(target: str) -> None:
    made = ConsistencyScheduler.from_config(LinearBetaScheduler(prediction_type=target).config)  # type: ignore[arg-type]
    stock = LCMScheduler.from_config(made.config)
    assert stock.config["_consistency"]
    timesteps = [999, 599, 219]  # of those that it knows: T k / 50 - 1
    made.set_timesteps(timesteps=timesteps)
    stock.set_timesteps(timesteps=timesteps)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    ours, its = x, x
    of_ours, of_its = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for t in made.timesteps:
        output = torch.randn(x.shape, generator=torch.Generator().manual_seed(int(t)))
        a, b = made.step(output, t, ours, generator=of_ours), stock.step(output, t, its, generator=of_its)
        torch.testing.assert_close(a.pred_original_sample, b.denoised, rtol=1e-4, atol=1e-4)
        ours, its = a.prev_sample, b.prev_sample
        torch.testing.assert_close(ours, its, rtol=1e-4, atol=1e-4)


def test_default_timesteps_begin_in_noise_at_the_levels_and_descend() -> None:
    made = consistency()
    for n, levels in NOISE_LEVELS.items():
        chosen = made.default_timesteps(n)
        assert chosen[0] == 999
        assert made.angles[chosen[1:]].tan().tolist() == pytest.approx(levels, rel=0.02)
    for total in (2, 4, 10, 1000):
        coarse = ConsistencyScheduler(total, trained_betas=torch.linspace(0.3, 0.9, total).tolist())
        for n in range(1, min(total, 12) + 1):
            chosen = coarse.default_timesteps(n)
            assert len(chosen) == n
            assert all(a > b for a, b in itertools.pairwise(chosen))
            assert chosen[0] == total - 1
            assert chosen[-1] >= 0


def test_the_schedule_s_own_class_comes_back() -> None:
    schedule = CosineBetaScheduler(200, prediction_type="v_prediction", shift=-1.0)
    made = ConsistencyScheduler.from_config(schedule.config)
    again = CosineBetaScheduler.from_config(made.config)  # of other betas or options it would warn
    assert torch.equal(again.betas, schedule.betas)
    assert again.config["_logsnr"] == schedule.config["_logsnr"]
    assert torch.equal(made.alphas_cumprod, schedule.alphas_cumprod)
    x, z, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.tensor([0, 70, 199])
    torch.testing.assert_close(made.add_noise(x, z, t), schedule.add_noise(x, z, t))


def test_an_image_is_its_own_seed_s_and_a_wrong_timestep_shows() -> None:
    made = consistency(clip_sample=True)
    made.set_timesteps(2)
    x, output = torch.randn(3, 2, 4, 4), torch.randn(3, 4, 4, 4)  # twice the channels: a learned variance
    t = made.timesteps[0]
    together = made.step(output, t, x, generator=[torch.Generator().manual_seed(i) for i in range(3)]).prev_sample
    for i in range(3):
        one = made.step(output[i : i + 1], t, x[i : i + 1], generator=torch.Generator().manual_seed(i)).prev_sample
        assert torch.equal(one[0], together[i])
    last = made.step(output, made.timesteps[1], x)
    assert torch.equal(last.prev_sample, last.pred_original_sample)
    assert float(last.prev_sample.abs().max()) <= 1
    assert bool(made.step(output, 17, x).prev_sample.isnan().all())
    half = made.step(output.bfloat16(), t, x.bfloat16(), variance_noise=x.bfloat16())
    assert half.prev_sample.dtype == torch.bfloat16


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
        (lambda: ConsistencyScheduler().set_timesteps(), "Pass one of"),
        (lambda: ConsistencyScheduler().set_timesteps(0), r"must be in \[1, 1000\], and is 0"),
        (lambda: ConsistencyScheduler().set_timesteps(timesteps=[1, 2]), "descending integers"),
        (lambda: ConsistencyScheduler().set_timesteps(timesteps=[1000, 2]), r"must lie in \[0, 1000\)"),
    ],
)
def test_what_breaks_a_rule_is_refused(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
