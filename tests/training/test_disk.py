"""A disk that is full or can't be written to ends training with a message, and what is there is whole."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Finished

Run = Callable[..., Finished]


@contextlib.contextmanager
def disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize(("tracker", "size"), [("none", "600k"), ("tensorboard", "220k"), ("tensorboard", "1420k")])
def test_a_full_disk(tracker: str, size: str, tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    """There is no room for a checkpoint, for a picture, or for the model."""
    looking = ("--train.held-out-every", 3, "--train.sample-every", 3, "--train.tracker", tracker)
    looking += ("--data.held-out-fraction", 0.4)
    arguments = ("train", *tiny, *looking, "--train.keep-checkpoints", 100, "--train.checkpoint-every", 2)
    assert logsnr(*arguments, "--out", tmp_path / "whole").status == 0
    with disk(tmp_path / "disk", size) as place:
        run = place / "run"
        end = logsnr(*arguments, "--out", run)
        assert "can't be written" in end.message
        assert "No space left" in end.message
        assert len(end.message.splitlines()) == 1, end.output
        assert list((run / "checkpoints").glob("step-*"))
        assert logsnr("export", run, "--out", tmp_path / "exported").status == 0  # what there is is whole
        subprocess.run(["mount", "-o", "remount,size=100m", str(place)], check=True)
        assert logsnr(*arguments, "--out", run).status == 0
        name = "model/unet/diffusion_pytorch_model.safetensors"
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_no_room_for_the_first_line(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    with disk(tmp_path / "disk", "8k") as place:
        (place / "full").write_bytes(bytes(4096))
        message = logsnr("train", *tiny, "--out", place / "run").message
        assert "can't be " in message
        assert "No space left" in message


def test_a_folder_without_permission(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    with disk(tmp_path / "disk", "10m") as place:
        assert logsnr("train", *tiny, "--out", place / "run").status == 0
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        for name in ("run", "new"):
            message = logsnr("train", *tiny, "--out", place / name).message
            assert f"{place / name} can't be " in message
            assert "Read-only file system" in message
        (tmp_path / "file").write_text("")
        assert "is a file, and must be a folder" in logsnr("train", *tiny, "--out", tmp_path / "file").message
        assert "can't be made" in logsnr("train", *tiny, "--out", tmp_path / "file" / "run").message
