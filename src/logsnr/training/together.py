"""Several processes that train one model stop together, with one message.

A process that stops alone leaves the others waiting for what it won't send, until the connection breaks: each of them
then ends in a traceback about the network, and the reason is somewhere in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from accelerate import Accelerator
from accelerate.utils import gather_object

from logsnr.base.errors import LogsnrError


@contextlib.contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """All processes enter and leave this block, and what stops one of them in it (a LogsnrError) stops all there.

    Of those that have something to say the first raises its error; the others exit with status 1, in silence.
    """
    refusal: LogsnrError | None = None
    try:
        yield
    except LogsnrError as error:
        refusal = error
    stopped = gather_object([refusal is not None])
    if any(stopped):
        if refusal is not None and stopped.index(True) == accelerator.process_index:
            raise refusal
        raise SystemExit(1)
