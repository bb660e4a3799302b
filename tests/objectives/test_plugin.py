"""A loss of another package is trained with by the ordinary command, and its settings are flags like ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from commands import run

from logsnr.settings.registry import known

PACKAGE = Path(__file__).parent / "package"


def install() -> None:
    """The package, as if it were installed in this process."""
    sys.path.insert(0, str(PACKAGE))
    known.cache_clear()  # what was installed when it was asked first


def test_a_loss_of_another_package_is_trained_with(tiny: list[str], tmp_path: Path) -> None:
    chosen = ("--objective.name", "huber", "--objective.delta", "0.25")
    out = ("--out", tmp_path / "run", "--train.held-out-every", "6")
    end = run(tmp_path / "log.txt", "train", *tiny, *chosen, *out, before=install)
    assert end.status == 0, end.output
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["config"]["objective"] == {"name": "huber", "delta": 0.25}
    assert "held_out/loss" in (tmp_path / "run" / "logs" / "train.jsonl").read_text()
    refused = run(tmp_path / "log.txt", "train", *tiny, *chosen, "--objective.vlb-weight", 1, *out, before=install)
    assert "--objective.vlb-weight is a setting of hybrid, and the objective is huber" in refused.message
