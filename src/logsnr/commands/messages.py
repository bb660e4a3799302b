"""What several commands say in the same words where they are stopped."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

from logsnr.base.errors import LogsnrError


@contextlib.contextmanager
def interruptible(kept: str = "What is finished is kept; the same command goes on.") -> Iterator[None]:
    """On Ctrl-C, and on SIGTERM, by which batch systems end what runs, say what is kept of the work in this block. Both
    are a KeyboardInterrupt; that of SIGTERM holds its number."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        print(f"Interrupted. {kept}", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def naming(options: type[Any], prefix: str = "") -> Iterator[None]:
    """Where an error in this block begins with the name of a setting of `options`, it then names its flag: `steps must
    be …` becomes `--steps must be …`, with a prefix such as `evaluate.` before the name."""
    try:
        yield
    except LogsnrError as error:
        first, space, rest = str(error).partition(" ")
        name = first.rstrip(":")
        if name not in {field.name for field in fields(options)}:
            raise
        raise type(error)(f"--{prefix}{first.replace('_', '-')}{space}{rest}") from error


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Raise LogsnrError, naming `out`, where the system refuses to write it."""
    try:
        yield
    except BrokenPipeError:  # of what is printed, not of the file
        raise
    except OSError as error:
        raise LogsnrError(f"{out} can't be written: {error.strerror or error}.") from error


def refusals(lines: Sequence[str]) -> int:
    """Say which files couldn't be done, a line each; the exit status, 1 where there are any."""
    if not lines:
        return 0
    what = "1 picture wasn't" if len(lines) == 1 else f"{len(lines)} pictures weren't"
    print("\n".join([f"error: {what} done:", *(f"  {line}" for line in lines)]), file=sys.stderr)
    return 1
