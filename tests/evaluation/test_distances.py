"""logsnr.evaluation.distances: closed forms on Gaussians, known geometry, and what torchmetrics says."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import KernelInceptionDistance

from logsnr.evaluation.distances import (
    RESAMPLES,
    Figures,
    _Given,
    deviations,
    frechet_distance,
    inception_score,
    kernel_distance,
    kernel_distances,
    measure,
    nearest,
    precision_recall,
)
from logsnr.evaluation.extractors import Features
from logsnr.evaluation.memorisation import closest_pairs, memorisation


def normal(n: int, d: int, seed: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + scale * torch.randn(n, d, generator=generator, dtype=torch.float64)


def with_moments(n: int, mean: Tensor, root: Tensor, seed: int) -> Tensor:
    """n rows whose sample mean is `mean` and whose sample covariance is root rootᵀ, exactly."""
    x = normal(n, len(mean), seed)
    x = x - x.mean(0)
    whitened = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return whitened @ root.T + mean


# fid


def test_frechet_distance_of_diagonal_covariances() -> None:
    a, b = torch.tensor([1.0, 4.0, 0.25, 9.0]).double(), torch.tensor([2.25, 1.0, 0.25, 4.0]).double()
    shift = torch.tensor([0.5, 0.0, -1.0, 2.0]).double()
    x = with_moments(200, torch.zeros(4).double(), a.sqrt().diag(), 0)
    y = with_moments(300, shift, b.sqrt().diag(), 1)
    exact = shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance(x, y) == pytest.approx(float(exact), rel=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    """In two dimensions tr (AB)^(1/2) = (tr AB + 2 (det AB)^(1/2))^(1/2)."""
    p, q = torch.tensor([[2.0, 0.0], [1.5, 0.3]]).double(), torch.tensor([[0.4, 0.0], [-1.0, 1.2]]).double()
    a, b = p @ p.T, q @ q.T
    zero = torch.zeros(2).double()
    root = ((a @ b).trace() + 2 * (a @ b).det().sqrt()).sqrt()
    found = frechet_distance(with_moments(50, zero, p, 0), with_moments(60, zero, q, 1))
    assert found == pytest.approx(float(a.trace() + b.trace() - 2 * root), rel=1e-9)


def test_frechet_distance_falls_with_the_numbers_as_its_text_says() -> None:
    """The bias of two samples of one distribution is about a constant times 1/n + 1/m."""
    few = [frechet_distance(normal(200, 8, 2 * k), normal(400, 8, 2 * k + 1)) for k in range(40)]
    many = [frechet_distance(normal(800, 8, 2 * k), normal(1600, 8, 2 * k + 1)) for k in range(40)]
    assert sum(few) / sum(many) == pytest.approx(4, rel=0.25)


# kid


def test_kid_is_unbiased_of_equal_distributions() -> None:
    values = torch.tensor([kernel_distance(normal(20, 5, 2 * k), normal(33, 5, 2 * k + 1)) for k in range(400)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(400)


def test_kid_of_normal_distributions() -> None:
    """For x ~ N(0, s² I) and y ~ N(0, t² I), u = x·y / d has E u² = s² t² / d and E (u + 1)³ = 1 + 3 s² t² / d."""
    d, s, t = 6, 1.0, 1.8
    exact = 3 * (s**4 + t**4 - 2 * s**2 * t**2) / d
    values = torch.tensor([kernel_distance(normal(40, d, 2 * k, s), normal(40, d, 2 * k + 1, t)) for k in range(400)])
    assert abs(float(values.mean()) - exact) < 4 * float(values.std()) / math.sqrt(400)


def test_kid_of_one_whole_subset_is_torchmetrics() -> None:
    x, y = normal(1500, 16, 0, 1.3), normal(1500, 16, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = KernelInceptionDistance(feature=_Given(16), subsets=1, subset_size=1500)
    metric.update(y, real=True)
    metric.update(x, real=False)
    assert kernel_distance(x, y) == pytest.approx(float(metric.compute()[0]), rel=1e-9)


def test_resamples_by_weight_are_resamples_without_pairs_of_copies() -> None:
    x, y = normal(12, 3, 0), normal(15, 3, 1)
    drawn = torch.randint(12, (12,), generator=torch.Generator().manual_seed(2))
    weights = torch.bincount(drawn, minlength=12).double()[:, None]
    copies = x[drawn]
    kernel = (copies @ copies.T / 3 + 1) ** 3
    different = drawn[:, None] != drawn[None]
    within = (kernel * different).sum() / different.sum()
    yy = (y @ y.T / 3 + 1) ** 3
    rest = (yy.sum() - yy.diag().sum()) / (15 * 14) - 2 * ((copies @ y.T / 3 + 1) ** 3).mean()
    found = kernel_distances(x, y, weights, torch.ones(15, 1).double())
    assert float(found) == pytest.approx(float(within + rest), rel=1e-9)


# inception_score


def test_inception_score_of_sure_and_unsure_classifiers() -> None:
    labels = torch.arange(20_000) % 10
    sure = 50 * torch.nn.functional.one_hot(labels, 10).double()
    assert inception_score(sure) == pytest.approx(10, rel=0.01)  # splits are drawn: shares are not quite equal
    assert inception_score(torch.zeros(100, 10).double()) == pytest.approx(1, abs=1e-9)
    assert inception_score(sure[labels == 3]) == pytest.approx(1, abs=1e-9)


def test_inception_score_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    inception_score(normal(50, 4, 0))
    assert torch.equal(torch.get_rng_state(), state)


# precision and recall


def test_precision_and_recall_on_a_line() -> None:
    """Real images at 0, 1, ..., 9: the third neighbour is 2 away inside and 3 (2 from the second on) at the ends."""
    real = torch.arange(10.0).double()[:, None]
    generated = torch.tensor([[-3.0], [-3.1], [4.4], [12.0], [12.1], [100.0], [200.0], [400.0]]).double()
    precise, recalled = precision_recall(generated, real)
    assert precise.tolist() == [True, False, True, True, False, False, False, False]
    # generated radii: -3: 15 and up to 103; 4.4: 7.7; ...: all of the real line lies within one of them
    assert bool(recalled.all())


def test_precision_and_recall_of_half_of_the_data() -> None:
    one, other = normal(300, 4, 0), normal(300, 4, 1, mean=50)
    real = torch.cat([one, other])
    precise, recalled = precision_recall(normal(600, 4, 2), real)
    assert float(precise.double().mean()) > 0.9
    assert not bool(recalled[300:].any())
    assert float(recalled[:300].double().mean()) > 0.9
    outside, _ = precision_recall(torch.cat([normal(300, 4, 2), normal(300, 4, 3, mean=-50)]), real)
    assert not bool(outside[300:].any())


def test_many_rows_are_taken_in_parts() -> None:
    x, y = normal(1500, 3, 0), normal(2100, 3, 1)
    distances, places = nearest(x, y)
    whole = torch.cdist(x, y)
    assert torch.allclose(distances, whole.min(1).values)
    assert torch.equal(places, whole.argmin(1))
    own = torch.cdist(y, y).fill_diagonal_(torch.inf).kthvalue(3, dim=1).values
    assert torch.equal(precision_recall(x, y)[0], (whole <= own).any(1))


# All of them


def test_measure_takes_as_many_real_images_where_the_text_says_so() -> None:
    x, y = normal(50, 4, 0), normal(200, 4, 1)
    found = measure(Features(x.float(), None), Features(y.float(), None))
    x, y = x.float().double(), y.float().double()
    assert found == Figures(
        kernel_distance(x, y[:50]),
        frechet_distance(x, y),
        None,
        *(float(inside.double().mean()) for inside in precision_recall(x, y[:50])),
    )


def test_deviations_are_those_of_drawing_anew() -> None:
    """The bootstrap's deviation of one pair of samples against the scatter over 60 pairs."""

    def draw(k: int) -> tuple[Features, Features]:
        x, y = normal(150, 4, 2 * k, 1.4, 0.5), normal(400, 4, 2 * k + 1)
        return Features(x, 3 * x), Features(y, 3 * y)

    values = [measure(*draw(k)) for k in range(60)]
    estimates = [deviations(*draw(k)) for k in range(100, 103)]
    for name, bounds in {"kid": 1.5, "fid": 1.5, "inception_score": 1.7, "precision": 2.0}.items():
        scatter = float(torch.tensor([getattr(value, name) for value in values]).std())
        estimate = sum(getattr(each, name) for each in estimates) / 3
        assert 1 / bounds < estimate / scatter < bounds, (name, estimate, scatter)
    assert RESAMPLES >= 50


# Memorisation


def test_copies_are_found() -> None:
    train, held_out = normal(400, 6, 0), normal(100, 6, 1)
    copies = train[:200] + 1e-3 * normal(200, 6, 2)
    found = memorisation(copies, train, held_out)
    assert found.copying == 1
    assert found.copying_z > 10
    assert found.median_to_train < 0.01 < found.median_of_held_out_to_train
    pairs = closest_pairs(copies, train)
    assert all(k == place for _, k, place in pairs)
    assert [distance for distance, _, _ in pairs] == sorted(distance for distance, _, _ in pairs)


def test_new_images_are_as_far_from_train_as_held_out_ones() -> None:
    found = [
        memorisation(normal(200, 6, 3 * k), normal(400, 6, 3 * k + 1), normal(100, 6, 3 * k + 2)) for k in range(30)
    ]
    z = torch.tensor([each.copying_z for each in found])
    assert abs(float(z.mean())) < 4 / math.sqrt(30)
    assert 0.6 < float(z.std()) < 1.6
    assert sum(each.nearer_to_train for each in found) / 30 == pytest.approx(0.5, abs=0.02)
