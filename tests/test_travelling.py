"""What every file that travels owes to the places where it comes to. A new file is tested because it is there."""

from pathlib import Path

import pytest
from diffusers.utils import dynamic_modules_utils
from travelling import ALLOWED, FILES, helpers, imported_packages

files = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_each_room_has_files() -> None:
    assert {file.parent.name for file in FILES} == set(ALLOWED)


@files
def test_imports_what_is_there_where_it_comes_to(file: Path) -> None:
    assert imported_packages(file) <= ALLOWED[file.parent.name]


@files
def test_no_line_of_text_looks_like_an_import(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock diffusers finds imports by a regular expression over the whole file, docstrings included."""
    found: list[str] = []
    monkeypatch.setattr(dynamic_modules_utils.importlib, "import_module", found.append)
    assert set(dynamic_modules_utils.check_imports(str(file))) == helpers(file)
    assert set(found) <= imported_packages(file)
