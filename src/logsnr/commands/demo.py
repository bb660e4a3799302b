"""`logsnr demo MODEL`: a page in the browser to draw or write with a model."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from logsnr.commands.parse import parse


@dataclass(frozen=True)
class DemoArguments:
    """Draw with a trained model in the browser, see images come out of noise, and repair or edit pictures. With a model
    of texts: write, and fill in blanks."""

    model: tyro.conf.Positional[str]
    """A run folder, a model folder, or a repo of the Hub."""
    port: int = 7860
    """The page is at http://127.0.0.1:PORT, for this machine alone."""
    open: tyro.conf.FlagCreatePairsOff[bool] = False
    """Open the page in a browser."""


def main(argv: list[str]) -> int:
    arguments = parse(DemoArguments, argv, prog="logsnr demo")
    from logsnr.publishing.demo import serve

    serve(arguments.model, arguments.port, arguments.open)
    return 0
