"""logsnr.data.scan: what is read again when a set is opened again, and what becomes of it when the cache misbehaves.

That a file isn't read is seen by forging it: its content is exchanged and its size and time of change are put back, so
that whoever reads it sees other pixels.
"""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import all_pixels, config, encoded, noise, save_noise
from PIL import Image

import logsnr.data.scan
from logsnr.data.images import ImageData, open_images
from logsnr.data.scan import FittedImages, scan
from logsnr.data.sources import open_source
from logsnr.folders.cache import cache_folder

SETTLED = 1_600_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Six images of noise in two classes, written long ago."""
    for name in "ab":
        save_noise(tmp_path / "set" / name, 3)
    paths = sorted((tmp_path / "set").rglob("*.png"))
    for path in paths:
        settle(path)
    return paths


def settle(path: Path) -> None:
    os.utime(path, (SETTLED, SETTLED))


def opened(files: list[Path], **more: Any) -> ImageData:
    return open_images(config(files[0].parents[1], held_out_fraction=0, **more))


def write(path: Path, pixels: np.ndarray, size: int = 0) -> None:
    """As a PNG, of that many bytes if those are more than it needs."""
    path.write_bytes(encoded(Image.fromarray(pixels)).ljust(size, b"\0"))


def forge(path: Path) -> None:
    """Other pixels in as many bytes, and no trace of it."""
    before = path.stat()
    path.write_bytes(encoded(Image.fromarray(np.full((8, 8, 3), 7, np.uint8))).ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def afresh(files: list[Path], **more: Any) -> str:
    """The fingerprint without a cache."""
    shutil.rmtree(cache_folder(), ignore_errors=True)
    return opened(files, **more).fingerprint


# What is read again


@pytest.mark.parametrize("workers", [0, 1])
def test_a_second_opening_reads_nothing(files: list[Path], workers: int) -> None:
    first = opened(files)
    for path in files:
        forge(path)
    again = opened(files, num_workers=workers)
    assert (all_pixels(again) == all_pixels(first)).all()
    assert (again.fingerprint, again.description) == (first.fingerprint, first.description)
    assert afresh(files) != first.fingerprint


def test_what_changed_is_read_alone(files: list[Path]) -> None:
    first = all_pixels(opened(files))
    original = opened(files).fingerprint
    old, new = files[1].read_bytes(), noise(8, 8, 3)
    forge(files[0])
    write(files[1], new)
    changed = opened(files)
    assert (all_pixels(changed) == np.stack([first[0], new, *first[2:]])).all()

    write(files[0].with_name("new.png"), new)
    files[5].unlink()
    moved = opened(files)
    assert (all_pixels(moved) == np.stack([first[0], new, first[2], new, *first[3:5]])).all()

    write(files[5], first[5].astype(np.uint8))
    files[0].with_name("new.png").unlink()
    files[1].write_bytes(old)
    assert opened(files).fingerprint == original


def test_the_fingerprint_is_that_of_a_reading_without_the_cache(files: list[Path]) -> None:
    kept = [opened(files).fingerprint]
    write(files[1], noise(9, 9, 3))
    kept.append(opened(files).fingerprint)
    write(files[2], noise(8, 8, dtype=np.uint16))  # all others count as 16 bits from now on
    kept.append(opened(files).fingerprint)
    files[3].unlink()
    kept.append(opened(files).fingerprint)
    assert kept[-1] == afresh(files)
    assert len(set(kept)) == 4


def test_depths_may_change(files: list[Path]) -> None:
    shallow = all_pixels(opened(files))
    deep = noise(8, 8, 3).astype(np.uint16)[..., 0]
    before = files[4].read_bytes()
    write(files[4], deep)
    data = opened(files)
    assert data.examples.bits == 16
    assert "since b/001.png is" in data.description
    wanted = shallow * 257
    wanted[4] = deep[..., None]
    assert (all_pixels(data) == wanted).all()
    assert (all_pixels(opened(files)) == wanted).all()
    files[4].write_bytes(before)
    assert (all_pixels(opened(files)) == shallow).all()


def test_sizes_are_kept_apart(files: list[Path]) -> None:
    large, small, gray = opened(files), opened(files, resolution=4), opened(files, channels=1)
    for path in files:
        forge(path)
    for data, more in ((large, {}), (small, {"resolution": 4}), (gray, {"channels": 1})):
        assert (all_pixels(opened(files, **more)) == all_pixels(data)).all()


def test_a_file_written_just_before_the_opening_is_looked_at_again(files: list[Path]) -> None:
    """Within the steps of a file system's clock it may be written again without its time of change showing it."""
    write(files[0], noise(8, 8, 3), size=400)
    first = opened(files).fingerprint
    forge(files[0])
    second = opened(files)
    assert second.fingerprint != first
    assert second.fingerprint == afresh(files)


def test_a_file_touched_is_the_same_image(files: list[Path]) -> None:
    first = opened(files).fingerprint
    os.utime(files[0], (SETTLED + 99, SETTLED + 99))
    assert opened(files).fingerprint == first
    forge(files[0])  # the new time was noted
    assert opened(files).fingerprint == first


def test_unreadable_files_are_remembered_with_the_reason(files: list[Path]) -> None:
    good = files[1].read_bytes()
    files[1].write_bytes(b"x" * len(good))
    settle(files[1])
    first = opened(files, skip_unreadable=True)
    assert first.examples.skipped == ["a/001.png (not an image)"]
    files[1].write_bytes(good)
    settle(files[1])
    assert opened(files, skip_unreadable=True).examples.skipped == first.examples.skipped
    write(files[4], noise(8, 8, 3))
    assert opened(files, skip_unreadable=True).examples.skipped == first.examples.skipped
    os.utime(files[1])
    assert opened(files).examples.skipped == []


def test_files_that_were_missing_are_found(files: list[Path]) -> None:
    names = [path.relative_to(files[0].parents[1]) for path in files]
    (files[0].parents[1] / "metadata.csv").write_text("file_name\n" + "".join(f"{name}\n" for name in names))
    content = files[2].read_bytes()
    files[2].unlink()
    for _ in range(2):
        (reason,) = opened(files, skip_unreadable=True).examples.skipped
        assert "No such file" in reason
    files[2].write_bytes(content)
    assert len(opened(files)) == 6


def test_a_set_too_large_to_be_kept_is_not_read_until_something_changes(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = afresh(files)
    monkeypatch.setattr(logsnr.data.scan, "KEPT_LIMIT", 6 * 8 * 8 * 3 - 1)
    large = afresh(files)
    assert large == kept
    content = files[0].read_bytes()
    forge(files[0])
    again = opened(files)
    assert again.fingerprint == kept
    assert not again.examples.in_memory
    assert (all_pixels(again)[0] == 7).all()  # batches come from the files
    files[0].write_bytes(content)
    write(files[1], noise(8, 8, 3))
    changed = opened(files).fingerprint
    assert changed != kept
    assert changed == afresh(files)


# Tables


def test_a_table_is_read_once_until_its_files_change(tmp_path: Path) -> None:
    import datasets

    def save(pixels: np.ndarray) -> None:
        shutil.rmtree(tmp_path / "table", ignore_errors=True)
        cells = [{"bytes": encoded(Image.fromarray(image)), "path": None} for image in pixels]
        features = datasets.Features({"image": datasets.Image()})
        datasets.Dataset.from_dict({"image": cells}, features=features).save_to_disk(str(tmp_path / "table"))

    def reading() -> Any:
        source = open_source(config(tmp_path / "table"), labelled=False).images
        return scan(FittedImages(source, 8, 3), 0)

    save(noise(4, 8, 8, 3))
    (arrow,) = (tmp_path / "table").glob("*.arrow")
    settle(arrow)
    first = reading()
    assert reading().time == first.time  # that reading, not one of now
    save(noise(4, 8, 8, 3))
    second = reading()
    assert second.time != first.time
    assert second.digest != first.digest


def test_a_table_of_paths_follows_the_files(tmp_path: Path, files: list[Path]) -> None:
    import datasets
    import pyarrow

    table = datasets.Dataset.from_dict({"image": [str(path) for path in files]}).cast_column("image", datasets.Image())
    table.save_to_disk(str(tmp_path / "table"))
    (arrow,) = (tmp_path / "table").glob("*.arrow")  # which has the images themselves now: some from the Hub haven't
    with pyarrow.ipc.new_stream(str(arrow), table.data.schema) as stream:
        stream.write_table(table.data.table)
    settle(arrow)
    first = all_pixels(open_images(config(tmp_path / "table", held_out_fraction=0)))
    new = noise(8, 8, 3)
    write(files[3], new)
    forge(files[2])
    first[3] = new
    assert (all_pixels(open_images(config(tmp_path / "table", held_out_fraction=0))) == first).all()


# The cache


def test_the_cache_may_vanish_at_any_time(files: list[Path], cache: Path) -> None:
    data = opened(files)
    pixels, fingerprint = all_pixels(data), data.fingerprint
    shutil.rmtree(cache)
    assert (all_pixels(data) == pixels).all()
    assert opened(files).fingerprint == fingerprint
    data = opened(files)
    write(files[0], noise(8, 8, 3))
    opened(files)  # another file takes the place of the one that is mapped
    assert (all_pixels(data) == pixels).all()


def test_images_that_vanish_while_training_are_not_missed(files: list[Path]) -> None:
    data = opened(files)
    pixels = all_pixels(data)
    for path in files:
        path.unlink()
    assert (all_pixels(data) == pixels).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-30],
        lambda b: b"",
        lambda b: b[100:],
        lambda b: b[:-1] + b"?",
        lambda b: b[:-600] + bytes(400) + b[-200:],
    ],
)
def test_a_damaged_file_is_as_good_as_none(files: list[Path], cache: Path, damage: Any) -> None:
    fingerprint = opened(files).fingerprint
    (kept,) = (cache / "images").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert opened(files).fingerprint == fingerprint
    assert len(kept.read_bytes()) == len(whole)


def test_a_cache_that_cannot_be_written_is_said_and_done_without(files: list[Path], cache: Path) -> None:
    fingerprint = afresh(files)
    shutil.rmtree(cache)
    cache.write_text("in the way")
    with pytest.warns(UserWarning, match=r"can't be kept in .*XDG_CACHE_HOME\.$"):
        data = opened(files)
    assert data.examples.in_memory
    assert data.fingerprint == fingerprint


def test_a_disk_that_is_full_leaves_nothing_behind(files: list[Path], cache: Path) -> None:
    fingerprint = afresh(files)
    shutil.rmtree(cache)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        try:
            data = opened(files)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "can't be kept in" in str(said[0].message)
    assert data.fingerprint == fingerprint
    assert data.examples.in_memory
    assert list((cache / "images").iterdir()) == []


def test_what_a_killed_process_left_is_removed(files: list[Path], cache: Path) -> None:
    (cache / "images").mkdir(parents=True)
    old, new = cache / "images" / "x.1.partial", cache / "images" / "x.2.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    settle(old)
    opened(files)
    assert not old.exists()
    assert new.exists()  # somebody may be writing it


def test_two_processes_open_a_set_at_once(files: list[Path], cache: Path) -> None:
    code = (
        "import sys; from logsnr.data.images import open_images; from logsnr.settings.image import DataConfig; "
        "print(open_images(DataConfig(sys.argv[1], resolution=8, channels=3, held_out_fraction=0)).fingerprint)"
    )
    command = [sys.executable, "-c", code, str(files[0].parents[1])]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate()[0].strip() for process in both]
    assert printed == [opened(files).fingerprint] * 2
    assert len(list((cache / "images").iterdir())) == 1


def test_pixels_do_not_travel_to_other_processes(files: list[Path]) -> None:
    examples = opened(files).examples
    copy = pickle.loads(pickle.dumps(examples))
    assert examples.in_memory
    assert not copy.in_memory
    assert copy.fingerprint == examples.fingerprint
    for index in range(len(examples)):
        assert (copy.read(index, None).clean == examples.read(index, None).clean).all()
