"""logsnr.data.pixels: a file to pixels of one size, in their own depth."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from image_files import encoded, noise, png16, tiff16
from PIL import Image, ImageOps, PngImagePlugin

from logsnr.data.pixels import decode, fit

# From a file to pixels


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_in_every_number_of_channels(mode: str, channels: int) -> None:
    if mode == "I;16":
        image = Image.fromarray(noise(6, 6, dtype=np.uint16))
    elif mode in ("LA", "RGBA"):
        image = Image.fromarray(noise(6, 6, len(mode)), mode=None)
    else:
        image = Image.fromarray(noise(6, 6, 3)).convert(mode)
    pixels = decode(encoded(image), "x.png").pixels
    result = fit(pixels, 6, channels)
    assert result.shape == (channels, 6, 6)
    assert result.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    if mode == "I;16":
        assert (result[0] == np.asarray(image)).all()
    elif channels == 4:
        assert (result.transpose(1, 2, 0) == np.asarray(image.convert("RGBA"))).all()
    elif mode not in ("LA", "RGBA"):
        wanted = np.asarray(image.convert({1: "L", 3: "RGB"}[channels])).reshape(6, 6, channels)
        assert (result.transpose(1, 2, 0) == wanted).all()
    if channels == 4 and mode not in ("LA", "RGBA"):
        assert (result[3] == np.iinfo(result.dtype).max).all()


def test_cmyk_and_gif() -> None:
    cmyk = Image.fromarray(noise(6, 6, 3)).convert("CMYK")
    assert (decode(encoded(cmyk, "TIFF"), "x.tif").pixels == np.asarray(cmyk.convert("RGB"))).all()
    first, second = (Image.fromarray(np.full((6, 6, 3), v, np.uint8)) for v in (40, 200))
    assert (decode(encoded(first, "GIF", save_all=True, append_images=[second]), "x.gif").pixels[..., 0] == 40).all()


def test_transparent_palette_color_is_laid_over_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    pixels = fit(decode(encoded(image, transparency=0), "x.png").pixels, 4, 3)
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert pixels[:, 0, 1].tolist() == [40, 50, 60]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_over_white(dtype: Any) -> None:
    white = np.iinfo(dtype).max
    pixels = noise(4, 4, 4, dtype=dtype)
    pixels[0, 0, 3], pixels[0, 1, 3] = 0, white
    result = fit(pixels, 4, 3).transpose(1, 2, 0)
    assert result[0, 0].tolist() == [white] * 3
    assert (result[0, 1] == pixels[0, 1, :3]).all()
    alpha = pixels[..., 3:] / white
    assert (result == np.rint(pixels[..., :3] * alpha + white * (1 - alpha))).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparent_pixels_do_not_bleed(dtype: Any) -> None:
    """A red disc on transparent green has no green after resizing, and red of full strength wherever it shows."""
    white = np.iinfo(dtype).max
    y, x = np.mgrid[-16:16, -16:16]
    disc = (x**2 + y**2 < 120)[..., None]
    pixels = np.where(disc, np.array([white, 0, 0, white]), np.array([0, white, 0, 0])).astype(dtype)
    result = fit(pixels, 10, 4)
    assert 0 < (result[3] > 0).sum() < 100
    assert (result[1] == 0).all()
    assert (result[0][result[3] > 0] >= white - 1).all()  # of colour times alpha, mode F keeps 24 bits


def test_resizing_the_short_side_and_cropping_the_center() -> None:
    image = Image.fromarray(noise(16, 40, 3) // 2 + 64)  # grays that the filter's overshoot doesn't carry past 0 or 255
    wanted = np.asarray(image.resize((20, 8), Image.Resampling.BICUBIC))[:, 6:14]
    assert (fit(np.asarray(image), 8, 3).transpose(1, 2, 0) == wanted).all()
    assert (fit(np.asarray(image), 16, 3).transpose(1, 2, 0) == np.asarray(image)[:, 12:28]).all()
    deep = np.asarray(image).astype(np.uint16) * 257
    # 8 bit is rounded after each of two passes: half a level, and half a level times the filter's absolute sum of 1.3
    assert np.abs(fit(deep, 8, 3).transpose(1, 2, 0) / 257 - wanted).max() < 1.2
    constant = np.full((17, 23, 1), 40000, np.uint16)
    assert (fit(constant, 8, 1) == 40000).all()
    assert fit(noise(3, 5, 1), 8, 1).shape == (1, 8, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(Image.fromarray(noise(3, 5, 3)), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    assert (decode(data, "x").pixels == wanted).all()


# 16 bits


def test_gray_tiffs_of_32_bits() -> None:
    values = np.array([[0, 70], [300, 65535]], np.int32)
    assert (decode(encoded(Image.fromarray(values), "TIFF"), "x").pixels[..., 0] == values).all()
    with pytest.raises(ValueError, match=r"from -1 to 5, only \[0, 65535\]"):
        decode(encoded(Image.fromarray(np.array([[-1, 5]], np.int32)), "TIFF"), "x")
    floats = np.array([[0, 0.25], [0.5, 1]], np.float32)
    assert decode(encoded(Image.fromarray(floats), "TIFF"), "x").pixels[..., 0].tolist() == [[0, 16384], [32768, 65535]]
    for bad in (255.0, -0.1, np.nan):
        with pytest.raises(ValueError, match="floating-point"):
            decode(encoded(Image.fromarray(np.array([[0, bad]], np.float32)), "TIFF"), "x")


def test_16_bit_gray_where_white_is_zero() -> None:
    pixels = noise(3, 4, 1, dtype=np.uint16)
    assert (decode(tiff16(pixels, photometric=0), "x").pixels == 65535 - pixels).all()
    assert (decode(tiff16(pixels, photometric=1), "x").pixels == pixels).all()


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_color_png_through_opencv(channels: int) -> None:
    pytest.importorskip("cv2")
    pixels = noise(5, 4, channels, dtype=np.uint16)
    wanted = pixels[..., [0, 0, 0, 1]] if channels == 2 else pixels
    assert (decode(png16(pixels), "x.png").pixels == wanted).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_color_tiff_through_opencv(orientation: int) -> None:
    pytest.importorskip("cv2")
    pixels = noise(3, 4, 3, dtype=np.uint16)
    shallow = Image.fromarray((pixels >> 8).astype(np.uint8))
    shallow.getexif()[274] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(shallow))
    assert (decode(tiff16(pixels, orientation), "x.tif").pixels >> 8 == wanted).all()


# Files that aren't pixels alone, and files that are no images


def test_texts_and_profiles_of_any_size_do_not_matter() -> None:
    pixels = noise(6, 5, 3)
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * 3_000_000, zip=True)
    for more in ({"icc_profile": bytes(3_000_000)}, {"pnginfo": text}):
        assert (decode(encoded(Image.fromarray(pixels), **more), "x.png").pixels == pixels).all()


def test_damaged_exif_data_do_not_matter() -> None:
    pixels = np.full((8, 8, 3), 90, np.uint8)
    for kind in ("PNG", "JPEG", "WEBP"):
        damaged = encoded(Image.fromarray(pixels), kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
        assert abs(decode(damaged, "x").pixels.astype(int) - 90).max() <= 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff16(noise(4, 4, 5, dtype=np.uint16)), "a TIFF of 5 channels, 16 bits each"),
        (tiff16(noise(4, 4, 2, dtype=np.uint16)), "a TIFF of 2 channels, 16 bits each"),
        (b"II*\0\x08\0\0\0", "a damaged TIFF"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"<!DOCTYPE html>", "a page of a web site"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n and then nothing", "a damaged PNG"),
        (b"words", "not an image"),
    ],
)
def test_what_cannot_be_opened_is_called_what_it_is(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(content, "x")


def test_the_largest_images_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(ValueError, match="more than 2 million pixels: save it smaller"):
        decode(encoded(Image.new("1", (2000, 1001))), "x")
