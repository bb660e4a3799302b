"""docs/quickstart.ipynb runs from its first cell to its last, and is kept without what it printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The cells of code after they have run, in an empty folder."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_each_picture_is_shown(cells: list[Any]) -> None:
    shown = [any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in cells]
    assert shown == [False, False, True, True, True, True, False]


def test_it_ends_in_a_figure_with_its_interval(cells: list[Any]) -> None:
    last = cells[-1].outputs[-1]["data"]["text/plain"]
    assert "value" in last
    assert "interval" in last


def test_no_outputs_are_kept() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kept = [cell.id for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
    assert not kept
