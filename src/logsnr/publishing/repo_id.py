"""Names of repos, by the rules of the Hub."""

from __future__ import annotations

import re

from logsnr.base.errors import PublishError


def check_repo_id(repo_id: str) -> None:
    """Raise PublishError unless `repo_id` is a name that the Hub takes."""
    part = r"(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?"
    if not re.fullmatch(rf"{part}/{part}", repo_id) or len(repo_id) > 96 or repo_id.endswith((".git", ".ipynb")):
        raise PublishError(
            f"REPO_ID must be owner/name, of letters, digits and single . _ - between them, at most 96 in all, and "
            f"is {repo_id!r}."
        )
