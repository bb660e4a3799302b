"""Ridge regression in closed form, against what its definition says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from logsnr.evaluation.ridge import STRENGTHS, Decomposed, Ridge, fitted


def drawn(n: int, d: int, t: int, noise: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    inputs = 3 + torch.randn(n, d, generator=generator, dtype=torch.float64)
    weights = torch.randn(d, t, generator=generator, dtype=torch.float64)
    return inputs, inputs @ weights - 2 + noise * torch.randn(n, t, generator=generator, dtype=torch.float64)


def by_definition(inputs: Tensor, targets: Tensor, strength: float) -> Ridge:
    """The normal equations."""
    x, y = inputs - inputs.mean(0), targets - targets.mean(0)
    weights = torch.linalg.solve(x.T @ x + strength * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    return Ridge(weights, inputs.mean(0), targets.mean(0), strength)


@pytest.mark.parametrize("n", [6, 30])  # fewer rows than inputs, and more
@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e3])
def test_what_is_left_out_is_predicted_by_a_regression_without_it(n: int, strength: float) -> None:
    inputs, targets = drawn(n, 9, 2, 0.5)
    of = Decomposed(inputs, targets)
    assert torch.allclose(of.solve(strength).weights, by_definition(inputs, targets, strength).weights)
    errors = of.left_out(strength)
    for row in range(n):
        others = torch.arange(n) != row
        without = by_definition(inputs[others], targets[others], strength)
        error = targets[row] - without.mean - without(inputs[row])
        assert torch.allclose(errors[row], error, rtol=1e-6)


def test_the_strength_is_the_one_that_predicts_best() -> None:
    exact, noisy = (fitted(*drawn(60, 20, 3, noise)) for noise in (0.0, 30.0))
    assert exact.strength < noisy.strength
    inputs, targets = drawn(60, 20, 3, 3.0)
    unit = float((inputs - inputs.mean(0)).square().sum() / 20)
    errors = {
        strength: sum(
            float((targets[k] - one.mean - one(inputs[k])).square().sum())
            for k in range(60)
            for one in [by_definition(inputs[torch.arange(60) != k], targets[torch.arange(60) != k], strength)]
        )
        for strength in (STRENGTHS * unit).tolist()
    }
    assert fitted(inputs, targets).strength == pytest.approx(min(errors, key=lambda each: errors[each]))


def test_inputs_that_are_all_alike_predict_the_mean() -> None:
    made = fitted(torch.ones(5, 3), torch.arange(5.0)[:, None])
    assert float(made.mean) == 2
    assert torch.equal(made(torch.randn(4, 3)), torch.zeros(4, 1, dtype=torch.float64))
