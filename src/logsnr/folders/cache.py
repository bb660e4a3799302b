"""The user's cache: what was made once and can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where networks, features of data and opened data are kept for all runs: `logsnr` in the user's cache.

    The user's cache is `$XDG_CACHE_HOME`, by default `~/.cache`. What is in it may be deleted at any time.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "logsnr"
