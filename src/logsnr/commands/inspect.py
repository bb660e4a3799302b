"""`logsnr inspect SUBJECT`: the commands that look before and after training, `inspect_SUBJECT.py` beside this file."""

from __future__ import annotations

from logsnr.commands.choose import call, no_choice

SUBJECTS = {
    "schedule": "draw noise schedules, and say whether they do their job",
    "data": "say what images are, and what schedule and weighting to begin with",
    "run": "look at a trained model: its loss, its bits, its images on their way out of noise",
}

_USAGE = """usage: logsnr inspect SUBJECT …

Look before and after training:

{choices}

`logsnr inspect data --help` says more. To begin: logsnr inspect schedule cosine linear"""


def main(argv: list[str]) -> int:
    status = no_choice(argv, "logsnr inspect", "subject", SUBJECTS, _USAGE)
    return call(f"inspect_{argv[0]}", argv[1:]) if status is None else status
