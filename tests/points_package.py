"""The package of points (tests/stranger/package), as if it were installed: a kind of data that logsnr doesn't know."""

from __future__ import annotations

import sys
from pathlib import Path

from logsnr.settings.registry import known

PACKAGE = Path(__file__).parent / "stranger" / "package"


def install() -> None:
    """For the whole of this process."""
    sys.path.insert(0, str(PACKAGE))
    known.cache_clear()  # what was installed when it was asked first
