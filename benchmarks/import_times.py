"""How long it takes to import logsnr, beside what it stands on.

    python benchmarks/import_times.py [ROUNDS]

Fresh processes, in turn; the first round warms the disk's cache and isn't counted. The processor's time is what is
compared, since other programs don't lengthen it by much, and the time on the clock is printed beside it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

STOCK = "from diffusers import DDPMPipeline"
TRAIN = "from logsnr import train"
PROGRAMS = {
    STOCK: ["-c", STOCK],
    TRAIN: ["-c", TRAIN],
    "import logsnr": ["-c", "import logsnr"],
    "logsnr --help": ["-m", "logsnr", "--help"],
    "nothing": ["-c", ""],
}


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Of the processor and on the clock, for a new process of Python."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after, clock = os.times(), time.perf_counter() - start
    return (after.children_user - before.children_user) + (after.children_system - before.children_system), clock


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds + 1):
        for name, arguments in PROGRAMS.items():
            taken[name].append(seconds(arguments))
    for name, times in taken.items():
        processor, clock = (statistics.median(values) for values in zip(*times[1:], strict=True))
        print(f"{name:<40} {processor:6.2f} s of the processor, {clock:6.2f} s on the clock")
    for k, what in enumerate(("of the processor's time", "on the clock")):
        ratios = [ours[k] / stock[k] for ours, stock in zip(taken[TRAIN][1:], taken[STOCK][1:], strict=True)]
        print(f"{TRAIN} / {STOCK}: {statistics.median(ratios):.3f} {what} (median of {rounds} rounds)")


if __name__ == "__main__":
    main()
