"""How a network that is told a text begins."""

from __future__ import annotations

import torch
from torch import nn

from logsnr.models.prompted import begin_white


def test_a_projection_begins_with_what_differs_little_as_large_as_what_differs_much() -> None:
    """Inputs whose covariance has eigenvalues from 100 to 1 come out with mean 0 and covariance 1."""
    torch.manual_seed(0)
    scales = torch.logspace(1, 0, 6, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    drawn = torch.randn(1000, 6, dtype=torch.float64)
    drawn = (drawn - drawn.mean(0)) @ torch.linalg.cholesky(torch.cov(drawn.T)).inverse().T  # covariance 1, exactly
    states = drawn * scales @ axes.T + 3
    assert torch.linalg.cond(torch.cov(states.T)) > 99

    for outputs in (4, 6):
        projection = nn.Linear(6, outputs).double()
        begin_white(projection, states)
        found = projection(states).detach()
        assert torch.allclose(found.mean(0), torch.zeros(outputs, dtype=torch.float64), atol=1e-9)
        covariance = torch.cov(found.T)
        assert abs(float(covariance.trace()) / outputs - 1) < 1e-9
        # the ridge, a hundredth of the mean of the eigenvalues, takes something from the smallest
        assert torch.allclose(covariance, torch.eye(outputs, dtype=torch.float64), atol=0.2)

    wide = nn.Linear(6, 9).double()
    begin_white(wide, states)
    values = torch.linalg.eigvalsh(torch.cov(wide(states).detach().T))
    assert values[:3].abs().max() < 1e-9  # six directions
    assert values[-1] / values[3] < 1.4


def test_directions_that_nothing_differs_in_stay_small() -> None:
    states = torch.zeros(50, 4)
    states[:, 0] = torch.linspace(-1, 1, 50)
    projection = nn.Linear(4, 4)
    begin_white(projection, states)
    assert projection.weight.isfinite().all()
    assert projection(states).detach().var(0).mean() - 1 < 1e-4
