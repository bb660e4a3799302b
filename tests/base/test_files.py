"""logsnr.base.files: what is written is there whole or not at all, and one process at a time holds a run."""

from __future__ import annotations

import errno
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


def without_system_locks(code: str, number: int) -> str:
    """Python code that runs as on a disk which has no locks, and says so by this error number."""
    return f"import fcntl\ndef flock(*_): raise OSError({number}, 'no locks')\nfcntl.flock = flock\n{code}"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_disk_without_locks_keeps_the_promise_too(number: int, tmp_path: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; from logsnr.base.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", without_system_locks(hold, number), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        second = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
        assert second.stdout == ""
        assert "CheckpointError" in second.stderr
        assert "is being trained by another process" in second.stderr
        assert f"delete {tmp_path / '.lock.process'}" in second.stderr
        first.kill()
    for _ in range(2):  # after one that was killed, and after one that ended
        third = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
        assert third.stdout == "held\n"
        assert third.stderr == ""


def test_a_lock_of_another_machine_is_left_to_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its process runs can't be seen from here, so a person must say so."""
    marker = tmp_path / ".lock.process"
    marker.write_text("1234\nelsewhere\n")

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(CheckpointError, match=r"another machine\? Then delete .*\.lock\.process"), locked(tmp_path):
        pass
    marker.unlink()
    with locked(tmp_path):
        assert marker.exists()


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
