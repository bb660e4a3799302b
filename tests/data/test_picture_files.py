"""logsnr.data.picture_files: a file is written back in its size, depth and format, and names nobody."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import encoded, noise, png16, tiff16
from PIL import Image, ImageCms

from logsnr.base.errors import DataError
from logsnr.data.picture_files import Picture, picture_files, read_mask, read_picture, write_picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SMOOTH = np.linspace(40, 200, 16 * 24 * 3).reshape(16, 24, 3).astype(np.uint8)


def image(mode: str) -> Image.Image:
    picture = Image.fromarray(noise(6, 9, 4), "RGBA")
    return picture.quantize(8) if mode == "P" else picture.convert(mode)


def read(path: Path, data: bytes) -> Picture:
    path.write_bytes(data)
    return read_picture(path)


def round_trip(tmp_path: Path, name: str, data: bytes) -> tuple[Picture, Picture]:
    before = read(tmp_path / name, data)
    write_picture(tmp_path / f"new-{name}", before.color, before.alpha, before)
    return before, read_picture(tmp_path / f"new-{name}")


CASES = {
    **{f"{mode}.png": encoded(image(mode)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    **{f"{mode}.tif": encoded(image(mode), "TIFF") for mode in ("L", "RGB", "RGBA")},
    **{f"{mode}.bmp": encoded(image(mode), "BMP") for mode in ("L", "RGB", "RGBA")},
    **{f"{mode}.webp": encoded(image(mode), "WEBP", lossless=True) for mode in ("RGB", "RGBA")},
    **{f"deep{c}.png": png16(noise(6, 9, c, dtype=np.uint16)) for c in (1, 3, 4)},
    **{f"deep{c}.tif": tiff16(noise(6, 9, c, dtype=np.uint16), photometric=1 if c == 1 else 2) for c in (1, 3, 4)},
}


@pytest.mark.parametrize("name", CASES)
def test_lossless_files_come_back_to_the_bit(name: str, tmp_path: Path) -> None:
    before, after = round_trip(tmp_path, name, CASES[name])
    assert before.size == "9x6"
    assert before.bits == (16 if name.startswith("deep") else 8)
    assert before.format == after.format
    assert before.bits == after.bits
    assert torch.equal(before.color, after.color)
    assert (before.alpha is None) == (after.alpha is None)
    assert before.alpha is None or torch.equal(before.alpha, torch.as_tensor(after.alpha))


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.webp", "WEBP")])
def test_lossy_files_lose_little(name: str, kind: str, tmp_path: Path) -> None:
    before, after = round_trip(tmp_path, name, encoded(Image.fromarray(SMOOTH), kind, quality=95))
    assert (before.format, before.size) == (after.format, after.size)
    assert float((before.color - after.color).abs().mean()) < 0.01
    assert not after.lossless


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.jpg", "a.tif", "deep.tif", "a.webp"])
def test_the_profile_is_kept_where_it_fits_and_exif_is_not(name: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[270], exif[274] = "a portrait of Ada", 6  # turned by a quarter
    kind = {"jpg": "JPEG", "tif": "TIFF", "webp": "WEBP"}.get(name.split(".")[1], "PNG")
    data = encoded(Image.fromarray(SMOOTH), kind, icc_profile=SRGB, exif=exif)
    before = read(tmp_path / "in", data)
    assert before.size == "16x24"  # upright
    before = Picture(before.color, None, kind, 16 if "deep" in name else 8, before.profile, False)
    write_picture(tmp_path / name, before.color, None, before)
    written = (tmp_path / name).read_bytes()
    with Image.open(io.BytesIO(written)) as after:
        assert after.size == (16, 24)
        assert after.info["icc_profile"] == SRGB
        assert 270 not in after.getexif()
        assert after.getexif().get(274, 1) == 1
    assert b"Ada" not in written
    write_picture(tmp_path / name, before.color[:1], None, before)  # gray, which a profile of colours doesn't fit
    assert read_picture(tmp_path / name).profile is None


def test_what_cannot_be_written_back_is_refused(tmp_path: Path) -> None:
    several = encoded(image("RGB"), "TIFF", save_all=True, append_images=[image("RGB")])
    for name, data, words in [
        ("a.gif", encoded(image("P"), "GIF"), "is a GIF, which holds 256 colours at most. Save it as PNG."),
        ("a.tif", several, "several pages or frames. Save the one"),
        ("a.png", b"\x89PNG\r\n\x1a\nxx", "a.png can't be read"),
        ("b.png", b"", "empty file"),
    ]:
        with pytest.raises(DataError, match=words):
            read(tmp_path / name, data)


def test_white_is_to_be_repaired(tmp_path: Path) -> None:
    painted = np.zeros((4, 5, 4), np.uint8)
    painted[..., 3] = 255
    painted[1, 2] = painted[3, 0] = 255
    painted[0, 4] = (255, 255, 255, 0)  # white that nobody sees
    Image.fromarray(painted).save(tmp_path / "mask.png")
    assert (~read_mask(tmp_path / "mask.png")).nonzero().tolist() == [[1, 2], [3, 0]]


def test_folders_are_searched_at_any_depth_and_names_are_once(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/deep/y.jpg", "a/notes.txt", "b/x.png", "a/.hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = picture_files([tmp_path / "a", tmp_path / "a" / "x.png"], "made.json")
    assert found == {"deep/y.jpg": tmp_path / "a/deep/y.jpg", "x.png": tmp_path / "a/x.png"}
    with pytest.raises(DataError, match=r"have one name.*: x.png\. Give them in two commands"):
        picture_files([tmp_path / "a", tmp_path / "b" / "x.png"], "made.json")
    with pytest.raises(DataError, match="There is no file or folder"):
        picture_files([tmp_path / "c"], "made.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="No pictures in"):
        picture_files([tmp_path / "empty"], "made.json")
