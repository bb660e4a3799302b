"""`logsnr inspect schedule` as a command: what it says, and where it draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from commands import Finished

Run = Callable[..., Finished]


def test_inspect_schedule(tmp_path: Path, logsnr: Run) -> None:
    end = logsnr("inspect", "schedule", "linear", "cosine", "--out", tmp_path / "two.png")
    assert end.status == 0
    assert f"The curves are in {tmp_path / 'two.png'}." in end.output
    assert (tmp_path / "two.png").stat().st_size > 10_000
    end = logsnr("inspect", "schedule", "linear", "--dry-run", "--out", tmp_path / "none.png")
    assert end.status == 0
    assert "terminal SNR" in end.output
    assert not (tmp_path / "none.png").exists()
    assert "'nosuch' is unknown" in logsnr("inspect", "schedule", "nosuch").message
    message = logsnr("inspect", "schedule", "linear", "--out", tmp_path / "log.txt" / "x.png").message
    assert "can't be written" in message
