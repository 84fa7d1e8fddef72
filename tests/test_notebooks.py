"""The notebooks run, and each pair of .py and .ipynb holds the same cells."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

SOURCES = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))


def test_there_are_notebooks():
    assert len(SOURCES) >= 2


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_pair_agrees(source):
    cells = [(c.cell_type, c.source) for c in jupytext.read(source).cells]
    paired = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert cells == [(c.cell_type, c.source) for c in paired.cells], "run `make notebooks`"


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_notebook_runs(source):
    NotebookClient(jupytext.read(source), timeout=240, kernel_name="python3").execute()
