"""The losses: timesteps, noise and label dropout belong to samples, and are what they claim to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from logsnr.conditions.class_label import ClassLabel
from logsnr.data.images import open_images
from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoiser
from logsnr.models.schedules import make_scheduler
from logsnr.objectives.build import make_objective
from logsnr.objectives.objective import Context
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.objectives.variational_bound import VariationalBound
from logsnr.objectives.weightings import loss_weights
from logsnr.settings.condition import ClassLabelConfig
from logsnr.settings.image import DataConfig
from logsnr.settings.objective import HybridConfig, MinSnrWeighting, SimpleWeighting, VlbConfig, WeightedConfig
from logsnr.settings.run import RunConfig, TrainConfig
from logsnr.settings.schedule import PredictionType, ScheduleConfig

CONFIG = RunConfig(schedule=ScheduleConfig(num_train_timesteps=100), train=TrainConfig(seed=3))


class Spy(torch.nn.Module):
    """A network that keeps what it is shown and predicts zero."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] = []

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, return_dict: bool, class_labels: torch.Tensor | None = None
    ) -> tuple[torch.Tensor]:
        assert not return_dict
        self.seen.append((sample, timestep, class_labels))
        return (torch.zeros_like(sample),)


def objective(config: RunConfig = CONFIG) -> Any:
    context = Context(seed=config.train.seed, condition_dropout=config.condition.dropout, bits=8)
    return make_objective(config, make_scheduler(config.schedule), context)


def shown(o: Any, network: torch.nn.Module, b: Batch) -> torch.Tensor:
    """The loss of a batch, of three classes where it has labels."""
    loss: torch.Tensor = o.loss(Denoiser(network, o.schedule, ClassLabel(3) if b.condition else None), b)
    return loss


def batch(start: int, count: int, labels: bool = True) -> Batch:
    n = torch.arange(start, start + count)
    images = torch.full((count, 1, 8, 8), 0.5) * (n % 2 * 2 - 1).view(-1, 1, 1, 1)
    return Batch(images, {"class_labels": n % 3} if labels else {}, n)


def spied(o: Any, *batches: Batch) -> list[torch.Tensor]:
    spy = Spy()
    for b in batches:
        shown(o, spy, b)
    return [torch.cat(column) for column in zip(*spy.seen, strict=True)]  # type: ignore[arg-type]


def discrepancy(values: np.ndarray) -> float:
    """Star discrepancy of points in [0, 1): how far their empirical distribution is from the uniform one."""
    points, n = np.sort(values), len(values)
    return float(max((np.arange(1, n + 1) / n - points).max(), (points - np.arange(n) / n).max()))


# Timesteps


def test_timesteps_cover_all_noise_levels_evenly() -> None:
    """The additive recurrence with the golden ratio has discrepancy O(log n / n); random points have 0.87 / sqrt n."""
    for start, n in [(0, 64), (12345, 64), (10**9 + 7, 1000), (0, 30000)]:
        t = draw_timesteps(1, np.arange(start, start + n), 1 << 20) / (1 << 20)
        assert discrepancy(t) < (2 + np.log(n)) / n
        assert discrepancy(t) < 0.5 * 0.87 / n**0.5


def test_each_timestep_is_equally_likely() -> None:
    t = draw_timesteps(0, np.arange(100_000), 10)
    assert t.dtype == np.int64
    counts = np.bincount(t, minlength=10)
    assert len(counts) == 10
    assert abs(counts - 10_000).max() <= 3
    one_place = np.array([draw_timesteps(seed, np.array([17]), 4)[0] for seed in range(2000)])
    assert abs(np.bincount(one_place) / 2000 - 0.25).max() < 0.04  # over seeds, at one sample


@pytest.mark.parametrize("total", [2, 1000, 1_000_003])
def test_timesteps_stay_within_the_chain(total: int) -> None:
    n = np.concatenate([np.arange(2000), np.arange(2000) + (1 << 62)])
    t = draw_timesteps(5, n, total)
    assert t.min() >= 0
    assert t.max() < total


def test_timesteps_belong_to_samples_and_to_the_seed() -> None:
    whole = draw_timesteps(4, np.arange(50), 1000)
    parts = np.concatenate([draw_timesteps(4, np.arange(a, a + 5), 1000) for a in range(0, 50, 5)])
    assert (whole == parts).all()
    assert (whole != draw_timesteps(5, np.arange(50), 1000)).any()


# The loss of a batch


def test_everything_random_belongs_to_the_sample_not_to_the_batch() -> None:
    o = objective()
    whole = spied(o, batch(0, 12))
    parts = spied(o, batch(0, 4), batch(4, 8))
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)
    losses = [shown(o, Spy(), batch(start, 4)) for start in (0, 4, 8)]
    torch.testing.assert_close(shown(o, Spy(), batch(0, 12)), torch.stack(losses).mean())
    other = spied(objective(replace(CONFIG, train=TrainConfig(seed=4))), batch(0, 12))
    assert not torch.equal(whole[0], other[0])
    torch.manual_seed(1)  # nothing comes from the global generator
    assert torch.equal(spied(o, batch(0, 12))[0], whole[0])


def test_noisy_images_have_the_statistics_of_the_forward_process() -> None:
    o = objective()
    b = batch(0, 6000)
    noisy, t, _ = spied(o, b)
    alpha_bar = o.schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
    noise = (noisy - alpha_bar.sqrt() * b.clean) / (1 - alpha_bar).sqrt()
    size = noise.numel()
    assert abs(noise.mean()) < 4 / size**0.5
    assert abs(noise.var() - 1) < 4 * (2 / size) ** 0.5
    assert abs((noise**4).mean() - 3) < 4 * (96 / size) ** 0.5
    flat = noise.flatten(1)
    assert abs((flat[1:] * flat[:-1]).mean()) < 4 / size**0.5  # neighbouring samples
    assert abs((flat[:, 1:] * flat[:, :-1]).mean()) < 4 / size**0.5  # neighbouring pixels


def test_the_loss_is_the_weighted_squared_error() -> None:
    config = replace(CONFIG, objective=WeightedConfig(MinSnrWeighting()))
    o, b = objective(config), batch(7, 16)
    noisy, t, _ = spied(o, b)
    alpha_bar = o.schedule.alphas_cumprod[t].double().view(-1, 1, 1, 1)
    noise = (noisy - alpha_bar.sqrt() * b.clean) / (1 - alpha_bar).sqrt()
    velocity = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * b.clean
    weights = loss_weights(o.schedule, MinSnrWeighting())[t]
    wanted = (weights * velocity.square().flatten(1).mean(1)).mean()  # the spy predicts 0
    assert torch.isclose(shown(o, Spy(), b).double(), wanted, rtol=1e-3)


# Labels


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_labels_are_dropped_at_the_rate_asked_for(share: float) -> None:
    o = objective(replace(CONFIG, condition=ClassLabelConfig(dropout=share)))
    labels = spied(o, batch(0, 5000))[2]
    dropped = labels == 3  # the null label comes after the classes
    assert abs(dropped.float().mean() - share) <= 4 * (share * (1 - share) / 5000) ** 0.5
    assert torch.equal(labels[~dropped], (torch.arange(5000) % 3)[~dropped])


def test_dropped_labels_do_not_depend_on_the_timestep() -> None:
    o = objective(replace(CONFIG, condition=ClassLabelConfig(dropout=0.5)))
    _, t, labels = spied(o, batch(0, 20000))
    assert abs(t[labels == 3].float().mean() - 49.5) < 4 * 28.9 / 100


def test_without_classes_the_network_gets_no_labels() -> None:
    spy = Spy()
    shown(objective(), spy, batch(0, 4, labels=False))
    assert spy.seen[0][2] is None


def test_the_same_image_meets_all_noise_levels(folder: Path) -> None:
    """Timesteps run through the samples and images through permutations: the two must not fall into step."""
    data = open_images(DataConfig(str(folder), resolution=8, held_out_fraction=0.0))
    levels: dict[Any, list[int]] = {}
    for b in data.batches(seed=0, batch_size=8, start_step=0, num_steps=1000):
        t = draw_timesteps(0, b.positions.numpy(), 1000)
        for image, timestep in zip(b.clean, t.tolist(), strict=True):
            levels.setdefault(image.numpy().tobytes(), []).append(timestep)
    assert len(levels) == len(data)
    for seen in levels.values():
        assert discrepancy(np.array(seen) / 1000) < 2 / len(seen) ** 0.5  # 1.95 has probability 0.001


# The variational bound in the loss


class Said(torch.nn.Module):
    """A network that says the same of every image: a value for the target and one for the variance."""

    def __init__(self, value: float = 0.1, variance: float = 0.3) -> None:
        super().__init__()
        self.output = torch.nn.Parameter(torch.tensor([value, variance]))

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        self.sample, self.timestep = sample, timestep
        return (self.output.view(1, 2, 1, 1).expand(len(sample), 2, *sample.shape[2:]),)


def learning(loss: str, prediction_type: PredictionType = "v_prediction") -> Any:
    schedule = replace(CONFIG.schedule, variance_type="learned_range", prediction_type=prediction_type)
    chosen = VlbConfig() if loss == "vlb" else HybridConfig(SimpleWeighting())
    return objective(replace(CONFIG, schedule=schedule, objective=chosen))


def gradient(o: Any, b: Batch) -> torch.Tensor:
    said = Said()
    shown(o, said, b).backward()
    assert said.output.grad is not None
    return said.output.grad


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction", "x0_minus_noise"])
def test_the_vlb_loss_is_the_bound(prediction_type: PredictionType) -> None:
    """T times the mean of the terms, as they are in float64; uniform draws, as none has been learned from yet."""
    o, said, b = learning("vlb", prediction_type), Said(), batch(0, 128, labels=False)
    loss = shown(o, said, b)
    noisy, t = said.sample.double(), said.timestep
    output, variance = (v.expand(128, 1, 8, 8).double() for v in said.output.detach().view(2, 1, 1, 1))
    x_0 = o.schedule.convert(output, noisy, t, prediction_type, "sample")
    terms = VariationalBound(o.schedule, 8).terms(b.clean.double(), x_0, variance, t)
    assert bool((t == 0).any())
    assert loss.item() == pytest.approx(100 * float(terms.mean()), rel=1e-3)


def test_the_hybrid_loss_moves_the_variance_by_the_bound_alone() -> None:
    b = batch(0, 64, labels=False)
    hybrid, vlb = gradient(learning("hybrid"), b), gradient(learning("vlb"), b)
    plain, o = Said(), learning("hybrid")
    o.vlb_weight = 0.0  # what is left is the squared error
    shown(o, plain, b).backward()
    assert plain.output.grad is not None
    assert torch.equal(hybrid[0], plain.output.grad[0])
    assert hybrid[1] == pytest.approx(1e-3 * float(vlb[1]), rel=1e-4)
    assert abs(vlb[0]) > 0.01


def test_the_variance_that_is_learned_is_the_best_one() -> None:
    """The KL divergence to the posterior is least where var = v + k^2 E|x_0 - x_0'|^2; its slope vanishes there."""
    o = learning("hybrid", "sample")
    t = 60
    bar = o.schedule.alphas_cumprod.double()
    beta = 1 - bar[t] / bar[t - 1]
    small, k = beta * (1 - bar[t - 1]) / (1 - bar[t]), bar[t - 1].sqrt() * beta / (1 - bar[t])
    images = torch.full((1, 1, 8, 8), 0.5)
    best = small + k**2 * 0.4**2
    fraction = (best / small).log() / (beta / small).log()
    assert 0 < fraction < 1
    said = torch.full_like(images, float(2 * fraction - 1)).requires_grad_()
    for off, sign in [(0.0, 0), (0.5, 1), (-0.5, -1)]:
        term = o.bound.terms(images, images - 0.4, said + off, torch.tensor([t]))
        (slope,) = torch.autograd.grad(term.sum(), said)
        assert (slope.sum() * sign > 1e-5) if sign else abs(slope.sum()) < 1e-7


def test_importance_is_learned_from_the_losses_in_the_samples_order() -> None:
    o = learning("vlb")
    for start in range(0, 1152, 64):
        shown(o, Said(), batch(start, 32, labels=False))
        shown(o, Said(), batch(start + 32, 32, labels=False))
        o.after_step(lambda values: values, 0.1)
    assert o.importance.seen.sum() == 1152
    p = o.importance.probabilities()
    assert p[0] > 3 * p[50]
    said = Said()
    shown(o, said, batch(1152, 3000, labels=False))
    found = np.bincount(said.timestep.numpy(), minlength=100) / 3000
    np.testing.assert_allclose(found, p, atol=0.002)  # a low discrepancy sequence through the inverse distribution

    other = learning("vlb")
    other.restore({name: value.clone() for name, value in o.state().items()})
    again = Said()
    shown(other, again, batch(1152, 3000, labels=False))
    assert torch.equal(again.timestep, said.timestep)
    assert learning("hybrid").state() == {}


def test_the_held_out_error_is_that_of_the_target_alone() -> None:
    o, b = learning("hybrid"), batch(0, 4, labels=False)
    t = torch.tensor([3, 30, 60, 90])
    first, second = (o.errors(Denoiser(Said(0.1, variance), o.schedule), b, t, "noise") for variance in (-1.0, 1.0))
    assert torch.equal(first, second)
    assert first.shape == (4,)
