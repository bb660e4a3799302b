"""Judges of what was asked for, on features whose answer is known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from logsnr.evaluation.judges import (
    AttributeJudges,
    CaptionJudges,
    Seat,
    Share,
    seats_held_out,
    seats_of_halves,
    share,
    verdicts,
)

N, WIDTH = 400, 12
CAPTIONS = np.random.default_rng(0).integers(0, 150, N)  # of examples: some captions several times
GENERATOR = torch.Generator().manual_seed(0)
MEANINGS = torch.nn.functional.normalize(torch.randn(150, WIDTH, generator=GENERATOR), dim=1)
ASKED = np.arange(N)


def linear(meanings: Tensor) -> Tensor:
    """Features that are an exact linear map of the meanings, of more dimensions."""
    return 2 + meanings @ torch.randn(WIDTH, 30, generator=torch.Generator().manual_seed(1))


def unrelated(n: int, seed: int) -> Tensor:
    return 2 + torch.randn(n, 30, generator=torch.Generator().manual_seed(seed))


def judged(
    seats: list[Seat], train: Tensor, drawn: Tensor, real: Tensor, asked: np.ndarray = ASKED
) -> tuple[Share, Share]:
    judges = CaptionJudges(seats, CAPTIONS, CAPTIONS)
    assert judges.possible()
    assert judges.candidates == 20
    return verdicts(seats, partial(judges.judge, features=train, meanings=MEANINGS), drawn, real, asked)


SEATS = {"halves": seats_of_halves([str(c) for c in CAPTIONS]), "one": seats_held_out(N, N)}


@pytest.mark.parametrize("seats", SEATS.values(), ids=SEATS)
def test_features_that_are_the_meaning_find_every_caption_and_others_find_it_by_chance(seats: list[Seat]) -> None:
    exact = linear(MEANINGS)[CAPTIONS]
    drawn, real = judged(seats, exact, exact, exact)
    assert drawn == real == Share(1.0, (1.0, 1.0), N)
    by_chance = [judged(seats, exact, unrelated(N, seed), exact)[0].value for seed in range(8)]
    assert abs(np.mean(by_chance) - 1 / 20) < 0.01
    noise = unrelated(N, 3)
    drawn, real = judged(SEATS["halves"], noise, noise, noise)
    assert drawn.interval[0] < 1 / 20 < drawn.interval[1]


def test_an_image_of_another_caption_is_wrong_and_the_real_image_counts_once() -> None:
    exact = linear(MEANINGS)[CAPTIONS]
    asked = np.repeat(ASKED[:50], 3)
    drawn, real = judged(SEATS["halves"], exact, exact[(asked + 7) % N], exact, asked)
    assert drawn.value < 0.1
    assert (drawn.num, real.num, real.value) == (150, 50, 1.0)


def test_no_judge_learns_of_what_it_judges() -> None:
    groups = [str(c) for c in CAPTIONS]
    seats = seats_of_halves(groups)
    for seat in seats:
        assert not {groups[k] for k in seat.learns} & {groups[k] for k in np.flatnonzero(seat.judges)}
        assert abs(len(seat.learns) - N / 2) < 5
    assert (seats[0].judges ^ seats[1].judges).all()
    assert seats_held_out(30_000, 9)[0].learns.shape == (10_000,)


def test_the_others_of_a_line_up_are_captions_that_the_judge_has_not_seen_each_once() -> None:
    seats = SEATS["halves"]
    judges = CaptionJudges(seats, CAPTIONS, CAPTIONS)
    often = np.zeros(150)
    for seat in seats:
        seen = set(CAPTIONS[seat.learns].tolist())
        for place in np.flatnonzero(seat.judges).tolist():
            first, *others = judges._line_up(seat, place)
            assert first == CAPTIONS[place]
            assert len({first, *others}) == 20
            assert not seen & set(others)
            often[others] += 1
    assert often[np.unique(CAPTIONS)].min() > 0.5 * often.mean()
    assert CaptionJudges(seats, CAPTIONS % 12, CAPTIONS % 12).candidates == 12
    assert not CaptionJudges(seats, CAPTIONS * 0, CAPTIONS * 0).possible()


def test_equals_share_what_is_right() -> None:
    same = torch.ones(150, WIDTH)
    judges = CaptionJudges(SEATS["one"], CAPTIONS, CAPTIONS)
    judge = judges.judge(SEATS["one"][0], unrelated(N, 1), same)
    assert torch.allclose(judge(unrelated(4, 2), ASKED[:4]), torch.full((4,), 1 / 20, dtype=torch.float64))


@pytest.mark.parametrize("seats", SEATS.values(), ids=SEATS)
def test_attributes(seats: list[Seat]) -> None:
    values = [None if k % 5 == 4 else "abc"[CAPTIONS[k] % 3] for k in range(N)]
    known = sum(value is not None for value in values)
    features = unrelated(N, 4)
    features[:, :3] += 50 * torch.eye(3)[torch.from_numpy(CAPTIONS % 3)]
    judges = AttributeJudges(seats, values, values)
    assert judges.possible(ASKED)
    assert judges.chance(ASKED) == max(values.count(letter) for letter in "abc") / known
    told = partial(judges.judge, features=features)
    drawn, real = verdicts(judges.seats, told, unrelated(N, 5), features, ASKED)
    assert real == Share(1.0, (1.0, 1.0), known)
    assert drawn.interval[0] < 0.36
    assert drawn.interval[1] > 0.3
    shifted, _ = verdicts(judges.seats, told, features[(ASKED + 1) % N], features, ASKED)
    assert shifted.value < 0.6
    assert not AttributeJudges(seats, ["a"] * N, ["a"] * N).possible(ASKED)
    assert not judges.possible(np.array([4]))


def test_a_share_and_its_interval() -> None:
    assert share(torch.tensor([1.0, 0, 0, 1])) == Share(0.5, (pytest.approx(0.01), pytest.approx(0.99)), 4)
