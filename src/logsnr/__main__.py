"""Entry point of the command `logsnr` and of `python -m logsnr`."""

import io
import logging
import os
import sys
import warnings

from logsnr.base.threads import sharing_cores, spin_shortly


def main() -> int:
    """Run the command line; returns the exit status."""
    # Said by other libraries on import, whatever we do with them: none of it concerns the user of a command.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    spin_shortly(os.environ)
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)  # each retry, where there is no network
    logging.getLogger("torch.distributed.elastic.multiprocessing.redirects").setLevel(logging.ERROR)
    warnings.formatwarning = _one_line
    for stream in (sys.stdout, sys.stderr):  # names of files and classes may have letters that a terminal can't show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    from logsnr.commands.cli import run

    with sharing_cores():
        return run(sys.argv[1:])


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"warning: {message}\n"


if __name__ == "__main__":
    sys.exit(main())
