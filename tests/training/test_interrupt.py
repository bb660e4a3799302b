"""logsnr.training.interrupt: the first signal is a request, its echo is nothing, and a later one is an order."""

from __future__ import annotations

import signal

import pytest
from accelerate import Accelerator

import logsnr.training.interrupt
from logsnr.training.interrupt import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_an_echo_and_an_order(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with Interrupt() as interrupt:
        assert interrupt.agreed(Accelerator(cpu=True)) is None
        for _ in range(3):  # a launcher passes on what the process group has got already
            signal.raise_signal(number)
        assert interrupt.received is number
        assert interrupt.agreed(Accelerator(cpu=True)) is number
        monkeypatch.setattr(logsnr.training.interrupt, "_ECHO", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
