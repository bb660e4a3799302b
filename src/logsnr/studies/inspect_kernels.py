"""What `logsnr inspect schedule --kernels` says: what survives of states along schedules, and where the others go.

A cumulative matrix has a row for each state that there was, and in it the chance of each state that there is now. It
depends on the kernel and on what has survived alone, not on the schedule: another schedule has the same matrices at
other steps.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from logsnr.base.columns import aligned
from logsnr.base.errors import ConfigError
from logsnr.media.plots import save_png
from logsnr.media.state_plots import kernels_figure
from logsnr.models.schedules import make_transition_scheduler
from logsnr.schedulers.scheduling_transition import MASKED, TransitionScheduler
from logsnr.settings.schedule import Kernel, TransitionConfig

_STATES = 8
"""So many that a person can read the matrices."""
_SHOWN = (0.9, 0.5, 0.1, 0.0)
"""What has survived where the matrices are shown, about."""
_WORDS: dict[Kernel, str] = {
    "absorbing": "the diagonal fades and the column of the mask fills. A state is what it was or a mask, and the "
    "network sees which.",
    "uniform": "the diagonal fades into an even tint. What hasn't survived may be any state, and nobody sees which "
    "ones those are.",
    "mask_and_replace": "most that leaves the diagonal is in the column of the mask, and a little everywhere. What is "
    "no mask may be wrong too.",
    "gaussian": "the diagonal becomes wider. A state goes to its neighbours first, which means something where states "
    "have an order, such as levels of gray or notes.",
}


def inspect_kernels(
    names: Sequence[str],
    kernels: Sequence[Kernel],
    *,
    num_train_timesteps: int = 1000,
    shift: float = 0.0,
    options: Mapping[str, float] | None = None,
    out: Path | None = Path("schedules.png"),
) -> str:
    """Draw the schedules and the kernels into `out` and return what there is to say of them as text.

    Args:
        names: of schedules, as `logsnr.models.schedules.resolve_scheduler_class` takes them.
        kernels: one or more of `logsnr.settings.schedule.Kernel`, each once.
        num_train_timesteps, shift, options: as in `TransitionConfig`, the same for all.
        out: the PNG, replaced if it is there; None draws nothing.

    Raises `ConfigError` if a name is unknown or a schedule can't be made.
    """
    if not names:
        raise ConfigError("inspect schedule needs the name of at least one schedule, such as even.")
    if len(set(kernels)) < len(kernels) or len(set(names)) < len(names):
        raise ConfigError(f"Schedules and --kernels must be different ones, and are {' '.join([*names, *kernels])!r}.")
    if out is not None and out.suffix.lower() != ".png":
        raise ConfigError(f"--out must be a file that ends in .png, and is {out}.")

    def made(name: str, kernel: Kernel) -> TransitionScheduler:
        config = TransitionConfig(name, num_train_timesteps, shift, dict(options or {}), kernel)
        return make_transition_scheduler(config, _STATES, _STATES - 1)

    schedules = {name: made(name, kernels[0]) for name in names}
    first, t = next(iter(schedules.values())), torch.tensor(_steps(next(iter(schedules.values()))))
    paragraphs = [_survival(schedules), *(_in_words(f"{kernel}: {_WORDS[kernel]}") for kernel in kernels)]
    if out is not None:
        titles = [f"ᾱ = {first.alphas_cumprod[k]:.2g}, step {k + 1} of {names[0]}" for k in t.tolist()]
        matrices: dict[str, Sequence[Tensor]] = {
            kernel: list(made(names[0], kernel).cumulative_matrix(t)) for kernel in kernels
        }
        save_png(kernels_figure(schedules, matrices, titles, {kernel: _letters(kernel) for kernel in kernels}), out)
        seen = (
            f"The curves are in {out}, and below them the cumulative matrices of {_STATES} states: a row for each "
            "state that there was, in it the chances of what it is now. They depend on what has survived alone, so "
            "another schedule has the same ones at other steps."
        )
        paragraphs.append(_in_words(seen))
    return "\n\n".join(paragraphs)


def _steps(schedule: TransitionScheduler) -> list[int]:
    """The timesteps at which about so much as in _SHOWN has survived."""
    return [int((schedule.alphas_cumprod - share).abs().argmin()) for share in _SHOWN]


def _survival(schedules: Mapping[str, TransitionScheduler]) -> str:
    shares = [f"{share:.0%} left at step" for share in _SHOWN[:-1]]
    rows = [("schedule", "T", "gone by step 1", *shares, "goes at the last")]
    for name, schedule in schedules.items():
        survival = schedule.alphas_cumprod
        lost, last = f"{1 - survival[0]:.3g}", f"{survival[-2]:.3g}"
        rows.append((name, f"{len(schedule):,}", lost, *(str(t + 1) for t in _steps(schedule)[:-1]), last))
    return (
        f"{aligned(rows)}\n"
        "Shares of all states. Each step of the sampler gives back what a step takes: where much goes at once, many\n"
        "states are drawn without having seen one another."
    )


def _in_words(text: str) -> str:
    return textwrap.fill(text, 100, subsequent_indent="  ")


def _letters(kernel: Kernel) -> list[str]:
    letters = list("abcdefgh")
    return [*letters[:-1], "mask"] if kernel in MASKED else letters
