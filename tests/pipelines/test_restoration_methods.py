"""Draws against the posterior of a Gaussian, which is known: 16 pixels, sigma .05 on [0, 1], the exact network."""

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from logsnr.pipelines.restoration_methods import METHODS, Level, Problem, make_method, spaced
from logsnr.pipelines.restoration_operators import Blur, Clip, Downscale, Mask, Operator, gaussian_kernel
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler, LinearBetaScheduler

DOUBLE, SHAPE, COUNT = torch.float64, (1, 4, 4), 800
CHAIN = CosineBetaScheduler().alphas_cumprod
_at = torch.arange(16, dtype=DOUBLE)
_place = torch.stack((_at // 4, _at % 4), 1)
COVARIANCE = 0.25 * torch.exp(-torch.cdist(_place, _place) / 2)  # of x in [-1, 1]
MEAN = 0.2 * torch.sin(_at)
VALUES, BASIS = torch.linalg.eigh(COVARIANCE)
OPERATORS: dict[str, Operator] = {
    "mask": Mask((torch.arange(16) % 3 == 0).view(SHAPE), 0.05),
    "blur": Blur(SHAPE, gaussian_kernel(0.8), 0.05),
    "means": Downscale(SHAPE, 2, 0.05),
}
operators = pytest.mark.parametrize("name", OPERATORS)


def denoise(x: Tensor, level: Level) -> Tensor:
    gain = level.alpha * VALUES / (level.alpha**2 * VALUES + level.sigma**2)
    return (MEAN + ((x.flatten(1) - level.alpha * MEAN) @ BASIS * gain) @ BASIS.T).view(x.shape)


def measured(operator: Operator) -> tuple[Tensor, Tensor, Tensor]:
    """A measurement (1, ...), and mean (16,) and covariance (16, 16) of x in [-1, 1] given it."""
    generator = torch.Generator().manual_seed(2)
    truth = MEAN + torch.linalg.cholesky(COVARIANCE) @ torch.randn(16, generator=generator, dtype=DOUBLE)
    y = operator.measure((truth.view(1, *SHAPE) + 1) / 2, 3)
    unit = torch.eye(16, dtype=DOUBLE).view(16, *SHAPE)
    half = operator.apply(unit).flatten(1).T / 2
    half = half[half.abs().sum(1) > 0]  # a mask measures no more than this
    seen = (y - operator.apply(torch.full((1, *SHAPE), 0.5, dtype=DOUBLE))).flatten()
    if isinstance(operator, Mask):
        seen = seen[operator.mask.flatten()]
    gain = COVARIANCE @ half.T @ torch.linalg.inv(half @ COVARIANCE @ half.T + 0.05**2 * torch.eye(len(half)))
    return y, MEAN + gain @ (seen - half @ MEAN), COVARIANCE - gain @ half @ COVARIANCE


def draw(operator: Operator, y: Tensor, name: str, steps: int, count: int = COUNT, **options: Any) -> Tensor:
    generators = [torch.Generator().manual_seed(k) for k in range(count)]
    ticks = 0

    def advance(_: Level) -> None:
        nonlocal ticks
        ticks += 1

    method = make_method(name, options)
    problem = Problem(denoise, operator, y.expand(count, *y.shape[1:]).contiguous(), generators, advance)
    levels = spaced(CHAIN, steps, method.most_noise)
    with torch.no_grad():
        drawn = method.draw(problem, levels)
    assert 0 < ticks <= method.ticks(len(levels))
    return drawn.flatten(1)


def distance(drawn: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """W2 between normal distributions, over the posterior's standard deviation; of 800 exact draws .08, of 400 .11."""

    def root(matrix: Tensor) -> Tensor:
        values, basis = torch.linalg.eigh((matrix + matrix.T) / 2)
        return (basis * values.clamp(min=0).sqrt()) @ basis.T

    own, half = torch.cov(drawn.T), root(covariance)
    square = (drawn.mean(0) - mean).square().sum() + (own + covariance - 2 * root(half @ own @ half)).trace()
    return math.sqrt(float(square) / float(covariance.trace()))


@operators
@pytest.mark.parametrize(
    ("method", "steps", "options", "bound"),
    [
        ("moment", 50, {}, 0.12),
        ("particles", 50, {"num_particles": 2}, 0.16),
        ("gibbs", 600, {}, 0.2),
        ("diffpir", 20, {}, 0.8),
        ("dps", 20, {}, 1.5),
    ],
)
def test_draws_follow_the_posterior(name: str, method: str, steps: int, options: dict[str, Any], bound: float) -> None:
    """The first three promise it; of the others the bias is bounded."""
    y, mean, covariance = measured(OPERATORS[name])
    count = 400 if method == "particles" else COUNT
    assert distance(draw(OPERATORS[name], y, method, steps, count, **options), mean, covariance) < bound


def test_repaint_fills_a_mask() -> None:
    y, mean, covariance = measured(OPERATORS["mask"])
    assert distance(draw(OPERATORS["mask"], y, "repaint", 20), mean, covariance) < 0.5


def test_gibbs_samples_what_isn_t_linear() -> None:
    """Clipping that never happens is no operator: the posterior is that of noise alone."""
    y, mean, covariance = measured(Mask(torch.ones(SHAPE, dtype=torch.bool), 0.05))
    assert distance(draw(Clip(SHAPE, -9.0, 9.0, 0.05), y, "gibbs", 400, 400), mean, covariance) < 0.35


def test_particles_say_when_few_of_them_count() -> None:
    """A network that is wrong by far: its estimate is always the mean."""
    operator = OPERATORS["mask"]
    y, _, _ = measured(operator)
    generators = [torch.Generator().manual_seed(0)]

    def wrong(x: Tensor, level: Level) -> Tensor:
        return denoise(x, level) + 0.3 * torch.sin(40 * x)

    problem = Problem(wrong, operator, y, generators, lambda _: None)
    with pytest.warns(UserWarning, match="of 8 particles"):
        make_method("particles").draw(problem, spaced(CHAIN, 20))


def test_rows_do_not_feel_one_another() -> None:
    operator = OPERATORS["blur"]
    y, _, _ = measured(operator)
    for name in METHODS:
        if name != "repaint":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                both, one = (draw(operator, y, name, 16, count) for count in (3, 1))
            torch.testing.assert_close(both[:1], one, rtol=0, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 20, 300])
def test_levels_fall_and_are_dense_where_there_is_little_noise(steps: int) -> None:
    for chain in (CHAIN, LinearBetaScheduler().alphas_cumprod):
        levels = spaced(chain, steps)
        times = [level.timestep for level in levels]
        assert len(times) == steps
        assert times == sorted(set(times), reverse=True)
        assert levels[0].ratio <= 200
        assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1) for level in levels)
    if steps == 20:
        assert levels[-1].ratio == pytest.approx(1 / 20, rel=0.05)
        assert sum(level.ratio < 1 for level in levels) >= 5


def test_what_is_not_there_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="method must be one of moment"):
        make_method("best")
    with pytest.raises(ValueError, match="method moment has the options num_iterations, tolerance"):
        make_method("moment", {"iterations": 3})
    with pytest.raises(ValueError, match=r"num_inference_steps must be in 1\.\."):
        spaced(CHAIN, 2000)
