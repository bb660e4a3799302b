"""The run of `logsnr train` and of `logsnr distill`: trained, or said what it would be."""

from __future__ import annotations

import shlex
from pathlib import Path

from logsnr.settings.run import RunConfig, to_json


def run_training(config: RunConfig, out: Path, dry_run: bool) -> int:
    """Train the run in `out`, or say what would be done; returns the exit status."""
    from logsnr.training.runs import plan
    from logsnr.training.train import train

    if dry_run:
        planned = plan(config, out)  # first, so that what can't be done is said alone
        print(to_json(config) + planned)
        return 0
    result = train(config, out)
    if result.stopped_by is not None:
        print(f"Stopped after step {result.step}, which is saved. The same command goes on from there.")
        return 128 + result.stopped_by
    for folder in result.folders:
        print(f"{folder} is done.")
    if result.folders:  # of several processes the first alone exports, and speaks
        run = shlex.quote(str(out))
        print(f"Next: logsnr sample {run}, or logsnr evaluate {run}")
    return 0
