"""Python with torch, diffusers and what these two need, and nothing else: where somebody loads a model of ours.

The packages are linked from the environment that runs the tests into a folder, which is all that the new process has
beside the standard library. Neither logsnr nor what logsnr needs can be imported there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path


def link_packages(folder: Path, *names: str) -> Path:
    """Link the installed packages of these names, and those they require, into `folder`."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        found = None if name in seen else _installed(name)
        seen.add(name)
        if found is None:
            continue
        for top in {file.parts[0] for file in found.files or []} - {".."}:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(found.locate_file(top)))
        waiting += [re.match(r"[\w.-]+", line)[0] for line in found.requires or [] if "extra ==" not in line]
    return folder


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:  # another platform's
        return None


def run_stock_python(site: Path, program: str, *argv: object, cwd: Path, variables: Mapping[str, str]) -> str:
    """Run `program` with `site` (of `link_packages`); what it printed. AssertionError if it fails."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, *map(str, argv)],
        env={**kept, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", **variables},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr
