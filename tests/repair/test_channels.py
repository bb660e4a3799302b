"""logsnr.repair.channels: what a model is shown of a picture, and what of a result is written."""

from __future__ import annotations

import pytest
import torch

from logsnr.base.errors import DataError
from logsnr.data.picture_files import Picture
from logsnr.repair.channels import meet
from logsnr.settings.damage import read_damage

COLOR, ALPHA = torch.rand(3, 4, 6), torch.rand(1, 4, 6)
BLUR = read_damage("blur 1 + noise 0.1")


def picture(color: torch.Tensor, alpha: torch.Tensor | None = None) -> Picture:
    return Picture(color, alpha, "PNG", 8, None, False)


def test_a_gray_picture_is_the_luma_of_one_in_colour() -> None:
    meeting = meet(picture(COLOR[:1]), BLUR, 3, "a")
    assert str(meeting.damage) == "gray + blur 1 + noise 0.1"
    assert torch.equal(meeting.measurement, COLOR[:1])
    color, alpha = meeting.parts(COLOR)
    torch.testing.assert_close(color[0], 0.299 * COLOR[0] + 0.587 * COLOR[1] + 0.114 * COLOR[2])
    assert alpha is None


def test_where_the_operator_says_gray_colours_are_written() -> None:
    for shown in (COLOR[:1], COLOR[:1].expand(3, -1, -1)):
        meeting = meet(picture(shown), read_damage("gray"), 3, "a")
        assert meeting.damage == read_damage("gray")
        assert torch.equal(meeting.measurement, COLOR[:1])
        assert torch.equal(meeting.parts(COLOR)[0], COLOR)
    with pytest.raises(DataError, match=r"has colours\. Save it as gray, or leave gray out"):
        meet(picture(COLOR), read_damage("gray"), 3, "a")


def test_a_gray_model_takes_what_is_gray_in_truth() -> None:
    meeting = meet(picture(COLOR[:1].expand(3, -1, -1)), BLUR, 1, "a")
    assert torch.equal(meeting.measurement, COLOR[:1])
    assert meeting.parts(COLOR[:1])[0].shape == (3, 4, 6)
    with pytest.raises(DataError, match=r"has colours\. Save it as gray, or take a model of RGB pictures"):
        meet(picture(COLOR), BLUR, 1, "a")


def test_alpha_passes_through_but_of_a_model_that_has_it() -> None:
    larger = torch.rand(3, 8, 12)
    color, alpha = meet(picture(COLOR, ALPHA), BLUR, 3, "a").parts(larger)
    assert alpha is not None
    assert alpha.shape == (1, 8, 12)
    assert torch.equal(meet(picture(COLOR, ALPHA), BLUR, 3, "a").parts(COLOR)[1], ALPHA)
    meeting, restored = meet(picture(COLOR, ALPHA), BLUR, 4, "a"), torch.rand(4, 4, 6)
    assert torch.equal(meeting.measurement, torch.cat([COLOR, ALPHA]))
    color, alpha = meeting.parts(restored)
    assert torch.equal(torch.cat([color, torch.as_tensor(alpha)]), restored)
    opaque = meet(picture(COLOR), BLUR, 4, "a")
    assert bool((opaque.measurement[3] == 1).all())
    assert opaque.parts(restored)[1] is None
