"""Seconds of a step of the demo with the machine to itself, and with one busy process beside it.

    python benchmarks/busy_machine.py [--rounds 3] [--neighbour python]

Three trainings (`logsnr train mnist`) are started as a user starts one, and run in turn, the others stopped: without
what `logsnr.base.threads` does, with its short spin alone, and as it is. Each is timed quiet and then beside a
neighbour, a loop of Python or of products of numpy matrices. Where processes that aren't ours take more than a
twentieth of a core, the part is measured again, up to five times. Prints seconds a step (median over rounds of the
median) and ratios.

Two cores of an AMD EPYC (Zen 3, float32) with nothing else to do, three rounds:

                    quiet     busy    busy/quiet   quiet/quiet as OpenMP is
    as OpenMP is    0.485 s  1.625 s     3.35             1.000
    short spin      0.483 s  1.322 s     2.74             0.996
    as it is        0.492 s  0.787 s     1.60             1.016

Where nobody is there "as it is" is the short spin and a look at the machine, 0.13 ms a second.

Tried and not kept, beside the python loop: one thread, 0.77 s (0.73 s quiet; other bits); both threads confined to the
free core, 1.58 s with the short spin, 0.81 s with short waits, which alone take 0.85 to 0.94 s: too little for choosing
cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OFF = "import contextlib, sys, logsnr.__main__ as m; m.sharing_cores = contextlib.nullcontext; sys.exit(m.main())"
VARIANTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "as OpenMP is": (["-c", OFF], {"GOMP_SPINCOUNT": "300000"}),  # its default
    "short spin": (["-c", OFF], {}),
    "as it is": (["-m", "logsnr"], {}),
}
NEIGHBOURS = {
    "python": "while True: pass",
    "numpy": "import numpy; a = numpy.random.rand(500, 500)\nwhile True: a @ a",
}
SETTLE, PART, STEPS = 2.5, 6.0, 3
"""Seconds before a part that aren't timed, seconds that are, and how many steps there must be in it."""


class Training:
    """One of the three, stopped but for when it is timed."""

    def __init__(self, name: str, folder: Path) -> None:
        words, variables = VARIANTS[name]
        unset = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
        environment = {key: value for key, value in os.environ.items() if key not in unset} | variables
        options = "--train.log-every 1 --train.checkpoint-every 100000 --train.held-out-every 0 --train.sample-every 0"
        run = folder / name.replace(" ", "-")
        argv = ["train", "mnist", "--out", str(run), "--train.tracker", "none", *options.split()]
        with (folder / f"{run.name}.log").open("w") as log:
            self.process = subprocess.Popen([sys.executable, *words, *argv], env=environment, stdout=log, stderr=log)
        self.log = run / "logs" / "train.jsonl"
        while self.done() < 3:
            if self.process.poll() is not None:
                sys.exit((folder / f"{run.name}.log").read_text())
            time.sleep(0.1)
        self.process.send_signal(signal.SIGSTOP)

    def done(self) -> int:
        """Steps so far."""
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    def seconds_a_step(self, neighbour: subprocess.Popen[bytes] | None) -> float:
        """The median, of a part that nobody else disturbed."""
        own = [self.process.pid] + ([] if neighbour is None else [neighbour.pid])
        for attempt in range(5):
            time.sleep(SETTLE)
            start, before = time.perf_counter(), busy_seconds() - sum(map(seconds_of, own))
            moments: list[float] = []
            last = self.done()
            while time.perf_counter() - start < PART or len(moments) <= STEPS:
                if (now := self.done()) > last:
                    moments.append(time.perf_counter())
                    last = now
                time.sleep(0.01)
            others = busy_seconds() - sum(map(seconds_of, own)) - before
            if others < 0.05 * (time.perf_counter() - start):
                break
            print(f"  disturbed by {others / (time.perf_counter() - start):.2f} cores, attempt {attempt + 1}")
        return statistics.median(b - a for a, b in itertools.pairwise(moments))


def busy_seconds() -> float:
    """Of all cores, since the machine began."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def seconds_of(pid: int) -> float:
    """A process's own."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--neighbour", choices=NEIGHBOURS, default="python")
    arguments = parser.parse_args()
    found: dict[tuple[str, bool], list[float]] = {(name, busy): [] for name in VARIANTS for busy in (False, True)}
    trainings: dict[str, Training] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in VARIANTS:
                trainings[name] = Training(name, Path(folder))
            for _ in range(arguments.rounds):
                for name, training in trainings.items():
                    training.process.send_signal(signal.SIGCONT)
                    found[name, False].append(training.seconds_a_step(None))
                    program = NEIGHBOURS[arguments.neighbour]
                    one = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
                    neighbour = subprocess.Popen([sys.executable, "-c", program], env=one)
                    try:
                        found[name, True].append(training.seconds_a_step(neighbour))
                    finally:
                        neighbour.kill()
                        neighbour.wait()
                    training.process.send_signal(signal.SIGSTOP)
                    quiet, busy = found[name, False][-1], found[name, True][-1]
                    print(f"  {name:<14} quiet {quiet:.3f} s, busy {busy:.3f} s, ratio {busy / quiet:.2f}", flush=True)
        finally:
            for training in trainings.values():
                training.process.kill()
                training.process.wait()
    base = statistics.median(found["as OpenMP is", False])
    print(f"{'':<14} {'quiet':>8} {'busy':>8} {'busy/quiet':>11} {'quiet/quiet as OpenMP is':>25}")
    for name in VARIANTS:
        quiet, busy = (statistics.median(found[name, state]) for state in (False, True))
        print(f"{name:<14} {quiet:>6.3f} s {busy:>6.3f} s {busy / quiet:>11.2f} {quiet / base:>25.3f}")


if __name__ == "__main__":
    main()
