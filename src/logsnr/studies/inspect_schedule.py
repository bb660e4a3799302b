"""What `logsnr inspect schedule` says: a table of noise schedules, the checks they pass or fail, and their curves.

A schedule does its job if its last step is noise (terminal SNR near 0), if no beta was cut off, and if no step is too
small for float32 (`BetaScheduler.checks`). One that doesn't is worth looking at too, so a failed check is reported
with its cure and is no error.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from logsnr.base.columns import aligned
from logsnr.base.errors import ConfigError
from logsnr.media.plots import save_png, schedule_figure
from logsnr.models.schedules import make_scheduler
from logsnr.schedulers.scheduling_beta import BetaScheduler, ScheduleWarning
from logsnr.settings.schedule import ScheduleConfig

_WIDTH = 100


def inspect_schedules(
    names: Sequence[str],
    *,
    num_train_timesteps: int = 1000,
    zero_terminal_snr: bool = False,
    shift: float = 0.0,
    options: Mapping[str, float] | None = None,
    out: Path | None = Path("schedules.png"),
) -> str:
    """Draw the schedules into `out` and return what there is to say of them as text.

    Args:
        names: as `logsnr.models.schedules.resolve_scheduler_class` takes them.
        num_train_timesteps, zero_terminal_snr, shift, options: as in `ScheduleConfig`, the same for all.
        out: the PNG, replaced if it is there; None draws nothing.

    Raises `ConfigError` if a name is unknown or a schedule can't be made.
    """
    if not names:
        raise ConfigError("inspect schedule needs the name of at least one schedule, such as cosine.")
    if out is not None and out.suffix.lower() != ".png":
        raise ConfigError(f"--out must be a file that ends in .png, and is {out}.")
    schedulers: dict[str, BetaScheduler] = {}
    for name in names:
        config = ScheduleConfig.named(
            name,
            num_train_timesteps=num_train_timesteps,
            zero_terminal_snr=zero_terminal_snr,
            shift=shift,
            options=dict(options or {}),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScheduleWarning)  # what they say is in the text
            schedulers[name] = make_scheduler(config)
    paragraphs = [_summary(schedulers), *_checks(schedulers)]
    if out is not None:
        save_png(schedule_figure(schedulers), out)
        paragraphs.append(f"The curves are in {out}.")
    return "\n\n".join(paragraphs)


def _summary(schedulers: Mapping[str, BetaScheduler]) -> str:
    rows = [("schedule", "T", "log-SNR first", "log-SNR last", "terminal SNR", "noise at the first step")]
    for name, scheduler in schedulers.items():
        total = len(scheduler)
        first, last = scheduler.log_snr(torch.tensor([0, total - 1])).double()
        noise = f"{(-first / 2).exp():.3g}"
        rows.append((name, f"{total:,}", f"{first:.2f}", f"{last:.2f}", f"{last.exp():.3g}", noise))
    return (
        f"{aligned(rows)}\n"
        "The noise at the first step is a standard deviation, of images in [-1, 1]: finer detail is never seen in\n"
        "training, and is missing from what is drawn."
    )


def _checks(schedulers: Mapping[str, BetaScheduler]) -> list[str]:
    """The table of all checks, and one paragraph for each cure that is needed, naming the schedules that need it."""
    rows = [("schedule", "check", "figure", "at most", "")]
    cures: dict[str, list[str]] = {}
    for name, scheduler in schedulers.items():
        for check in scheduler.checks():
            verdict = "ok" if check.passed else "FAILS"
            rows.append((name, check.name, f"{check.figure:.3g}", f"{check.bound:g}", verdict))
            if not check.passed:
                cures.setdefault(f"{check.name}. {check.cure}", []).append(name)
    paragraphs = [f"FAILS for {', '.join(who)}: {cure}" for cure, who in cures.items()]
    return [aligned(rows), *(textwrap.fill(text, _WIDTH, subsequent_indent="  ") for text in paragraphs)]
