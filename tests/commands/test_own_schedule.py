"""A schedule of one's own, in a module of the working directory: trained with, and sampled with and without it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from commands import Finished

Run = Callable[..., Finished]


def test_a_schedule_of_ones_own(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    (tmp_path / "my_schedules.py").write_text(
        "import torch\n"
        "from logsnr.schedulers.scheduling_beta import BetaScheduler\n"
        "class SquareBetaScheduler(BetaScheduler):\n"
        "    @staticmethod\n"
        "    def make_betas(num_train_timesteps, *, end=0.03):\n"
        "        return torch.linspace(0.01, end**0.5, num_train_timesteps) ** 2\n"
    )
    own = ("--schedule.name", "my_schedules:SquareBetaScheduler", "--schedule.options", "end", 0.04)
    assert logsnr("train", *tiny, *own, "--out", tmp_path / "run").status == 0
    for source in (tmp_path / "run", tmp_path / "run" / "stock"):
        few = ("sample", source, "--num", 2, "--steps", 2, "--out", "x.png")
        end = logsnr(*few)
        assert end.status == 0, end.output
        assert "warning: The schedule SquareBetaScheduler isn't known here" in end.output
        assert "loaded as DDPMScheduler, with the same betas. What is lost is" in end.output
        (cure,) = re.findall(r"`logsnr sample (--scheduler) your_module(:SquareBetaScheduler)`", end.output)
        end = logsnr(*few, cure[0], f"my_schedules{cure[1]}", "--dry-run")
        assert end.status == 0, end.output
        assert "warning" not in end.output
        assert "steps of SquareBetaScheduler" in end.output
    own_steps = ("sample", tmp_path / "run", "--scheduler", "my_schedules:SquareBetaScheduler", "--eta", 0.5)
    assert logsnr(*own_steps, "--num", 2, "--steps", 2, "--out", "x.png").status == 0
    assert "no module 'nowhere'" in logsnr("sample", tmp_path / "run", "--scheduler", "nowhere:X").message
    wrong = ("--schedule.name", "my_schedules:SquareBeta", "--out", tmp_path / "no")
    assert "has no 'SquareBeta'. Did you mean SquareBetaScheduler?" in logsnr("train", *tiny, *wrong).message
