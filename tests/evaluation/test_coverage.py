"""logsnr.evaluation.coverage: right of exact draws, and less or more of draws that are too sure or too unsure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from logsnr.evaluation.coverage import Ranks, pixel_ranks, projection_ranks
from logsnr.media.coverage import Calibration, calibration_figure

SHAPE = (1, 6, 6)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def problem(scale: float = 1.0, n: int = 200, m: int = 19) -> tuple[Tensor, Tensor, Tensor]:
    """Originals and draws of each from N(mean of the image, 0.1^2), the draws `scale` times as spread."""
    mean = 0.5 + 0.1 * normal(n, *SHAPE, seed=0)
    originals = mean + 0.1 * normal(n, *SHAPE, seed=1)
    draws = mean.unsqueeze(1) + scale * 0.1 * normal(n, m, *SHAPE, seed=2)
    return originals, draws, torch.ones(n, *SHAPE, dtype=torch.bool)


def test_exact_draws_have_the_nominal_coverage_at_every_level() -> None:
    for ranks in (pixel_ranks(*problem()), projection_ranks(*problem())):
        assert ranks.nominal == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
        for nominal, found, error in zip(ranks.nominal, ranks.coverage, ranks.errors, strict=True):
            assert abs(found - nominal) < 4 * error < 0.05
        assert np.abs(np.array(ranks.shares) * 20 - 1).max() < 0.2


def test_draws_that_are_too_sure_and_too_unsure() -> None:
    """An interval of the least and greatest of 19 normal draws, scaled: known by integrating over the order statistics,
    for which a million draws stand here."""
    truth, draws = normal(200_000, seed=3), normal(200_000, 19, seed=4)
    for scale in (0.5, 2.0):
        low, high = scale * draws.amin(1), scale * draws.amax(1)
        expected = float(((truth >= low) & (truth <= high)).float().mean())
        for measure in (pixel_ranks, projection_ranks):
            ranks = measure(*problem(scale))
            assert abs(ranks.coverage[0] - expected) < 4 * ranks.errors[0] + 0.003


def test_the_error_is_that_of_images_whose_numbers_hang_together() -> None:
    """One number an image, shown in every pixel: 200 numbers and not 7,200."""
    originals, draws, hidden = problem()
    originals, draws = (x[..., :1, :1].expand(*x.shape[:-2], 6, 6) for x in (originals, draws))
    ranks = pixel_ranks(originals, draws, hidden)
    assert ranks.numbers == 200 * 36
    assert ranks.errors[0] == pytest.approx(math.sqrt(0.09 / 200), rel=0.3)


def test_seen_pixels_and_those_without_spread_are_left_out() -> None:
    originals, draws, hidden = problem(n=50)
    originals[:, :, 0], draws[:, :, :, 0] = 0.0, 0.0  # known black
    hidden[:, :, 1] = False
    originals[:, :, 1], draws[:, :, :, 1] = 5.0, -5.0  # whatever is seen plays no part
    ranks = pixel_ranks(originals, draws, hidden)
    assert ranks.numbers == 50 * 24
    assert abs(ranks.coverage[0] - 0.9) < 4 * ranks.errors[0]
    projected = projection_ranks(originals, draws, hidden)
    assert abs(projected.coverage[0] - 0.9) < 4 * projected.errors[0]
    nothing = projection_ranks(originals, draws, torch.zeros_like(hidden))
    assert nothing.numbers == 0
    assert math.isnan(nothing.coverage[0])


def test_an_original_unlike_all_of_its_equal_draws_counts_as_outside() -> None:
    originals, draws, hidden = problem(n=50)
    ranks = pixel_ranks(torch.ones_like(originals), torch.zeros_like(draws), hidden)
    assert (ranks.numbers, ranks.coverage[0]) == (50 * 36, 0.0)


def test_equal_values_are_no_proof() -> None:
    """Pixels that are black or white by a coin, in originals and draws alike, have the nominal coverage."""
    coins = torch.rand(20, 300, *SHAPE, generator=torch.Generator().manual_seed(5)).round()
    ranks = pixel_ranks(coins[0], coins[1:].transpose(0, 1), torch.ones(300, *SHAPE, dtype=torch.bool))
    for nominal, found, error in zip(ranks.nominal, ranks.coverage, ranks.errors, strict=True):
        assert abs(found - nominal) < 4 * error


def test_an_even_number_of_draws() -> None:
    """There are m / 2 intervals."""
    ranks = pixel_ranks(*problem(m=4))
    assert ranks.nominal == pytest.approx([0.6, 0.2])
    assert abs(ranks.coverage[0] - 0.6) < 4 * ranks.errors[0]
    assert abs(ranks.coverage[1] - 0.2) < 4 * ranks.errors[1]


def test_draws_of_another_shape() -> None:
    originals, draws, hidden = problem(n=3)
    with pytest.raises(ValueError, match="draws must be two or more of each original"):
        pixel_ranks(originals, draws[:, :1], hidden)
    with pytest.raises(ValueError, match="draws must be two or more of each original"):
        projection_ranks(originals, draws[:2], hidden)


def test_the_picture() -> None:
    curves = {}
    for name, scale in (("right", 1.0), ("too sure", 0.5)):
        ranks: Ranks = pixel_ranks(*problem(scale))
        curves[name] = Calibration(ranks.nominal, ranks.coverage, ranks.errors)
    figure = calibration_figure({"pixels": curves, "projections": curves}, "missing 0.6")
    assert [axes.get_title("left") for axes in figure.axes] == ["pixels", "projections"]
    for axes in figure.axes:
        assert [line.get_label() for line in axes.lines[1:]] == ["right", "too sure"]
        assert axes.lines[1].get_xdata().tolist() == pytest.approx(curves["right"].nominal)
        assert axes.lines[2].get_ydata().max() < 0.75
