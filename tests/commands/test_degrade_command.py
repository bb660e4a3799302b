"""`logsnr degrade` as a command: measurements in files, and what is refused before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Finished
from image_files import encoded, noise, png16
from PIL import Image

Run = Callable[..., Finished]
SMOOTH = np.linspace(80, 170, 16 * 24 * 3).reshape(16, 24, 3).astype(np.uint8)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Four pictures: RGB in a JPEG, RGBA, gray of 16 bits deeper in, and one whose sides aren't multiples of 4."""
    folder = tmp_path / "clean"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(SMOOTH).save(folder / "a.jpg", quality=95)
    Image.fromarray(np.dstack([SMOOTH, SMOOTH[..., 0]]), "RGBA").save(folder / "b.png")
    (folder / "deep" / "c.png").write_bytes(png16(noise(8, 12, 1, dtype=np.uint16)))
    (folder / "odd.png").write_bytes(encoded(Image.fromarray(noise(9, 9, 3))))
    return folder


def test_measurements_are_pngs_of_their_depth_and_what_cannot_be_done_is_said(
    clean: Path, tmp_path: Path, logsnr: Run
) -> None:
    out = tmp_path / "out"
    end = logsnr("degrade", clean, "--operator", "down 4 + noise 0.02", "--out", out)
    assert end.status == 1
    assert f"To restore: logsnr restore MODEL {out} --operator 'down 4 + noise 0.02' --out DIR" in end.output
    assert f"3 pictures in {out}, damaged by down 4 + noise 0.02" in end.output
    assert "1 picture wasn't done:" in end.message
    assert "odd.png" in end.message
    assert "multiples of 4" in end.message
    modes = {name: Image.open(out / name) for name in ("a.png", "b.png", "deep/c.png")}
    assert {name: (image.mode, image.size) for name, image in modes.items()} == {
        "a.png": ("RGB", (6, 4)),
        "b.png": ("RGBA", (6, 4)),
        "deep/c.png": ("I;16", (3, 2)),
    }
    shrunk = SMOOTH.reshape(4, 4, 6, 4, 3).mean((1, 3))
    error = np.asarray(modes["a.png"]) - shrunk
    assert 0.5 * 5.1 < error.std() < 1.5 * 5.1

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    logsnr("degrade", clean, "--operator", "down 4+noise 0.02", "--out", out)
    again = logsnr("degrade", clean / "b.png", "--operator", "down 4 + noise 0.02", "--out", out)
    assert "All 1 were done before." in again.output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == before
    end = logsnr("degrade", clean, "--operator", "down 4 + noise 0.03", "--out", out)
    assert "--operator was down 4 + noise 0.02, and is down 4 + noise 0.03" in end.message
    assert json.loads((out / "degrade.json").read_text())["files"]["deep/c.png"]["size"] == "12x8"


def test_a_file_has_its_own_noise_whatever_it_is_damaged_beside(clean: Path, tmp_path: Path, logsnr: Run) -> None:
    for out, given in (("one", [clean / "b.png"]), ("two", [clean / "a.jpg", clean / "b.png"])):
        assert logsnr("degrade", *given, "--operator", "noise 0.05", "--out", tmp_path / out).status == 0
    assert (tmp_path / "one" / "b.png").read_bytes() == (tmp_path / "two" / "b.png").read_bytes()


def test_hidden_pixels_are_black(clean: Path, tmp_path: Path, logsnr: Run) -> None:
    mask = np.zeros((16, 24), np.uint8)
    mask[4:8, 4:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = ("--operator", "mask", "--mask", tmp_path / "mask.png", "--out", tmp_path / "out")
    Image.fromarray(0 * mask).save(tmp_path / "black.png")
    for given, words in (
        ("black", "is it inverted, or transparent where you painted?"),
        ("none", "none.png can't be read: No such file"),
    ):
        argv = ("degrade", clean / "b.png", "--operator", "mask", "--mask", tmp_path / f"{given}.png", *options[-2:])
        assert words in logsnr(*argv).message
    assert not (tmp_path / "out").exists()
    end = logsnr("degrade", clean / "b.png", *options)
    assert f"--mask {tmp_path / 'mask.png'}" in end.output
    seen = np.asarray(Image.open(tmp_path / "out" / "b.png"))[..., :3]
    assert (seen == np.where(mask[..., None] > 0, 0, SMOOTH)).all()


def test_refusals_write_nothing(clean: Path, tmp_path: Path, logsnr: Run) -> None:
    out = tmp_path / "out"
    for argv, words in [
        ((clean, "--operator", "blurr 2", "--out", out), "error: --operator: there is no damage 'blurr'. Did you mean"),
        ((clean, "--operator", "radon 20", "--out", out), "radon makes no picture, so no picture file"),
        ((clean, "--operator", "rado 20", "--out", out), "no damage 'rado'. There are: none,"),
        ((clean, "--operator", "mask", "--out", out), "the step mask needs a picture"),
        ((clean, "--operator", "blur 2", "--mask", "m.png", "--out", out), 'Write "mask + blur 2", or leave it out.'),
        ((clean, "--operator", "none", "--out", clean), "--out must lie apart from the pictures that are read"),
        ((clean, "--operator", "none", "--out", clean / "x"), "--out must lie apart"),
        ((clean / "a.jpg", "--operator", "none", "--out", clean), "--out must lie apart"),
        (("nowhere", "--operator", "none", "--out", out), "There is no file or folder nowhere"),
        (("--operator", "none", "--out", out), "IN must be files or folders"),
    ]:
        assert words in logsnr("degrade", *argv).message
    assert not out.exists()

    out.mkdir()
    (out / "b.png").write_text("somebody's")
    assert "would write over: b.png" in logsnr("degrade", clean, "--operator", "none", "--out", out).message
    assert (out / "b.png").read_text() == "somebody's"
    assert sorted(path.name for path in out.iterdir()) in (["b.png"], [".lock", "b.png"])
