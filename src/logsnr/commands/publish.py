"""`logsnr publish RUN REPO_ID`: a trained model and its page, to the Hub."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from logsnr.base.errors import ConfigError
from logsnr.commands.messages import interruptible
from logsnr.commands.parse import parse
from logsnr.publishing.repo_id import check_repo_id


@dataclass(frozen=True)
class PublishArguments:
    """Put a trained model on the Hub, with a page that explains it. The same command again goes on, or says that
    nothing changed.

    The repo is made where there is none; one that is there is written to only if it is logsnr's. Of a model with
    classes, the form for stock diffusers goes to the branch `stock`.
    """

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The run folder, or a model folder."""
    repo_id: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="REPO_ID")]]
    """The repo's name on the Hub, as in `your-name/your-model`."""
    private: bool = False
    """Make the repo private, if it is made now."""
    create_pr: bool = False
    """Open a pull request in a repo that is there, for somebody else to merge (main alone, not the branch `stock`)."""
    space: bool = False
    """Publish a Space of the repo's name: an app that draws or writes with the model in a browser (`logsnr demo`)."""
    license: str | None = None
    """Licence of the weights, as the Hub names it: apache-2.0, cc-by-4.0, mit, other."""
    data_license: str | None = None
    """Licence of the training data, in words, for the card; that of the known data sets is filled in."""
    stage: Path | None = None
    """Leave everything in this folder, a sub-folder for each branch and for the Space, and send nothing."""
    dry_run: bool = False
    """List every file with its size and the reason why it is published, and send nothing."""

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id)
        if self.stage is not None and self.dry_run:
            raise ConfigError("--stage leaves the files, --dry-run doesn't: give one of them.")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise ConfigError(
                f"--license must be a name from the Hub's list of licences, such as apache-2.0, and is "
                f"{self.license!r}. What has no name there is `other`."
            )


def main(argv: list[str]) -> int:
    arguments = parse(PublishArguments, argv, prog="logsnr publish")
    from logsnr.publishing.publish import look, publish
    from logsnr.publishing.stage import listing, stage

    repo_id, create_pr = arguments.repo_id, arguments.create_pr
    local = arguments.stage is not None or arguments.dry_run
    with tempfile.TemporaryDirectory() as scratch:
        out = arguments.stage or Path(scratch) / "stage"
        with interruptible("Nothing was sent."):
            repo = None
            if not local:
                repo = look(repo_id, private=arguments.private, create_pr=create_pr, space=arguments.space)
            parts = stage(arguments.run, repo_id, out, arguments.license, arguments.data_license, arguments.space)
        if repo is not None:
            with interruptible("What the Hub has is kept; the same command sends the rest."):
                lines = publish(parts, repo_id, repo, create_pr=create_pr)
            print("\n".join(lines))
            return 0
    print(listing(parts))
    print(f"\nNothing was sent{'' if arguments.stage is None else f'; it is all in {arguments.stage}'}.")
    return 0
