"""logsnr.repair.operators: damage in words does to a picture what the words say."""

from __future__ import annotations

import pytest
import torch

from logsnr.base.errors import ConfigError
from logsnr.pipelines.restoration_operators import Operator
from logsnr.repair.operators import make_operator
from logsnr.settings.damage import KINDS, read_damage

SHAPE = (3, 16, 16)
HOLE = torch.ones(16, 16, dtype=torch.bool)
HOLE[2:5, 3:7] = False


def made(text: str, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Operator:
    damage = read_damage(text)
    return make_operator(damage, shape, HOLE if "mask" in damage.names else None, seed)


@pytest.mark.parametrize("name", KINDS)
def test_every_word_is_an_operator_with_its_noise(name: str) -> None:
    operator = made(f"{KINDS[name].example} + noise 0.1")
    assert operator.shape == SHAPE
    assert operator.noise_std == 0.1
    measured = operator.apply(torch.rand(2, *SHAPE))
    assert measured.shape[1:] == operator.measurement_shape
    assert not KINDS[name].picture or len(operator.measurement_shape) == 3
    assert not operator.linear or operator.adjoint_error() < 1e-6


def test_the_first_step_acts_first_and_noise_is_last() -> None:
    operator, x = made("gray + down 4 + mask + noise 0.1", (3, 64, 64)), torch.rand(1, 3, 64, 64)
    assert operator.measurement_shape == (1, 16, 16)
    gray = made("gray", (3, 64, 64)).apply(x)
    expected = torch.nn.functional.avg_pool2d(gray, 4) * HOLE
    torch.testing.assert_close(operator.apply(x), expected)


def test_the_hidden_share_is_what_was_said_and_the_seed_chooses_it() -> None:
    known = made("missing 0.6", (3, 20, 20)).observed()
    assert known is not None
    assert int((~known).sum()) == 3 * 240
    assert torch.equal(known[0], known[2])
    assert torch.equal(known, torch.as_tensor(made("missing 0.6", (3, 20, 20)).observed()))
    assert not torch.equal(known, torch.as_tensor(made("missing 0.6", (3, 20, 20), seed=1).observed()))


def test_a_box_lies_in_the_middle() -> None:
    known = made("box 0.5").observed()
    assert known is not None
    assert not known[:, 4:12, 4:12].any()
    assert int((~known).sum()) == 3 * 64


def test_one_in_four_lines_of_frequencies_is_taken_and_the_mean_always() -> None:
    operator = made("fourier 4", (1, 64, 64))
    assert operator.measurement_shape == (1, 2, 16 * 64)
    constant = operator.apply(torch.full((1, 1, 64, 64), 0.5))
    assert float(constant.square().sum()) == pytest.approx(0.25 * 64 * 64)


@pytest.mark.parametrize(
    ("text", "shape", "words"),
    [
        ("gray", (1, 16, 16), "gray needs pictures in RGB, and this is a gray picture of 16x16"),
        ("down 4", (1, 18, 21), "multiples of 4, and this is a gray picture of 21x18 pixels. Cut it to 20x16."),
        ("mask", (1, 8, 9), "mask must have the picture's size, 9x8, and has 16x16"),
        ("jpeg 10", (4, 16, 16), "jpeg 10 can't be done to an RGBA picture of 16x16"),
        ("radon 20", (1, 16, 17), "radon 20 can't be done to a gray picture of 17x16 pixels: Radon needs square"),
    ],
)
def test_what_cannot_be_done_to_such_a_picture(text: str, shape: tuple[int, int, int], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(text, shape)
    assert words in str(caught.value)


def test_masks_that_are_none() -> None:
    with pytest.raises(ConfigError, match="the step mask needs a mask"):
        make_operator(read_damage("mask"), SHAPE)
    with pytest.raises(ConfigError, match='mask is for the step mask, and operator is "blur 2"'):
        make_operator(read_damage("blur 2"), SHAPE, HOLE)
    for mask, what in ((torch.ones(16, 16), "none"), (torch.zeros(16, 16), "all")):
        with pytest.raises(ConfigError, match=f"hides {what}. White is hidden"):
            make_operator(read_damage("mask"), SHAPE, mask.bool())
