"""Spectra against closed forms, and what `logsnr inspect data` says of images."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Finished
from PIL import Image

from logsnr.base.errors import ConfigError, DataError
from logsnr.media.spectrum import half_hidden, hidden, photographs, spectrum
from logsnr.studies.inspect_data import inspect_data

Run = Callable[..., Finished]


def gaussian_images(power: torch.Tensor, count: int) -> torch.Tensor:
    """Images whose Fourier modes have the variance `power` (channels, side, side)."""
    noise = torch.randn((count, *power.shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.fft.ifft2(torch.fft.fft2(noise) * power.sqrt()).real.float()


# Spectra


def test_power_of_images_is_what_they_were_made_with() -> None:
    power = photographs(16)[:1]
    images = gaussian_images(power, 4000)
    found = spectrum(lambda: images.split(999))
    ratio = found.power / power
    assert 0.85 < float(ratio.min()) < float(ratio.max()) < 1.15  # standard deviation sqrt(2 / 4000)
    assert found.std == pytest.approx(float(power.mean().sqrt()), rel=0.02)


def test_power_adds_up_to_the_variance_about_the_mean_image() -> None:
    images = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = spectrum(lambda: [images])
    assert float(found.power.mean()) == pytest.approx(float(images.double().var(0).mean()), rel=1e-6)
    assert found.mean == pytest.approx(float(images.mean()), rel=1e-5)


def test_colours_are_turned_to_their_axes() -> None:
    """Gray images with three equal channels have all their power on one axis, three times that of a channel."""
    gray = gaussian_images(photographs(8)[:1], 200)
    one, three = spectrum(lambda: [gray]), spectrum(lambda: [gray.expand(-1, 3, -1, -1)])
    axes = three.power.sum((1, 2))
    assert float(axes.max() / axes.sum()) > 1 - 1e-5
    assert torch.allclose(three.power[axes.argmax()], 3 * one.power[0], rtol=1e-4)


def test_hidden_is_the_error_of_the_best_linear_denoiser() -> None:
    """White images of variance v: v / (1 + e^λ v) is left of v, and half of it at λ = -ln v."""
    white = torch.full((1, 8, 8), 0.3, dtype=torch.float64)
    for log_snr in (-3.0, 0.0, 2.0):
        assert hidden(white, log_snr) == pytest.approx(1 / (1 + 0.3 * math.exp(log_snr)))
    assert half_hidden(white) == pytest.approx(-math.log(0.3), abs=1e-5)


def test_the_same_pictures_at_twice_the_side_are_moved_by_2_ln_2() -> None:
    small = gaussian_images(photographs(16)[:1], 300)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    moved = spectrum(lambda: [large]).offset - spectrum(lambda: [small]).offset
    assert moved == pytest.approx(-2 * math.log(2), abs=0.15)  # the edges of the large pixels are above 8 cycles
    bright = spectrum(lambda: [0.5 * small]).offset - spectrum(lambda: [small]).offset
    assert bright == pytest.approx(2 * math.log(2), abs=1e-3)


def test_offset_of_photographs_is_about_that_of_their_size() -> None:
    for side in (32, 128, 256):
        moved = half_hidden(photographs(side)) - half_hidden(photographs())
        assert moved == pytest.approx(2 * math.log(64 / side), abs=0.35)


# Words


def test_what_is_said_of_a_folder(folder: Path, tmp_path: Path) -> None:
    text = " ".join(inspect_data(str(folder), out=tmp_path / "data.png").split())
    assert text.startswith("40 images; sizes 8x8 (40); gray, 8 bit (40); 2 classes.")
    assert "At 8x8 with 1 channel, in [-1, 1]: mean " in text
    assert f"logsnr train images-32 --data.source {folder} --data.resolution 8 --data.channels 1 " in text
    assert "--objective.sigma-data" not in text
    assert "40 images are few" in text
    assert Image.open(tmp_path / "data.png").width > 1000


def test_sizes_kinds_and_what_cannot_be_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 50 + k, 4), np.uint8)).save(tmp_path / f"{k}.png")
    Image.fromarray(rng.integers(0, 65536, (30, 30)).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.repeat(rng.integers(0, 256, (30, 30, 1), np.uint8), 3, 2)).save(tmp_path / "gray.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    text = " ".join(inspect_data(str(tmp_path), out=None).split())
    assert text.startswith("8 images; sizes 30x30 (2), 50x40 (1), 51x40 (1) and 4 more; RGBA, 8 bit (6), ")
    assert "gray, 16 bit (1)" in text
    assert "no classes; 6 transparent in places" in text
    assert "1 can't be read: broken.png." in text
    side = 40 if torch.cuda.is_available() else 32  # the most that is suggested without a GPU
    assert f"At {side}x{side} with 4 channels" in text
    assert "At 16x16 with 1 channel," in inspect_data(str(tmp_path), resolution=16, channels=1, out=None)


def test_gray_images_stored_as_rgb_are_said_to_be_gray(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(4):
        Image.fromarray(np.repeat(rng.integers(0, 256, (8, 8, 1), np.uint8), 3, 2)).save(tmp_path / f"{k}.png")
    text = inspect_data(str(tmp_path), out=None)
    assert "gray all the same" in text
    assert "with 1 channel" in text


def test_the_command_is_one_line_with_the_path_quoted_as_the_shell_needs_it(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "my images"
    source.symlink_to(folder)
    (line,) = [line for line in inspect_data(str(source), out=None).splitlines() if "logsnr train" in line]
    words = shlex.split(line.partition("A beginning: ")[2])
    assert words[words.index("--data.source") + 1] == str(source)
    assert words[-2:] == ["--out", "RUN"]


@pytest.mark.parametrize("step", [0, 40])
def test_images_without_anything_in_them(step: int, tmp_path: Path) -> None:
    for k in range(4):
        Image.new("RGB", (16, 16), (100, step * k, 7)).save(tmp_path / f"{k}.png")
    with pytest.raises(DataError, match="each is of one colour, or all are the same"):
        inspect_data(str(tmp_path), out=None)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No images in"):
        inspect_data(str(tmp_path), out=None)
    with pytest.raises(ConfigError, match=r"--out must be a file that ends in \.png"):
        inspect_data("mnist-5k", out=Path("data.jpg"))


def test_command(folder: Path, tmp_path: Path, logsnr: Run) -> None:
    end = logsnr("inspect", "data", folder, "--dry-run")
    assert end.status == 0, end.output
    assert "A beginning: logsnr train" in end.output
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]


_PEAKS = """
import resource, sys
from logsnr.studies.inspect_data import inspect_data
for source in sys.argv[1:]:
    inspect_data(source, resolution=200, out=None)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="Windows has none")
    side = np.linspace(0, 1, 200)
    few, many = (tmp_path / name for name in ("few", "many"))
    for folder, count in [(few, 60), (many, 360)]:
        folder.mkdir()
        for k in range(count):
            wave = 127 + 100 * np.sin(side[:, None] * (k % 7 + 1) + side * (k % 5 + 2))
            Image.fromarray(np.repeat(wave.astype(np.uint8)[..., None], 3, 2)).save(folder / f"{k}.png")
    ran = subprocess.run([sys.executable, "-c", _PEAKS, few, many], capture_output=True, text=True, check=True)
    before, after = map(int, ran.stdout.split())
    as_floats = 300 * 3 * 200 * 200 * 4  # of the 300 more
    assert after - before < as_floats / 2  # a quarter is what is kept of the files, in bytes, on disk
