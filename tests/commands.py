"""The command line in a process of its own, quickly.

Each command runs in a child that is forked from a server which has imported torch, diffusers and logsnr and done
nothing else (`multiprocessing`'s fork server): it is a fresh process, the leader of a session of its own as one
started from a terminal is, and it saves the seconds of importing. Whatever it prints goes to one file.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "logsnr.training.train",
        "logsnr.publishing.publish",
        "logsnr.publishing.stage",
        "logsnr.evaluation.report",
        "logsnr.commands.train",
        "logsnr.studies.inspect_schedule",
        "logsnr.repair.restore",
    ]
)

DEADLINE = 120.0


@dataclass(frozen=True)
class Finished:
    """What came of a command."""

    status: int
    """Exit status; -9 if it was killed."""
    output: str
    """stdout and stderr, in the order of time."""

    @property
    def message(self) -> str:
        """The lines from `error:` on."""
        assert self.status == 1, self.output
        assert "Traceback" not in self.output, self.output
        (start,) = re.finditer(r"(?m)^error: ", self.output)
        return self.output[start.start() :]


class Command:
    """`logsnr ARGV`, running."""

    def __init__(self, log: Path, argv: list[str], before: Callable[[], None] | None = None) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self.process: Any = _server.Process(target=_main, args=(str(log), argv, before))
        self.process.start()

    def wait(self) -> Finished:
        self.process.join(DEADLINE)
        if self.process.exitcode is None:
            self.kill()
            raise AssertionError(f"The command did not end: {self.log.read_text()}")
        return Finished(self.process.exitcode, self.log.read_text(errors="replace"))

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Return when `reached()` is true; it must be while the command still runs."""
        end = time.monotonic() + DEADLINE
        while not reached():
            assert self.process.exitcode is None, f"It ended too early: {self.log.read_text()}"
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.001)

    def send(self, number: signal.Signals) -> None:
        """The signal to all of the process group, as a terminal or a batch system sends it."""
        os.killpg(self.process.pid, number)

    def kill(self) -> Finished:
        self.send(signal.SIGKILL)
        return self.wait()


def without_boxes(text: str) -> str:
    """Help in words: wrapped in boxes by tyro, which break it at any blank."""
    return " ".join(text.translate(str.maketrans("│╭╮╰╯─", "      ")).split())


def run(log: Path, *argv: object, before: Callable[[], None] | None = None) -> Finished:
    """`logsnr ARGV` to its end. `before()` is called in the new process first."""
    return Command(log, [str(a) for a in argv], before).wait()


def _main(log: str, argv: list[str], before: Callable[[], None] | None) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    multiprocessing.set_start_method("fork", force=True)  # Linux' own, for worker processes; here it'd be the server's
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.dump_traceback_later(DEADLINE - 10, file=file)  # where it hangs, if it does
    if before is not None:
        before()
    sys.argv = ["logsnr", *argv]
    from logsnr.__main__ import main

    sys.exit(main())
