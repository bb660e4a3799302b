"""What tyro makes of the words after a command."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any, TypeVar

import tyro

from logsnr.base.errors import LogsnrError
from logsnr.settings.flags import chosen

_Arguments = TypeVar("_Arguments")


def parse(arguments: type[_Arguments], argv: list[str], **more: Any) -> _Arguments:
    """What tyro makes of `argv`, after the members of unions are chosen in the defaults.

    A value that breaks a rule of ours is our error and no box of tyro's, which would be headed by names from inside
    tyro; the error is found behind the exit that tyro makes of it.
    """
    if "default" in more:
        more["default"] = chosen(more["default"], argv)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            parsed: _Arguments = tyro.cli(arguments, args=argv, **more)
    except SystemExit as end:
        behind: BaseException | None = end
        while behind is not None:
            if isinstance(behind, LogsnrError):
                raise behind from None
            behind = behind.__context__
        sys.stderr.write(box.getvalue())
        raise
    if sys.stderr.isatty() and "torch" not in sys.modules:
        print("Loading torch and diffusers …", file=sys.stderr)  # some seconds, which each command begins with
    return parsed
