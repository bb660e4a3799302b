"""README is short, and so are the sentences of all pages; links lead somewhere; the API is all listed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import logsnr

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def sentences(page: Path) -> list[str]:
    """The sentences of its paragraphs and lists, a link or a piece of code in them one word or as many as it shows."""
    text = _LINK.sub("]", _FENCE.sub("", page.read_text()))
    lines = [line for line in text.splitlines() if not line.startswith(("#", "|", "!", "    ", ":::"))]
    paragraphs = re.split(r"\n\s*\n|\n(?=- )", "\n".join(lines))
    return [sentence for paragraph in paragraphs for sentence in re.split(r"(?<=[.!?])[*_]*\s+", paragraph)]


def anchors(page: Path) -> set[str]:
    """What a link may name after #: the headings, as GitHub and mkdocs both spell them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_has_600_words_at_most() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 600


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda page: page.name)
def test_sentences_have_25_words_at_most(page: Path) -> None:
    assert not [sentence for sentence in sentences(page) if len(sentence.split()) > 25]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_what_is_there(page: Path) -> None:
    links = [link for link in _LINK.findall(_FENCE.sub("", page.read_text())) if not link.startswith("https://")]
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda page: page.name)
def test_python_on_pages_is_python(page: Path) -> None:
    for program in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        ast.parse(program)


def test_the_api_page_lists_every_public_name_where_it_is_made() -> None:
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    names = [dotted.rpartition(".")[2] for dotted in listed]
    assert sorted(names) == logsnr.__all__
    for name, dotted in zip(names, listed, strict=True):
        assert getattr(logsnr, name).__module__ == dotted.rpartition(".")[0]
