"""The first word of a command line: which command, subject or preset it chooses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

from logsnr.base.errors import did_you_mean


def no_choice(argv: list[str], prog: str, noun: str, choices: Mapping[str, str], usage: str) -> int | None:
    """None where `argv` begins with one of `choices`; else says what there is, and returns the exit status."""
    width = max(map(len, choices))
    usage = usage.format(choices="\n".join(f"  {name:<{width}}  {text}" for name, text in choices.items()))
    if not argv or argv[0] in ("-h", "--help"):
        print(usage)
        return 0 if argv else 2
    word = argv[0]
    if word in choices:
        return None
    problem = f"there is no {noun} {word!r}.{did_you_mean(word, choices)}"
    if word.startswith("-"):
        problem = f"the {noun} comes first, before {word}."
    print(f"{prog}: {problem}\n\n{usage}", file=sys.stderr)
    return 2


def call(command: str, argv: list[str]) -> int:
    """The exit status of `main(argv)` in `logsnr.commands.COMMAND`. No other command's module is imported."""
    status: int = importlib.import_module(f"logsnr.commands.{command}").main(argv)
    return status
