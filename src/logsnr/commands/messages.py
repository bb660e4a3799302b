"""What several commands say in the same words where they are stopped."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from logsnr.base.errors import LogsnrError


@contextlib.contextmanager
def interruptible(kept: str = "What is finished is kept; the same command goes on.") -> Iterator[None]:
    """On Ctrl-C, say what is kept of the work in this block."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"Interrupted. {kept}", file=sys.stderr)
        raise


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Raise LogsnrError, naming `out`, where the system refuses to write it."""
    try:
        yield
    except OSError as error:
        raise LogsnrError(f"{out} can't be written: {error}.") from error
