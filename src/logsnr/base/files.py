"""Files and folders that appear whole: written beside, flushed to the disk, and only then renamed.

At any moment the final name is that of the old one or of the new one, both whole, or a disk has failed. An OSError
becomes a CheckpointError with a cure.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from logsnr.base.errors import CheckpointError

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


@contextlib.contextmanager
def replacing_folder(final: Path) -> Iterator[Path]:
    """A new folder to write in, which takes the place of `final` at the end, flushed to the disk.

    If the block fails the new folder is deleted and `final` is as it was. An OSError becomes a CheckpointError.
    """
    temporary = final.with_name(f".{final.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
        temporary.mkdir(parents=True)
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            if path.is_file():
                path.chmod(temporary.stat().st_mode & 0o666)  # safetensors lets nobody else read what it writes
            _flush(path)
        if final.exists():
            outgoing = final.with_name(f".{final.name}.old")
            shutil.rmtree(outgoing, ignore_errors=True)
            final.rename(outgoing)
            temporary.rename(final)
            shutil.rmtree(outgoing)
        else:
            temporary.rename(final)
        _flush(final.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) or "No space left" in str(error):  # safetensors has its own exception
            full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
            cure = "The disk is full: free some space" if full else "Mend that"
            raise CheckpointError(
                f"{final} can't be written: {error}. {cure}, then run the same command again; what was there "
                "before is whole."
            ) from error
        raise


@contextlib.contextmanager
def replacing_file(final: Path) -> Iterator[Path]:
    """A path to write a file at, which takes the place of `final` at the end, flushed to the disk.

    If the block fails the new file is deleted and `final` is as it was. An OSError becomes a CheckpointError.
    """
    temporary = final.with_name(f".{final.name}.{os.getpid()}.partial")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.chmod(final.parent.stat().st_mode & 0o666)  # safetensors lets nobody else read what it writes
        _flush(temporary)
        temporary.replace(final)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) or "No space left" in str(error):  # safetensors has its own exception
            raise CheckpointError(f"{final} can't be written: {error}.") from error
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file so that it is either the old one or the new one, whatever happens."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def strangers(folder: Path, ours: Callable[[Path], bool]) -> list[str]:
    """Names of what lies in a folder and isn't `ours`, in order. Hidden files don't count, and no folder has none."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path.name for path in found if not path.name.startswith(".") and not ours(path)]


def _flush(path: Path) -> None:
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # Windows opens no folders, and flushes only what is open for writing
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(run: Path, doing: str = "trained") -> Iterator[None]:
    """Hold a folder, such as that of a run that is `trained`, so that no two processes write into it at once.

    Raises CheckpointError."""
    from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout  # 0.1 s, which only who trains needs

    # The system's own lock ends with its process, however that ends. Some network disks have none: there a file that
    # names its process is the lock, and filelock removes that of a process which this machine no longer runs. It
    # would put it at the place of the first, and only where the system says ENOSYS; NFS and 9p say otherwise.
    lock: BaseFileLock = FileLock(run / ".lock", timeout=0, fallback_to_soft=False)
    cure = ""
    try:
        try:
            lock.acquire()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            lock = SoftFileLock(run / ".lock.process", timeout=0)
            cure = f" Is it gone, and was it on another machine? Then delete {lock.lock_file}."
            lock.acquire()
    except Timeout as error:
        raise CheckpointError(
            f"{run} is being {doing} by another process. Wait for it, or take another --out.{cure}"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{run} can't be written: {error}.") from error
    try:
        yield
    finally:
        lock.release()


def read_json(path: Path) -> Any:
    """A JSON file of a run, or a CheckpointError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error


def digest_of(*parts: bytes) -> str:
    """A hash of 16 hexadecimal digits."""
    content = hashlib.blake2b(digest_size=8)
    for part in parts:
        content.update(hashlib.blake2b(part).digest())
    return content.hexdigest()
