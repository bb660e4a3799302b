"""`logsnr inspect run`: three pictures, and a line of words for each."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import Finished, run
from PIL import Image

from logsnr.media.film import Frame
from logsnr.objectives.held_out import LOG_SNR_EDGES, binned_means
from logsnr.studies.inspect_run import _bits_in_bins, _middle_half, _settled

Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def trained(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspected")
    assert run(path / "log.txt", "train", *tiny, "--out", path / "run").status == 0
    return path / "run"


def test_three_pictures_with_words(trained: Path, logsnr: Run) -> None:
    end = logsnr("inspect", "run", trained, "--elbo-images", "4", "--elbo-timesteps", "20")
    assert end.status == 0, end.output
    for name in ("loss", "bits", "film"):
        path = trained / "inspection" / f"{name}.png"
        assert Image.open(path).width > 300
        assert str(path) in end.output
    numbers = re.search(r"([\d.]+) ± [\d.]+ bits per dimension, of which the prior takes ([\d.]+)", end.output)
    assert numbers is not None
    rest = re.search(r"the decoder ([\d.]+) and the steps ([\d.]+)", end.output)
    assert rest is not None
    assert float(numbers[1]) == pytest.approx(sum(map(float, (numbers[2], rest[1], rest[2]))), abs=1e-3)
    assert re.search(r"on held-out images and [\d.]+ ± [\d.]+ on training images; half of it between", end.output)


def test_dry_run_draws_nothing(trained: Path, logsnr: Run, tmp_path: Path) -> None:
    end = logsnr("inspect", "run", trained, "--out", tmp_path / "pictures", "--dry-run")
    assert end.status == 0
    assert "Would draw loss.png, bits.png and film.png into" in end.output
    assert not (tmp_path / "pictures").exists()


def test_bins_take_what_lies_beyond() -> None:
    log_snr = torch.tensor([-30.0, -9.5, -0.5, 0.5, 9.5, 30.0, -torch.inf]).double()
    values = torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 2.0]).double()
    found = binned_means(log_snr, values)
    assert len(found) == len(LOG_SNR_EDGES) - 1 == 10
    assert (found[0], found[4], found[5], found[-1]) == (2.0, 5.0, 7.0, 10.0)


def test_bits_in_bins_are_all_the_bits_wherever_they_lie() -> None:
    log_snr = torch.tensor([12.5, 8.5, 8.0, -3.0, -14.5]).double()
    kl = torch.tensor([4.0, 1.0, 11.0, 2.3]).double()
    edges, bits = _bits_in_bins(log_snr, kl)
    assert (edges[0], edges[-1]) == (-15, 13)
    assert bits.sum() == pytest.approx(float(kl.sum()))
    assert bits[edges[:-1] >= 9] == pytest.approx([1.0, 1.0, 1.0, 0.5])  # the first step, over four bins
    assert bits[edges[:-1] == 8] == pytest.approx(1.5)
    log_snr[-1] = -torch.inf
    assert _bits_in_bins(log_snr, kl)[1].sum() == pytest.approx(float(kl.sum()))


def test_middle_half_of_a_uniform_density() -> None:
    log_snr = torch.linspace(10, -10, 2001).double()
    low, high = _middle_half(log_snr, torch.ones(2001).double())
    assert (low, high) == (pytest.approx(-5, abs=0.02), pytest.approx(5, abs=0.02))


def test_settled_is_where_the_end_can_be_foreseen() -> None:
    generator = torch.Generator().manual_seed(0)
    end, other = torch.randn(2, 1, 8, 8, generator=generator), torch.randn(2, 1, 8, 8, generator=generator)
    frames = [
        Frame(float(k), share, end, end * (1 - share) + other * share)
        for k, share in enumerate((1.0, 0.8, 0.6, 0.2, 0.1, 0.0))
    ]
    assert _settled(frames).noise == 0.2
