"""Threads of this process on a machine that others use too: how long they wait spinning, and what a run notes of them.

A training step is some thousand short loops, each shared out among threads (OpenMP's), as many as there are cores, and
over when the last thread is done. Those that are done sooner wait for it in a spin, since that is the quickest way to
learn of it. When another process takes a core, the thread waited for isn't running, and those that spin keep it from
running: a step that takes a second then takes ten to fifty. Two things help, and neither changes a number:

- a short spin, asked of the library before it is loaded (`spin_shortly`);
- a hundred times shorter one for as long as others are there (`sharing_cores`): then a thread that waits sleeps, and
  whoever has something to do has the core. All the time it would cost too much: to wake is slower than to spin.

Another number of threads would help too, but it changes the last bits of sums, so a run keeps the one it began with.
benchmarks/busy_machine.py has the times.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

_LOOK_EVERY = 1.0  # seconds
_CROWDED, _CALM = 0.25, 0.1  # cores that others use and we could: from the first on, down to the second
_SLOW, _IN_A_ROW = 3.0, 5
_STEADY, _LONG = 12, 6 * 3600.0  # steps after which the pace is known; seconds that are worth a word


def spin_shortly(environment: MutableMapping[str, str]) -> None:
    """Have OpenMP's threads wait spinning for 0.1 ms (GNU's default: 3), where the user has said nothing of it.

    It is read when torch is imported, and by the processes that this one starts.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = "10000"


@contextlib.contextmanager
def sharing_cores() -> Iterator[None]:
    """For as long as other processes use the cores of this one's threads, those wait asleep rather than spinning.

    A thread of its own looks once a second. Where the system doesn't say how busy it is (it isn't Linux), none does.
    """
    if not Usage.known():
        yield
        return
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(ended,), name="sharing cores", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def _watch(ended: threading.Event) -> None:
    usage, calm = Usage(), None
    while not ended.wait(_LOOK_EVERY):
        others = usage.of_others()
        if "torch" not in sys.modules:  # no threads yet
            continue
        import torch  # waits until whoever imports it is done

        more = torch.get_num_threads() + others - usage.cores
        if calm is None and more > _CROWDED:
            calm = _short_waits(torch.get_num_threads(), usage.cores)
        elif calm is not None and more < _CALM:
            calm.set()
            calm = None
    if calm is not None:
        calm.set()


def _short_waits(threads: int, cores: int) -> threading.Event:
    """Shorten the spins until the event that is returned is set.

    GNU's OpenMP does so itself where it has more threads than there are cores (`gomp_throttled_spin_count_var` in
    libgomp's env.c and wait.h: 100 turns). Those of idle teams count, so such teams are made, and do nothing.
    """
    over = threading.Event()
    for _ in range((cores - threads) // (threads - 1) + 1 if threads > 1 else 0):
        threading.Thread(target=_idle_team, args=(over,), name="idle team", daemon=True).start()
    return over


def _idle_team(over: threading.Event) -> None:
    import torch

    torch.zeros(1 << 18).add_(1)  # long enough for torch to share it out, which makes the team
    over.wait()


class Usage:
    """How many cores other processes have kept busy, since one last asked, of those that this process may use."""

    def __init__(self) -> None:
        self.names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        self.cores = len(self.names)
        self.before = self._now()

    @staticmethod
    def known() -> bool:
        """Whether this system says so."""
        return sys.platform == "linux" and Path("/proc/stat").is_file()

    def of_others(self) -> float:
        """From 0 to all cores."""
        before, self.before = self.before, self._now()
        busy, ours, seconds = (now - then for now, then in zip(self.before, before, strict=True))
        return min(max(0.0, (busy - ours) / seconds), float(self.cores))

    def _now(self) -> tuple[float, float, float]:
        """Seconds: of all processes on these cores, of this one, of the clock."""
        ticks = 0
        for line in Path("/proc/stat").read_text().splitlines():
            name, *values = line.split()
            if name in self.names:
                user, nice, system, _idle, _iowait, irq, softirq = map(int, values[:7])
                ticks += user + nice + system + irq + softirq
        return ticks / os.sysconf("SC_CLK_TCK"), time.process_time(), time.monotonic()


class Pace:
    """Says once how long it all takes, where that is long, and once when steps on a CPU have come to take several times
    as long as the fastest, and what the cause may be.

    On a GPU a step is over when it has been asked for, and its time alone says nothing.
    """

    def __init__(self, device_type: str, num_steps: int) -> None:
        self.num_steps, self.done = num_steps, 0
        self.first = time.perf_counter()
        self.watched = device_type == "cpu"
        self.best, self.slow = float("inf"), 0
        self.usage = Usage() if Usage.known() else None

    def begin(self) -> None:
        """A step begins."""
        self.began = time.perf_counter()

    def end(self) -> str | None:
        """It has ended; a sentence when it is time for it."""
        now = time.perf_counter()
        slow = self.took(now - self.began)
        self.done += 1
        if self.done == 1:  # what it prepares, later ones needn't
            self.first = now
        if self.done != _STEADY:
            return slow
        return slow or self.forecast((now - self.first) / (_STEADY - 1) * (self.num_steps - _STEADY))

    @staticmethod
    def forecast(seconds: float) -> str | None:
        """A sentence where so much is left that one would rather know now."""
        if seconds < _LONG:
            return None
        return (
            f"At this pace the run takes {seconds / 3600:.0f} hours more. What takes less: fewer --train.num-steps, a "
            "smaller network, smaller samples, a preset for machines like this one. Ctrl-C saves what there is."
        )

    def took(self, seconds: float) -> str | None:
        """A step took so many seconds; a sentence when it is time for it."""
        self.best = min(self.best, seconds)
        self.slow = self.slow + 1 if seconds > _SLOW * self.best else 0
        if self.slow <= 1 and self.usage is not None:
            self.usage.of_others()  # from here on
        if self.slow < _IN_A_ROW or not self.watched:
            return None
        self.watched = False
        others = 0.0 if self.usage is None else self.usage.of_others()
        cause = "memory on disk, a processor too hot, or images that come slowly"
        if self.usage is not None and others > _CROWDED:
            cause = f"other processes, which use {others:.1f} of {self.usage.cores} cores"
        return f"A step takes {seconds:.2g} s, and took {self.best:.2g} s before. Likely cause: {cause}."


def machine() -> dict[str, Any]:
    """What the last bits of a run's weights depend on beside its configuration, for its record."""
    import torch

    gpu = torch.cuda.is_available()
    return {
        "processor": torch.cuda.get_device_name()
        if gpu
        else f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
    }


def keep(noted: Mapping[str, Any]) -> list[str]:
    """Compute with as many threads as a run noted when it began (`machine`), if this is such a machine.

    Returns what to tell the user: that it is so, or that another processor takes sums in another order.
    """
    import torch

    here = machine()
    if here["processor"] != noted["processor"]:
        return [
            f"warning: this run began on another processor ({noted['processor']}; here {here['processor']}). It goes "
            "on, and its weights will differ in their last bits from those of a run that stayed there."
        ]
    if here["threads"] == noted["threads"]:
        return []
    torch.set_num_threads(noted["threads"])
    return [f"Computing with {noted['threads']} threads as this run began, not with {here['threads']}."]


def _processor() -> str:
    """Its name. Those of rented machines are short, so the model's numbers come with it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in found:
        return platform.processor() or platform.machine()
    return f"{found['model name']} (family {found.get('cpu family')}, model {found.get('model')})"
