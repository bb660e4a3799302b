"""`logsnr inspect run RUN`: three pictures of a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from logsnr.commands.messages import interruptible, naming, writing
from logsnr.commands.parse import parse
from logsnr.folders.run_folder import require_run
from logsnr.settings.options import EvaluateOptions


@dataclass(frozen=True)
class InspectRunArguments:
    """Look at a trained model: its loss by log-SNR, where the bits of its ELBO go, how images come out of noise."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The run folder."""
    out: Path | None = None
    """The folder of the three pictures; RUN/inspection when not given."""
    source: str | None = None
    """Where the run's images are now, if they moved: as --data.source of `logsnr train`."""
    elbo_images: int = 250
    """Images, or sequences of texts, whose likelihood is bounded."""
    elbo_timesteps: int = 50
    """KL divergences evaluated an image, of one for each step of the chain; of texts, how often each sequence is
    noised."""
    dry_run: bool = False
    """Load model and data, say what would be drawn, and stop."""


def main(argv: list[str]) -> int:
    parsed = parse(InspectRunArguments, argv, prog="logsnr inspect run")
    with naming(EvaluateOptions):
        options = EvaluateOptions(elbo_images=parsed.elbo_images, elbo_timesteps=parsed.elbo_timesteps)
    require_run(parsed.run)
    from logsnr.evaluation.subject import open_subject
    from logsnr.studies.inspect_run import inspect_run
    from logsnr.training.runs import require_apart

    out = parsed.out or parsed.run / "inspection"
    with interruptible():
        subject = open_subject(parsed.run, parsed.source)
        require_apart(out, subject.task.config)
        if parsed.dry_run:
            print(f"{subject.data.description}\nWould draw loss.png, bits.png and film.png into {out}.")
            return 0
        with writing(out):
            print(inspect_run(subject, options, out))
    return 0
