"""Processes that train one model over gloo (on CPUs): each ends within a minute when another is gone.

As a rule it ends at once: the connection to the other closes, and the exchange that it waits for fails. But gloo tells
the buffers in its queues alone, and not the one whose bytes are just on their way (`Pair::signalException` in
gloo/transport/tcp/pair.cc goes through neither `rx_.ubuf` nor `tx_[k].ubuf`). Whoever waits for that one waits for the
time limit of the process group, half an hour, and nothing else wakes it. A short limit would be wrong: the first
process measures and draws while the others wait.

So each process counts, every few seconds, in the store where they have found each other, and looks whether the others
do. Its own beats are the clock: processes that were stopped together, and go on together, have missed nothing. NCCL has
a watchdog of its own.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator

GONE = "Another process of this training has stopped; what it printed says why."
BEAT = 5.0  # seconds
_PATIENCE = 11  # beats


@contextlib.contextmanager
def heartbeat(accelerator: Accelerator) -> Iterator[None]:
    """This process ends with exit status 1 and a message when another one that is in this block falls silent.

    From a thread of its own and at once, for the main thread can't be woken.
    """
    if accelerator.num_processes == 1 or torch.distributed.get_backend() != "gloo":
        yield
        return
    # A connection of its own: on the process group's one asks after another.
    store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=_PATIENCE * BEAT),
    )
    over = threading.Event()
    arguments = (store, accelerator.process_index, accelerator.num_processes, over)
    watch = threading.Thread(target=_watch, args=arguments, name="heartbeat", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _watch(store: Any, own: int, number: int, over: threading.Event) -> None:
    last, missed = [0] * number, [0] * number
    try:
        while max(missed) < _PATIENCE:
            if over.wait(BEAT):
                return
            for process in range(number):  # what is kept under a name nobody has added to is 0
                count = store.add(f"logsnr heartbeat {process}", int(process == own))
                missed[process] = 0 if count != last[process] else missed[process] + 1
                last[process] = count
    except RuntimeError:  # the store is gone, and with it the first process: by accident, or since all is done
        if over.wait(_PATIENCE * BEAT):
            return
    sys.stdout.flush()
    os.write(2, f"\nerror: {GONE}\n".encode())  # not print: the main thread may be in the middle of one
    os._exit(1)
