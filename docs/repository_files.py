"""Files of the repository that pages of docs/ link to become part of the site, under their own paths.

A link is written as it holds in the repository, `../benchmarks/few_step.md`, and is the same file on the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # mkdocs is of the dependency group docs
    from mkdocs.structure.files import Files

REPOSITORY = Path(__file__).parents[1]
PATTERNS = ("C*.md", "benchmarks/*.md", "benchmarks/*.png", "hub_cards/*/**/*.*")


def on_files(files: Files, config: Any) -> Files:
    from mkdocs.structure.files import File

    for path in sorted(path for pattern in PATTERNS for path in REPOSITORY.glob(pattern)):
        files.append(File.generated(config, path.relative_to(REPOSITORY).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Pages of docs/ lie at the top of the site; those of the repository link to pages of docs/ by `docs/`."""
    if page.file.src_dir is None:
        return re.sub(r"\]\(docs/", "](", markdown)
    return markdown.replace("](../", "](")
