"""logsnr.folders.checkpoint: what is read is what was written, and a bad disk costs nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import logsnr.folders.checkpoint
from logsnr.base.errors import CheckpointError
from logsnr.base.files import locked, write_atomically
from logsnr.folders.checkpoint import Checkpoint, load_latest, save_checkpoint


def checkpoint(step: int) -> Checkpoint:
    g = torch.Generator().manual_seed(step)
    odd = torch.tensor([0.0, -0.0, 1e-45, float("inf"), float("nan")])  # an optimiser holds what it holds
    return Checkpoint(
        step,
        {"w": torch.randn(3, 2, generator=g), "b": torch.randn(2, generator=g).bfloat16()},
        {"w": torch.randn(2, 3, generator=g).T, "b": odd},
        {"step.w": torch.tensor(float(step)), "exp_avg.w": torch.randn(3, 2, generator=g, dtype=torch.float64)},
        {"seen": torch.arange(step)},
    )


def same(a: Checkpoint, b: Checkpoint) -> bool:
    def bits(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        raw = {k: v.detach().contiguous().reshape(-1).view(torch.uint8).tolist() for k, v in tensors.items()}
        return {k: (v.dtype, v.shape, raw[k]) for k, v in tensors.items()}

    parts = ("network", "ema", "optimizer", "objective")
    return a.step == b.step and all(bits(getattr(a, p)) == bits(getattr(b, p)) for p in parts)


def steps(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in sorted((run / "checkpoints").glob("step-*"))]


def everything(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, checkpoint(step), keep=3)
    return tmp_path


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    assert load_latest(tmp_path) == (None, [])
    folder = save_checkpoint(tmp_path, checkpoint(7), keep=1)
    assert folder == tmp_path / "checkpoints" / "step-00000007"
    loaded, complaints = load_latest(tmp_path)
    assert complaints == []
    assert loaded is not None
    assert same(loaded, checkpoint(7))


def test_an_objective_that_learns_nothing_has_no_file(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, Checkpoint(1, {"w": torch.zeros(1)}, {}, {}), keep=1)
    assert not (folder / "objective.safetensors").exists()
    loaded, _ = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.objective == {}


def test_parameters_that_want_gradients_are_saved(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 3)
    save_checkpoint(tmp_path, Checkpoint(1, dict(layer.named_parameters()), {}, {}), keep=1)
    loaded, _ = load_latest(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded.network["weight"], layer.weight)


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    for step in (9, 10, 99, 100, 1000):
        save_checkpoint(tmp_path, checkpoint(step), keep)
    assert steps(tmp_path) == [9, 10, 99, 100, 1000][-keep:]
    assert len(everything(tmp_path)) == keep


def test_writing_the_same_step_again_replaces_it(run: Path) -> None:
    save_checkpoint(run, Checkpoint(30, {"w": torch.zeros(1)}, {}, {}), keep=3)
    loaded, _ = load_latest(run)
    assert loaded is not None
    assert loaded.network["w"].tolist() == [0]
    assert everything(run) == [f"step-{s:08d}" for s in (10, 20, 30)]


# Damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def zeros(path: Path) -> None:  # what some file systems leave after a power cut
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [truncate, empty, flip, zeros, Path.unlink])
@pytest.mark.parametrize(
    "name", ["network.safetensors", "ema.safetensors", "optimizer.safetensors", "objective.safetensors", "state.json"]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(run: Path, name: str, damage: Any) -> None:
    damage(run / "checkpoints" / "step-00000030" / name)
    loaded, complaints = load_latest(run)
    assert loaded is not None
    assert same(loaded, checkpoint(20))
    assert len(complaints) == 1
    assert "step-00000030 is damaged" in complaints[0]
    damage(run / "checkpoints" / "step-00000020" / name)
    loaded, complaints = load_latest(run)
    assert loaded is not None
    assert loaded.step == 10
    assert len(complaints) == 2


def test_no_single_wrong_byte_goes_unnoticed(run: Path) -> None:
    """Of the files with tensors by their hash; here of the file that holds the hashes."""
    path = run / "checkpoints" / "step-00000030" / "state.json"
    content = path.read_bytes()
    for place in range(len(content)):
        broken = bytearray(content)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        loaded, complaints = load_latest(run)
        assert loaded is not None
        # a changed blank is no damage
        assert same(loaded, checkpoint(20 if complaints else 30)), broken


def test_when_all_are_damaged_it_is_an_error_and_nothing_is_deleted(run: Path) -> None:
    for step in (10, 20, 30):
        truncate(run / "checkpoints" / f"step-{step:08d}" / "ema.safetensors")
    with pytest.raises(
        CheckpointError, match=r"(?s)step-00000030.*step-00000010.*No whole checkpoint is left\. Delete"
    ):
        load_latest(run)
    assert steps(run) == [10, 20, 30]


def test_leftovers_of_a_killed_process_are_ignored_and_cleared(run: Path) -> None:
    for name in (".step-00000040.partial", ".step-00000030.old"):
        (run / "checkpoints" / name).mkdir()
        (run / "checkpoints" / name / "network.safetensors").write_bytes(b"half")
    loaded, complaints = load_latest(run)
    assert loaded is not None
    assert (loaded.step, complaints) == (30, [])
    save_checkpoint(run, checkpoint(40), keep=2)
    save_checkpoint(run, checkpoint(40), keep=2)
    loaded, _ = load_latest(run)
    assert loaded is not None
    assert same(loaded, checkpoint(40))
    assert not (run / "checkpoints" / ".step-00000040.partial").exists()


def test_a_damaged_later_checkpoint_does_not_crowd_out_a_whole_one(run: Path) -> None:
    """30 is damaged, the run goes on from 20 and is stopped at 25: 25 and 20 are the newest two."""
    truncate(run / "checkpoints" / "step-00000030" / "network.safetensors")
    for keep in (2, 1):
        save_checkpoint(run, checkpoint(25), keep)
        loaded, complaints = load_latest(run)
        assert loaded is not None
        assert (loaded.step, complaints) == (25, [])
        assert steps(run) == [20, 25][-keep:]


# The disk


def test_a_full_disk_leaves_the_earlier_ones_whole(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def save_file(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        written.append(path)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(logsnr.folders.checkpoint, "save_file", save_file)
    with pytest.raises(CheckpointError, match=r"step-00000040 can't be written.*The disk is full: free some space"):
        save_checkpoint(run, checkpoint(40), keep=1)
    monkeypatch.undo()
    assert everything(run) == [f"step-{s:08d}" for s in (10, 20, 30)]
    loaded, _ = load_latest(run)
    assert loaded is not None
    assert same(loaded, checkpoint(30))


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    large = Checkpoint(20, {"w": torch.zeros(60_000)}, {"w": torch.zeros(60_000)}, {"w": torch.zeros(60_000)})
    with mounted(tmp_path / "disk", "size=600k") as run:
        save_checkpoint(run, checkpoint(10), keep=2)
        with pytest.raises(CheckpointError, match="The disk is full: free some space"):
            save_checkpoint(run, large, keep=2)
        loaded, complaints = load_latest(run)
        assert loaded is not None
        assert complaints == []
        assert same(loaded, checkpoint(10))
        assert everything(run) == ["step-00000010"]
        save_checkpoint(run, checkpoint(20), keep=2)  # what was begun takes no room
        (run / "config.json").write_text("old")
        with pytest.raises(CheckpointError, match=r"config\.json can't be written.*No space left"):
            write_atomically(run / "config.json", "x" * 700_000)
        assert (run / "config.json").read_text() == "old"
        assert not list(run.glob(".config*"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=600k") as run:
        save_checkpoint(run, checkpoint(10), keep=2)
        subprocess.run(["mount", "-o", "remount,ro", str(run)], check=True)
        with pytest.raises(CheckpointError, match=r"step-00000020 can't be written.*Read-only file system.*Mend that"):
            save_checkpoint(run, checkpoint(20), keep=2)
        with pytest.raises(CheckpointError, match=r"config\.json can't be written"):
            write_atomically(run / "config.json", "x")
        with pytest.raises(CheckpointError, match=r"can't be written.*Read-only"), locked(run):
            pass
        loaded, _ = load_latest(run)
        assert loaded is not None
        assert same(loaded, checkpoint(10))
