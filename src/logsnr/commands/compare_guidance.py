"""`logsnr compare guidance RUN`: one model, drawn with more and more guidance, in several ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from logsnr.base.errors import ConfigError
from logsnr.commands.messages import interruptible, naming
from logsnr.commands.parse import parse
from logsnr.folders.run_folder import require_run
from logsnr.settings.guidance import PLAIN, GuidanceOptions
from logsnr.settings.options import OF_TEXTS, EvaluateOptions, refuse_foreign


@dataclass(frozen=True)
class CompareGuidanceArguments:
    """Draw with a trained model with more and more guidance, in several ways, and compare what comes of it."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The run folder."""
    scales: tuple[float, ...] = (1.5, 2.0, 3.0, 5.0)
    """Guidance scales, beside 1, which is none."""
    intervals: tuple[tuple[float, float], ...] = ((0.2, 0.8),)
    """Parts of the steps that are guided, as shares of them, beside all of them: `0 0.6 0.2 0.8` are two."""
    projected: bool = False
    """Projected guidance too, which leaves out what only makes the output larger."""
    guide: str | None = None
    """A weaker model to be led away from; RUN/guide, where there is one, when not given."""
    source: str | None = None
    """Where the run's images are now, if they moved: as --data.source of `logsnr train`."""
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    dry_run: bool = False
    """Say what would be done, and stop."""

    def __post_init__(self) -> None:
        require_run(self.run)
        if not self.scales or min(self.scales) <= 0 or 1 in self.scales:
            given = " ".join(f"{scale:g}" for scale in self.scales)
            raise ConfigError(f"--scales must be above 0, none of them 1, which is there anyway, and is {given!r}.")
        for interval in self.intervals:
            GuidanceOptions(interval)
        options = self.evaluate
        refuse_foreign(options, OF_TEXTS, "for texts")
        if options.guidance_scale != 1 or options.guidance != PLAIN or options.restore is not None:
            raise ConfigError(
                "--evaluate.guidance-scale, --evaluate.guidance and --evaluate.restore play no part here: the scales "
                "are --scales, the ways --intervals, --projected and --guide. Leave them out."
            )


def main(argv: list[str]) -> int:
    with naming(EvaluateOptions, "evaluate."):
        arguments = parse(CompareGuidanceArguments, argv, prog="logsnr compare guidance")
        from logsnr.evaluation.subject import open_subject
        from logsnr.studies.compare_guidance import compare, plan, ways

        with interruptible():
            subject = open_subject(arguments.run, arguments.source)
            how = ways(subject, arguments.intervals, arguments.projected, arguments.guide)
            what = plan if arguments.dry_run else compare
            print(what(subject, arguments.scales, how, arguments.evaluate))
    return 0
