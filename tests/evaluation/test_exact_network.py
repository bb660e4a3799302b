"""logsnr.models.gaussian: the posterior mean of Gaussian data, with the call of a U-Net."""

from __future__ import annotations

import torch
from gaussian import ExactModel, gaussian

from logsnr.models.gaussian import Directions, GaussianNetwork, gaussian_schedule
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler


def test_it_is_the_posterior_mean() -> None:
    """What `gaussian.py` says in closed form, at a timestep for all or for each."""
    data, schedule = gaussian(192), gaussian_schedule(CosineBetaScheduler(prediction_type="v_prediction"))
    assert schedule.prediction_type == "sample"
    assert torch.equal(schedule.betas, CosineBetaScheduler().betas)
    network = GaussianNetwork(8, 3, 3).of(
        data.mean.view(3, 8, 8), Directions(data.basis, data.variances, 1e-9), schedule.alphas_cumprod
    )
    x_t = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([0, 400, 999])
    (expected,) = ExactModel(data, schedule)(x_t.double(), timesteps, return_dict=False)
    assert torch.allclose(network(x_t, timesteps).sample.double(), expected, atol=1e-5)
    assert torch.allclose(network(x_t[1:2], 400, return_dict=False)[0].double(), expected[1:2], atol=1e-5)


def test_directions_that_are_not_told_apart_have_the_rest_of_the_variance() -> None:
    data, schedule = gaussian(16), gaussian_schedule(CosineBetaScheduler())
    whole = data.variances.clone()
    whole[4:] = 0.04
    mean = data.mean.view(1, 4, 4)
    few = GaussianNetwork(4).of(mean, Directions(data.basis[:, :4], whole[:4], 0.04), schedule.alphas_cumprod)
    all_ = GaussianNetwork(4).of(mean, Directions(data.basis, whole, 0.04), schedule.alphas_cumprod)
    x_t = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(few(x_t, 300).sample, all_(x_t, 300).sample, atol=1e-5)
