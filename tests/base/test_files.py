"""logsnr.base.files: what is written is there whole or not at all, and one process at a time holds a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from logsnr.base.errors import CheckpointError
from logsnr.base.files import locked, replacing_file, replacing_folder, write_atomically


def test_replacing_a_folder_is_all_or_nothing(tmp_path: Path) -> None:
    final = tmp_path / "model"
    with replacing_folder(final) as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b").write_text("first")
    with pytest.raises(ZeroDivisionError), replacing_folder(final) as folder:
        (folder / "c").write_text(str(1 / 0))
    assert (final / "a" / "b").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with replacing_folder(final) as folder:
        (folder / "c").write_text("third")
    assert [path.name for path in final.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with pytest.raises(ValueError, match="a mistake of ours"), replacing_folder(final):
        raise ValueError("a mistake of ours")


def test_small_files_are_written_atomically(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text in ("{}\n", json.dumps({"ü": 1}, ensure_ascii=False)):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


# Two processes


def test_a_run_folder_is_held_by_one_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from logsnr.base.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match="is being trained by another process"), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path), pytest.raises(CheckpointError, match="another process"), locked(tmp_path):
        pass
    with locked(tmp_path):  # free again, though the file is still there
        assert (tmp_path / ".lock").exists()


def test_what_is_saved_may_be_read_by_whom_the_folder_lets_in(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "model") as folder:
        save_file({"a": torch.zeros(1)}, folder / "weights.safetensors")
    modes = [path.stat().st_mode & 0o666 for path in (tmp_path / "model", tmp_path / "model" / "weights.safetensors")]
    assert modes[0] == modes[1]


def test_replacing_a_file_is_all_or_nothing(tmp_path: Path) -> None:
    final = tmp_path / "cache" / "features.safetensors"
    with replacing_file(final) as path:
        save_file({"a": torch.zeros(1)}, path)
    assert final.stat().st_mode & 0o666 == final.parent.stat().st_mode & 0o666
    with pytest.raises(ZeroDivisionError), replacing_file(final) as path:
        path.write_text(str(1 / 0))
    assert list(final.parent.iterdir()) == [final]
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="can't be written"), replacing_file(tmp_path / "file" / "x"):
        pass
