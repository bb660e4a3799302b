"""logsnr.data.images on tiny real images: what is said of a set, and what a batch holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import all_pixels, config, encoded, noise, png16, save_noise, tiff16
from PIL import Image

import logsnr.data.scan
from logsnr.base.errors import DataError
from logsnr.data.images import class_counts, open_images
from logsnr.data.seeded import Batch


def same(a: Batch, b: Batch) -> bool:
    labels = a.condition.keys() == b.condition.keys() and all(
        torch.equal(a.condition[k], b.condition[k]) for k in a.condition
    )
    return torch.equal(a.clean, b.clean) and torch.equal(a.positions, b.positions) and labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folder")
    for name in ("a", "b", "c"):
        save_noise(path / name, 7)
    return path


# 16 bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_16_bit_gradient_survives_bit_for_bit(tmp_path: Path, kind: str) -> None:
    gradient = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for i in range(2):
        Image.fromarray(gradient).save(tmp_path / f"{i}.{kind.lower()}", kind)
    data = open_images(config(tmp_path, 256, 1, held_out_fraction=0))
    assert data.examples.bits == 16
    assert (all_pixels(data)[0, :, :, 0] == gradient).all()
    images = next(data.in_order("train", 1)).clean
    assert (images.min(), images.max()) == (-1, 1)


def test_8_bit_files_in_a_16_bit_set_are_scaled_by_257(tmp_path: Path) -> None:
    shallow, deep = noise(8, 8), noise(8, 8, dtype=np.uint16)
    for name, pixels in {"a": shallow, "b": deep, "c": shallow}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    data = open_images(config(tmp_path, 8, 1, held_out_fraction=0))
    assert data.examples.bits == 16
    wanted = np.stack([shallow * np.uint16(257), deep, shallow * np.uint16(257)])
    assert (all_pixels(data)[..., 0] == wanted).all()


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bit_color_without_opencv_stops(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    save_noise(tmp_path, 2)
    pixels = noise(8, 8, 3, dtype=np.uint16)
    (tmp_path / name).write_bytes(png16(pixels) if name.endswith("png") else tiff16(pixels))
    for workers in (0, 1):
        with pytest.raises(DataError, match=rf"^{name} has 16 bits .* pip install logsnr\[deep-color\]$"):
            open_images(config(tmp_path, skip_unreadable=True, num_workers=workers))


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
        open_images(config(tmp_path, num_workers=workers))
    assert all(name in str(caught.value) for name in bad)

    data = open_images(config(tmp_path, skip_unreadable=True, num_workers=workers))
    assert [name.split(" (")[0] for name in data.examples.skipped] == bad
    assert len(data) + data.num_held_out == 4
    assert data.description == (
        "3 training and 1 held-out image, 8x8, RGB, 8 bit, no classes; 5 unreadable files skipped"
    )


def test_ten_unreadable_files_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    for i in range(13):
        (tmp_path / f"{i:02}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"13 of 13 .*09\.png \(empty file\) and 3 more\."):
        open_images(config(tmp_path))
    with pytest.raises(DataError, match="has 0 readable images, and at least 2"):
        open_images(config(tmp_path, skip_unreadable=True))


def test_labels_stay_with_their_images_when_files_are_skipped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_noise(tmp_path / name, 3)
    (tmp_path / "a" / "001.png").write_bytes(b"")
    data = open_images(config(tmp_path, skip_unreadable=True, held_out_fraction=0))
    assert next(data.in_order("train", 9)).condition["class_labels"].tolist() == [0, 0, 1, 1, 1]


def test_the_description_says_what_was_enlarged_and_why_a_set_is_deep(tmp_path: Path) -> None:
    save_noise(tmp_path / "a", 3)
    save_noise(tmp_path / "b", 2, (7, 30, 3))
    data = open_images(config(tmp_path))
    assert data.examples.num_enlarged == 2
    assert data.description.endswith("8x8, RGB, 8 bit, 2 classes; 2 smaller images enlarged")
    Image.fromarray(noise(9, 9, dtype=np.uint16)).save(tmp_path / "b" / "deep.png")
    data = open_images(config(tmp_path))
    assert "16 bit (since b/deep.png is), 2 classes; 2 smaller images enlarged" in data.description
    for path in [*tmp_path.glob("a/*.png"), *tmp_path.glob("b/00?.png")]:
        Image.fromarray(noise(8, 8, dtype=np.uint16)).save(path)
    assert open_images(config(tmp_path)).description.endswith("8x8, RGB, 16 bit, 2 classes")


# Batches


def test_each_image_is_in_one_part(folder: Path) -> None:
    data = open_images(config(folder, held_out_fraction=0.2))
    again = open_images(config(folder, held_out_fraction=0.2, horizontal_flip=True))
    assert (all_pixels(data, "held_out") == all_pixels(again, "held_out")).all()
    both = np.concatenate([all_pixels(data), all_pixels(data, "held_out")])
    assert len(np.unique(both, axis=0)) == 21
    counts = class_counts(data)
    assert counts == np.bincount(next(data.in_order("train", 99)).condition["class_labels"]).tolist()
    assert class_counts(open_images(config(folder), labelled=False)) is None


def test_labels_belong_to_images(folder: Path) -> None:
    data = open_images(config(folder, held_out_fraction=0))
    known = next(data.in_order("train", 99))
    batch = next(data.batches(seed=0, batch_size=40, start_step=2, num_steps=1))
    for image, label in zip(batch.clean, batch.condition["class_labels"], strict=True):
        (place,) = [i for i, other in enumerate(known.clean) if torch.equal(image, other)]
        assert known.condition["class_labels"][place] == label


def test_half_of_the_samples_are_mirrored(folder: Path) -> None:
    options = {"seed": 1, "batch_size": 400, "start_step": 0, "num_steps": 1}
    plain = next(open_images(config(folder)).batches(**options)).clean
    flipped = next(open_images(config(folder, horizontal_flip=True)).batches(**options)).clean
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
    memory = open_images(config(tmp_path, horizontal_flip=True))
    assert memory.examples.in_memory
    # Too small for the set at once, or only after its one 16-bit image is found.
    monkeypatch.setattr(logsnr.data.scan, "KEPT_LIMIT", 22 * 8 * 8 * 3 if deep else 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stream = open_images(config(tmp_path, horizontal_flip=True, num_workers=workers))
    assert not stream.examples.in_memory
    assert "read from disk" in stream.description
    assert (stream.fingerprint, stream.examples.bits) == (memory.fingerprint, 16 if deep else 8)
    torch.manual_seed(0)
    pairs = list(zip(memory.batches(**settings), stream.batches(**settings), strict=True))
    assert len(pairs) == 12
    assert all(same(a, b) for a, b in pairs)
    held_out = zip(memory.in_order("held_out", 2), stream.in_order("held_out", 2), strict=True)
    assert all(same(a, b) for a, b in held_out)
    drawn = torch.rand(())
    assert drawn == torch.rand((), generator=torch.Generator().manual_seed(0))  # loading leaves the global stream alone

    (tmp_path / "a" / "001.png").write_bytes(b"")  # one to train on
    with pytest.raises(DataError, match=r"^An image can't be read any more .*a/001\.png \(empty file\)"):
        list(stream.batches(**settings))


def test_the_fingerprint_follows_the_content(folder: Path, tmp_path: Path) -> None:
    def fingerprint(**more: Any) -> str:
        return open_images(config(tmp_path, **more)).fingerprint

    for path in folder.rglob("*.png"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    original = fingerprint()
    assert original == open_images(config(folder)).fingerprint
    assert fingerprint(resolution=4) != original
    assert open_images(config(tmp_path), labelled=False).fingerprint != original
    (tmp_path / "a" / "000.png").rename(tmp_path / "b" / "000_from_a.png")
    assert fingerprint() != original
    (tmp_path / "b" / "000_from_a.png").rename(tmp_path / "a" / "000.png")
    assert fingerprint() == original
    pixels = np.array(Image.open(tmp_path / "a" / "000.png"))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "a" / "000.png")
    assert fingerprint() != original
