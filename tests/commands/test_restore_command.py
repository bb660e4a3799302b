"""`logsnr restore` as a command: what is kept of files, what is refused, and that it goes on where it was cut off."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Command, Finished
from image_files import encoded, noise, png16, tiff16
from PIL import Image
from tiny_unet import tiny_unet

from logsnr.data.picture_files import read_picture
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.repair.plan import names_of
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler

Run = Callable[..., Finished]
QUICK = ("--method", "diffpir", "--steps", "2")


def model(folder: Path, channels: int, classes: int | None = None) -> Path:
    pipeline = PixelDiffusionPipeline(tiny_unet(classes, channels), CosineBetaScheduler())
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of RGB pictures, 8x8."""
    return model(tmp_path_factory.mktemp("models") / "colour", 3)


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of gray pictures, 8x8, in two classes."""
    return model(tmp_path_factory.mktemp("models") / "gray", 1, classes=2)


FILES = {
    "a.jpg": encoded(Image.fromarray(noise(12, 17, 3)), "JPEG"),
    "alpha.png": encoded(Image.fromarray(noise(8, 8, 4), "RGBA")),
    "deep.png": png16(noise(8, 8, 1, dtype=np.uint16)),
    "colour.tif": tiff16(noise(9, 8, 3, dtype=np.uint16)),
    "gray.bmp": encoded(Image.fromarray(noise(8, 8, 1)[..., 0]), "BMP"),
    "inner/palette.png": encoded(Image.fromarray(noise(8, 8, 3)).quantize(16)),
    "w.webp": encoded(Image.fromarray(noise(8, 10, 3)), "WEBP", lossless=True),
}


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A file of each kind, one of 12x17 pixels, and one that is too small."""
    folder = tmp_path / "damaged"
    (folder / "inner").mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    Image.fromarray(noise(4, 9, 3)).save(folder / "small.png")
    return folder


def stamps(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_size_depth_and_format_are_kept(colour: Path, damaged: Path, tmp_path: Path, logsnr: Run) -> None:
    out = tmp_path / "out"
    argv = ("restore", colour, damaged, "--operator", "noise 0.1", *QUICK, "--samples", "2", "--out", out)
    end = logsnr(*argv)
    assert end.status == 1
    assert f"7 pictures in {out}, restored by diffpir from noise 0.1." in end.output
    assert "Restoring 7 of 8 pictures (1 can't be restored): 56 evaluations of the network at most, 2 a" in end.output
    assert end.output.index("small.png is 9x4") < end.output.index("a.jpg: 17x12")
    assert "a.jpg: 17x12, fit " in end.output
    assert "small.png is 9x4, smaller than the 8x8 of the model. Lay it on a larger canvas" in end.message
    written = {name for file in FILES for name in names_of(file, 2)}
    assert "inner/palette-sample-2.png" in written
    assert set(stamps(out)) - {".lock", "restore.json"} == written
    for name in FILES:
        before, after = read_picture(damaged / name), read_picture(out / name)
        assert (before.size, before.bits, before.format) == (after.size, after.bits, after.format), name
        assert len(before.color) == len(after.color), name
        assert not bool((before.color == after.color).all())
        spread = read_picture(out / names_of(name, 2)[-1])
        assert (spread.size, spread.bits, len(spread.color)) == (before.size, 16, 1)
    alpha = [np.asarray(Image.open(folder / "alpha.png"))[..., 3] for folder in (damaged, out)]
    assert (alpha[0] == alpha[1]).all()
    record = json.loads((out / "restore.json").read_text())
    assert record["request"]["operator"] == "noise 0.1"
    assert len(record["files"]["a.jpg"]["fit"]) == 2

    before = stamps(out)
    end = logsnr(*argv)
    assert f"7 pictures in {out}" in end.output
    assert "0%|" not in end.output
    assert {name: t for name, t in stamps(out).items() if name != ".lock"} == {
        n: t for n, t in before.items() if n != ".lock"
    }
    assert "--method was diffpir, and is gibbs" in logsnr(*argv, "--method", "gibbs").message


def test_cut_off_it_goes_on_and_ends_the_same(colour: Path, tmp_path: Path, logsnr: Run) -> None:
    (tmp_path / "in").mkdir()
    for k in range(6):
        Image.fromarray(noise(20, 20 + k, 3)).save(tmp_path / "in" / f"{k}.png")
    argv = ["restore", colour, "in", "--operator", "noise 0.1", "--method", "diffpir", "--steps", "20", "--out"]
    assert logsnr(*argv, "whole").status == 0

    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        command = Command(tmp_path / "log.txt", [str(word) for word in [*argv, "cut"]])
        done = len(list((tmp_path / "cut").glob("*.png")))
        command.wait_until(lambda done=done: len(list((tmp_path / "cut").glob("*.png"))) > done)  # type: ignore[misc]
        command.send(number)
        end = command.wait()
        assert end.status == status
        assert "Traceback" not in end.output
        said = "Interrupted. What is finished is kept; the same command goes on." in end.output
        assert said == (number != signal.SIGKILL)
    kept = stamps(tmp_path / "cut")
    assert 3 <= sum(name.endswith(".png") for name in kept) < 6
    done = sum(entry["done"] for entry in json.loads((tmp_path / "cut" / "restore.json").read_text())["files"].values())
    words = f"{6 - done} of 6 pictures ({done} were done before)"
    assert f"Would restore {words} into cut, " in logsnr(*argv, "cut", "--dry-run").output
    assert f"Restoring {words}: " in logsnr(*argv, "cut").output
    assert stamps(tmp_path / "cut")["0.png"] == kept["0.png"]
    for k in range(6):
        assert (tmp_path / "cut" / f"{k}.png").read_bytes() == (tmp_path / "whole" / f"{k}.png").read_bytes()


def test_what_is_under_the_mask_does_not_matter(colour: Path, tmp_path: Path, logsnr: Run) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 3:6] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    picture = noise(8, 8, 3)
    results = []
    for k, paint in enumerate((0, 255)):
        (tmp_path / f"in{k}").mkdir()
        Image.fromarray(np.where(mask[..., None] > 0, paint, picture).astype(np.uint8)).save(
            tmp_path / f"in{k}" / "a.png"
        )
        options = ("--operator", "mask + noise 0.02", "--mask", "mask.png", "--steps", "2", "--out", f"out{k}")
        assert logsnr("restore", colour, f"in{k}", *options).status == 0
        results.append((tmp_path / f"out{k}" / "a.png").read_bytes())
    assert results[0] == results[1]
    Image.fromarray(mask[:5]).save(tmp_path / "mask.png")
    options = ("--operator", "mask", "--mask", "mask.png", "--out", "other")
    assert "mask must have the picture's size, 8x8, and has 8x5" in logsnr("restore", colour, "in0", *options).message
    Image.fromarray(0 * mask).save(tmp_path / "mask.png")
    assert "hides none. White is hidden" in logsnr("restore", colour, "in0", *options).message


def test_a_gray_picture_becomes_four_times_as_large_or_coloured(colour: Path, tmp_path: Path, logsnr: Run) -> None:
    Image.fromarray(noise(4, 6, 1)[..., 0]).save(tmp_path / "a.png")
    for text, out in (("down 4 + noise 0.05", "large"), ("gray + down 2 + noise 0.05", "coloured")):
        assert logsnr("restore", colour, "a.png", "--operator", text, *QUICK, "--out", out).status == 0
    large, coloured = (Image.open(tmp_path / out / "a.png") for out in ("large", "coloured"))
    assert (large.mode, large.size) == ("L", (24, 16))
    assert (coloured.mode, coloured.size) == ("RGB", (12, 8))


def test_dry_run_and_check_write_nothing(gray: Path, tmp_path: Path, logsnr: Run) -> None:
    Image.fromarray(noise(8, 20, 1)[..., 0]).save(tmp_path / "a.png")
    argv = ("restore", gray, "a.png", "--operator", "blur 1 + noise 0.1", "--steps", "5", "--class-label", "1")
    end = logsnr(*argv, "--guidance-scale", "2", "--out", "out", "--dry-run", "--check")
    assert end.status == 0
    assert "Would restore 1 of 1 picture into out, 20x8, by moment from blur 1 + noise 0.1." in end.output
    assert "a draw x 1 draw a picture x 3 tiles of 8x8." in end.output
    assert "Check: " in end.output
    assert " On Gaussian pictures of 1x8x8 whose answer is known, the mean of 64 draws by moment" in end.output
    assert not (tmp_path / "out").exists()


def test_refusals(colour: Path, gray: Path, tmp_path: Path, logsnr: Run) -> None:
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    noisy = ("--operator", "noise 0.1", "--out", "out")
    for argv, words in [
        ((colour, "a.png", "--operator", "noise 25", "--out", "out"), "black is 0 and white is 1, and is '25'."),
        ((colour, "a.png", *noisy, "--method", "momnt"), "--method must be one of moment, particles, diffpir"),
        ((colour, "a.png", *noisy, "--steps", "0"), "--steps must be at least 1, and is 0."),
        ((colour, "a.png", *noisy, "--guidance-scale", "2"), "--guidance-scale needs a class"),
        ((colour, "a.png", *noisy, "--class-label", "1"), "needs a model with classes"),
        ((gray, "a.png", *noisy, "--class-label", "7"), "--class-label has 7, which is no class. Classes: 0 to 1."),
        ((colour, "b.png", *noisy, "--dry-run"), "none of 1 files can be restored:"),
        ((gray, "a.png", *noisy), "a.png: the model is of gray pictures, and this one has colours. Save it as gray"),
        ((gray, "a.png", "--operator", "gray", "--out", "out"), "--operator: gray needs a model of RGB pictures, and"),
        ((colour, "a.png", "--operator", "gray", "--out", "out"), "a.png: the operator says gray, and this one has"),
        ((colour, "b.png", *noisy), "b.png can't be read"),
        ((colour, "a.png", "--operator", "jpeg 10", "--out", "out"), "--method must be diffpir, dps or gibbs for jpeg"),
        ((colour, "a.png", *noisy, "--method", "repaint"), "--method repaint is for mask, missing and box alone, and"),
        ((tmp_path / "nothing", "a.png", *noisy), "nothing"),
    ]:
        assert words in logsnr("restore", *argv).message, words
    assert not list((tmp_path / "out").glob("*.png"))


def test_what_cannot_be_read_is_named_and_the_rest_is_done(colour: Path, tmp_path: Path, logsnr: Run) -> None:
    folder = tmp_path / "in"
    (folder / "folder.png").mkdir(parents=True)
    Image.fromarray(noise(8, 8, 3)).save(folder / "a.png")
    (folder / "empty.png").touch()
    (folder / "link.png").symlink_to(tmp_path / "gone.png")
    for command in (("restore", colour, "in", *QUICK), ("degrade", "in")):
        out = f"{command[0]}d"
        end = logsnr(*command, "--operator", "noise 0.1", "--out", out)
        assert f"1 picture in {out}, " in end.output
        assert end.message.splitlines() == [
            "error: 2 pictures weren't done:",
            "  in/empty.png can't be read: empty file. Mend it, or give another.",
            f"  in/link.png can't be read: it is a link to {tmp_path / 'gone.png'}, which isn't there. "
            "Mend it, or give another.",
        ]
    end = logsnr("restore", colour, "in", "--operator", "noise 0.1", "--out", "other", "--dry-run")
    assert "in/link.png can't be read" in end.output
    long = "x" * 300
    for argv in (("restore", colour, long), ("degrade", long)):
        end = logsnr(*argv, "--operator", "none", "--out", "other")
        assert f"error: {long} can't be read: File name too long. Mend it" in end.message
    assert not (tmp_path / "other").exists()


def test_results_below_a_folder_are_no_pictures_to_restore(colour: Path, tmp_path: Path, logsnr: Run) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "in" / "a.png")
    rest = ("--operator", "noise 0.1", *QUICK, "--out")
    assert logsnr("restore", colour, "in/a.png", *rest, "in/made").status == 0
    end = logsnr("restore", colour, "in", *rest, "out")
    assert "1 picture in out" in end.output
    assert "All 1 were done before." in logsnr("restore", colour, "in", *rest, "out").output
