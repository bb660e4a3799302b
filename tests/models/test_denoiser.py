"""The one caller of networks: dtype and place, the null condition, guidance, and the variance's half of the output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from logsnr.base.errors import ModelError
from logsnr.conditions.class_label import ClassLabel
from logsnr.models.denoiser import Denoiser, Guided, original
from logsnr.schedulers.scheduling_beta import BetaScheduler, CosineBetaScheduler

T = torch.tensor([3, 500, 900])


class Affine(torch.nn.Module):
    """x scaled, plus the label; keeps what it is shown. With `doubled`, a second half of sevens."""

    def __init__(self, doubled: bool = False) -> None:
        super().__init__()
        self.scale, self.doubled = torch.nn.Parameter(torch.tensor(2.0)), doubled

    def forward(self, sample: Tensor, timestep: Any, return_dict: bool, class_labels: Tensor | None = None) -> Any:
        assert not return_dict
        self.seen = (sample, timestep, class_labels)
        added = 0.0 if class_labels is None else class_labels.view(-1, 1, 1, 1)
        output = self.scale * sample + added
        return (torch.cat([output, torch.full_like(output, 7.0)], 1) if self.doubled else output,)


def schedule(**options: Any) -> BetaScheduler:
    return CosineBetaScheduler(prediction_type="v_prediction", clip_sample=False, **options)


def test_the_network_sees_its_own_dtype_and_the_caller_gets_his() -> None:
    network, x = Affine(), torch.randn(3, 1, 2, 2, dtype=torch.float64)
    output, variance = Denoiser(network, schedule())(x, T, {})
    assert network.seen[0].dtype == torch.float32
    assert output.dtype == torch.float64
    assert variance is None
    assert torch.equal(output, 2 * x.float().double())


def test_no_condition_is_the_null_condition() -> None:
    network, x = Affine(), torch.zeros(3, 1, 2, 2)
    labelled = Denoiser(network, schedule(), ClassLabel(4))
    assert labelled(x, T, {}).output.flatten(1)[:, 0].tolist() == [4, 4, 4]
    assert labelled(x, 7, {"class_labels": torch.tensor([0, 3, 1])}).output.flatten(1)[:, 0].tolist() == [0, 3, 1]
    assert network.seen[1].tolist() == [7, 7, 7]  # a timestep for each, where one is given for all
    Denoiser(network, schedule())(x, T, {})
    assert network.seen[2] is None


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
def test_guidance_goes_on_from_the_null_condition_through_the_conditional_one(scale: float) -> None:
    network, x = Affine(doubled=True), torch.randn(3, 1, 2, 2)
    model = Denoiser(network, schedule(variance_type="learned_range"), ClassLabel(4))
    output, variance = Guided(model, scale)(x, T, {"class_labels": torch.tensor([0, 3, 1])})
    wanted = 2 * x + (4 + scale * (torch.tensor([0.0, 3, 1]) - 4)).view(-1, 1, 1, 1)
    torch.testing.assert_close(output, wanted)
    assert variance is not None
    assert torch.equal(variance, torch.full_like(x, 7.0))
    assert len(network.seen[0]) == (3 if scale == 1 else 6)
    assert Guided(model, scale)(x, T, {}).output.shape == x.shape  # there is nothing to guide to
    assert len(network.seen[0]) == 3


def test_the_clean_sample_is_the_one_that_was_noised() -> None:
    s, x_0, noise = schedule(), *torch.randn(2, 3, 1, 2, 2)

    class Right(torch.nn.Module):
        def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool) -> tuple[Tensor]:
            return (s.get_velocity(x_0, noise, timestep),)

    torch.testing.assert_close(original(Denoiser(Right(), s), s.add_noise(x_0, noise, T), T, {}), x_0)


def test_channels_that_do_not_fit_the_variance_are_refused() -> None:
    x = torch.zeros(3, 1, 2, 2)
    with pytest.raises(ModelError, match="learned_range needs a network with 2 output channels, and this one has 1"):
        Denoiser(Affine(), schedule(variance_type="learned_range"))(x, T, {})
    with pytest.raises(ModelError, match="fixed_small needs a network with 1 output channels, and this one has 2"):
        Denoiser(Affine(doubled=True), schedule())(x, T, {})


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (lambda x: x, r"a tensor \(3, 1, 2, 2\): write `return \(output,\)`"),
        (lambda x: (x.mean(0),), r"a first entry \(1, 2, 2\)"),
        (lambda x: (x[:1],), r"a first entry \(1, 1, 2, 2\)"),
        (lambda x: (x[..., :1],), r"a first entry \(3, 1, 2, 1\)"),
        (lambda x: None, "a NoneType"),
        (lambda x: (None,), "a tuple"),
    ],
)
def test_what_a_network_returns_is_a_tuple_of_the_samples_shape(returned: Any, found: str) -> None:
    class Returning(torch.nn.Module):
        def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool) -> Any:
            return returned(sample)

    message = r"must return a tuple whose first entry has the shape of sample, \(3, 1, 2, 2\), and returned " + found
    with pytest.raises(ModelError, match=message):
        Denoiser(Returning(), schedule())(torch.zeros(3, 1, 2, 2), T, {})


def test_guidance_needs_conditions() -> None:
    unconditional = Denoiser(Affine(), schedule())
    with pytest.raises(ValueError, match=r"guidance_scale must be 1 for a denoiser without conditions, and is 2.0"):
        Guided(unconditional, 2.0)
    x = torch.randn(3, 1, 2, 2)
    assert torch.equal(Guided(unconditional, 1.0)(x, T, {}).output, unconditional(x, T, {}).output)


def test_a_schedule_is_a_scheduler() -> None:
    for wrong in (CosineBetaScheduler, "cosine"):
        with pytest.raises(TypeError, match=r"schedule must be a scheduler, such as CosineBetaScheduler\(\), and is"):
            Denoiser(Affine(), wrong)
