"""logsnr.evaluation.fidelity: what PSNR and SSIM are where they are known."""

from __future__ import annotations

import pytest
import torch

from logsnr.evaluation.fidelity import psnr, ssim


def test_known_errors() -> None:
    """An error of 0.1 is 20 dB; half of it 6.02 dB more; none is 100 dB and a similarity of 1."""
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.8
    three = torch.cat([image + 0.1, image + 0.05, image])
    originals = image.expand(3, -1, -1, -1)
    assert psnr(three, originals).tolist() == pytest.approx([20.0, 26.0206, 100.0], abs=1e-3)
    assert ssim(three, originals)[2] == pytest.approx(1.0)


def test_a_constant_shift_leaves_the_structure() -> None:
    """Of two constants a and b SSIM is (2 a b + c_1) / (a^2 + b^2 + c_1), in images smaller than the window too."""
    for size in (6, 28):
        a, b = torch.full((2, 1, size, size), 0.4), torch.full((2, 1, size, size), 0.6)
        expected = (2 * 0.24 + 1e-4) / (0.16 + 0.36 + 1e-4)
        assert ssim(a, b).tolist() == pytest.approx([expected] * 2, abs=2e-3)


def test_a_pair_is_measured_by_itself() -> None:
    images, originals = torch.rand(2, 4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    for measure in (psnr, ssim):
        alone = torch.cat([measure(images[k : k + 1], originals[k : k + 1]) for k in range(4)])
        assert torch.allclose(measure(images, originals), alone, atol=1e-5)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_shapes_that_differ(measure: object) -> None:
    with pytest.raises(ValueError, match=r"must have one shape .* and have \(2, 1, 8, 8\) and \(2, 3, 8, 8\)"):
        measure(torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8))  # type: ignore[operator]
    with pytest.raises(ValueError, match="6 pixels or more"):
        ssim(torch.zeros(2, 1, 5, 8), torch.zeros(2, 1, 5, 8))
