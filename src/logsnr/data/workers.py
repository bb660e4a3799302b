"""Work done in processes of its own, the results in order: reading and decoding while the main process computes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

Key = TypeVar("Key")
Result = TypeVar("Result")


def in_workers(function: Callable[[Key], Result], keys: Iterable[Key], num_workers: int) -> Generator[Result]:
    """`function(key)` for each key, in order, made ahead in `num_workers` processes (0: here, one after another).

    Errors that a user should meet are returned rather than raised: out of a worker they would come as a traceback.
    """
    if num_workers == 0:
        yield from map(function, keys)
        return
    # A generator of its own: a DataLoader without one draws from the global one, and then whatever is drawn there later
    # would depend on the number of workers.
    generator = torch.Generator()
    loader: Iterable[Result] = DataLoader(
        _Calls(function),
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        generator=generator,
        worker_init_fn=_leave_signals_to_the_main_process,
    )
    yield from loader


@dataclass(frozen=True)
class _Calls(Dataset[Result], Generic[Key, Result]):
    """A function in the form that a DataLoader knows."""

    function: Callable[[Key], Result]

    def __getitem__(self, key: Key) -> Result:
        return self.function(key)


def _as_it_is(item: Any) -> Any:
    return item


def _leave_signals_to_the_main_process(worker: int) -> None:
    # Ctrl-C, and a batch system's SIGTERM, go to all processes of a group: the main one still needs this one's results
    # to finish its step. Workers end when the main process does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
