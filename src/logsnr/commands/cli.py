"""The command line. Each command is a file beside this one: a frozen dataclass of its arguments, whose field docstrings
are its help, and its function `main(argv)`, which returns the exit status.

Only the file of the chosen command is imported, and torch and diffusers only by the functions: `--help` and a wrong
flag are answered at once.
"""

from __future__ import annotations

import os
import signal
import sys

from logsnr import __version__
from logsnr.base.errors import LogsnrError, out_of_memory
from logsnr.commands.choose import call, no_choice

COMMANDS = {
    "train": "train a model of your images, or go on with one",
    "distill": "make a model of two network evaluations of a trained one",
    "sample": "make images with a trained model",
    "restore": "mend damaged pictures, with a trained model of undamaged ones",
    "degrade": "damage clean pictures in a stated way, to try restore on them",
    "demo": "draw and repair with a model in the browser",
    "export": "make a model folder of a run's last checkpoint",
    "publish": "put a trained model on the Hub, with a page that explains it",
    "tune": "fit a model's sampler to few network evaluations",
    "evaluate": "measure how good a run's model is",
    "compare": "compare noise schedules, of a run each, or ways to guide one model",
    "inspect": "look at images, noise schedules and trained models",
}
"""The commands, each the name of its module, and what they do."""

_USAGE = """usage: logsnr COMMAND …

Train, sample and publish diffusion models of your own images.

{choices}

`logsnr COMMAND --help` says more, `logsnr --version` which this is. To begin: logsnr train smoke --out runs/smoke"""

_TOO_LITTLE_MEMORY = (
    "there isn't enough memory. What needs less: a smaller batch (--train.batch-size or --batch-size), a lower "
    "--data.resolution, fewer --data.num-workers, no other program beside it."
)


def run(argv: list[str]) -> int:
    """Run one command. Our own errors become a message on stderr and exit status 1."""
    if argv == ["--version"]:
        print(f"logsnr {__version__}")
        return 0
    status = no_choice(argv, "logsnr", "command", COMMANDS, _USAGE)
    if status is not None:
        return status
    try:
        status = call(argv[0], argv[1:])
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head` has seen enough; what is still in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a process that SIGPIPE ends
    except LogsnrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(f"error: {_TOO_LITTLE_MEMORY}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        (number,) = stopped.args or (signal.SIGINT,)
        return 128 + int(number)
