"""Ctrl-C and SIGTERM as a request: finish the step at hand, save, then stop."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import torch
from accelerate import Accelerator


class Interrupt:
    """Ctrl-C and SIGTERM end the loop after the step at hand; a second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> Interrupt:
        self.previous = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        print("\nStopping after this step; the state is saved. Once more to stop at once.", file=sys.stderr)

    def agreed(self, accelerator: Accelerator) -> signal.Signals | None:
        """The signal that any process received: all must leave the loop at the same step."""
        if accelerator.num_processes == 1:
            return self.received
        number = torch.tensor([self.received or 0], device=accelerator.device)
        largest = int(accelerator.gather(number).max())
        return signal.Signals(largest) if largest else None
