"""Ridge regression whose strength is the one that predicts best what it was left without, in closed form.

Of inputs x, (n, d), and targets y, (n, t), both centred, x'x = V diag(p) V' and z = x V. The weights

    W = V diag(1 / (p + a)) z'y                  minimise |y - x W|^2 + a |W|^2, a being the strength,

and a row that all had been fitted without, means included, would have had the error

    (y - x W)_i / (1 - h_i),  h_i = 1/n + sum_j z_ij^2 / (p_j + a)

(Allen's PRESS; Golub, Heath and Wahba, "Generalized cross-validation as a method for choosing a good ridge parameter",
Technometrics 1979, section 1). So all strengths are tried on all rows by one decomposition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STRENGTHS = 10.0 ** torch.arange(-4, 5, dtype=torch.float64)
"""Those that are tried, in units of the mean of p."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted regression, in float64. `ridge(inputs)` are its predictions less `mean`, (n, t)."""

    weights: Tensor
    """W, (d, t)."""
    centre: Tensor
    """Mean of the inputs that it was fitted on, (d,)."""
    mean: Tensor
    """Mean of the targets that it was fitted on, (t,)."""
    strength: float
    """a."""

    def __call__(self, inputs: Tensor) -> Tensor:
        return (inputs.double() - self.centre) @ self.weights


class Decomposed:
    """Inputs (n, d) and targets (n, t), from which the regression of any strength follows."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        x, y = inputs.double(), targets.double()
        self.centre, self.mean = x.mean(0), y.mean(0)
        x, self.targets = x - self.centre, y - self.mean
        power, self.axes = torch.linalg.eigh(x.T @ x)
        self.power: Tensor = power.clamp(min=0)
        self.along: Tensor = x @ self.axes
        self.covariance: Tensor = self.along.T @ self.targets

    def solve(self, strength: float) -> Ridge:
        """The regression of that strength."""
        return Ridge(self.axes @ self._damped(strength), self.centre, self.mean, strength)

    def left_out(self, strength: float) -> Tensor:
        """The error in each row of a regression of that strength without it, (n, t)."""
        leverage = 1 / len(self.along) + self.along.square() @ (1 / (self.power + strength))
        return (self.targets - self.along @ self._damped(strength)) / (1 - leverage)[:, None]

    def _damped(self, strength: float) -> Tensor:
        return self.covariance / (self.power + strength)[:, None]


def fitted(inputs: Tensor, targets: Tensor) -> Ridge:
    """The regression of targets (n, t) on inputs (n, d), of the strength that predicts best what is left out."""
    of = Decomposed(inputs, targets)
    unit = of.power.mean().clamp(min=torch.finfo(torch.float64).eps)
    return of.solve(min((STRENGTHS * unit).tolist(), key=lambda strength: float(of.left_out(strength).square().sum())))
