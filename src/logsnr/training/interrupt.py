"""Ctrl-C and SIGTERM as a request: finish the step at hand, save, then stop."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

import torch
from accelerate import Accelerator

_ECHO = 2.0  # seconds


class Interrupt:
    """Ctrl-C and SIGTERM end the loop after the step at hand; once more, some seconds later, they end it at once.

    Not sooner: launchers of several processes pass on a signal that the whole process group has got already.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.since = 0.0

    def __enter__(self) -> Interrupt:
        self.previous = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if time.monotonic() - self.since > _ECHO:
                raise KeyboardInterrupt
            return
        self.received, self.since = signal.Signals(number), time.monotonic()
        # not print: the signal may have come in the middle of one
        os.write(2, b"\nStopping after this step; the state is then saved. Once more to stop at once.\n")

    def agreed(self, accelerator: Accelerator) -> signal.Signals | None:
        """The signal that any process received: all must leave the loop at the same step."""
        if accelerator.num_processes == 1:
            return self.received
        number = torch.tensor([self.received or 0], device=accelerator.device)
        largest = int(accelerator.gather(number).max())
        return signal.Signals(largest) if largest else None
