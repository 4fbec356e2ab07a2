"""Notebooks of the docs: their execution from top to bottom, and their stored outputs."""

import base64
import io
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code_cells)
    assert any(
        "image/png" in output.get("data", {}) for cell in code_cells for output in cell.outputs
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in code_cells if cell.outputs or cell.execution_count] == []


EXPLAIN = """
import foveal, torch
model = foveal.models.presets.focus(foveal.detectors.Grid(keypoints=3), width=16).eval()
explanation = model.explain(torch.rand(2, 1, 28, 28))
"""
SHOW = "explanation.show()"
SHOW_WITHOUT_WINDOWS = """
import matplotlib
matplotlib.use("agg")
explanation[0].show()
"""
OPEN_FIGURES = """
import matplotlib.pyplot
matplotlib.pyplot.get_fignums()
"""


def pictures(cell):
    """Return the PNG files in the outputs of a cell."""
    data = [output.get("data", {}) for output in cell.outputs]
    return [base64.b64decode(item["image/png"]) for item in data if "image/png" in item]


def test_show_outputs_one_picture_per_image(tmp_path):
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(code)
        for code in (EXPLAIN, SHOW, SHOW_WITHOUT_WINDOWS, OPEN_FIGURES)
    ]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    _, with_windows, without_windows, open_figures = notebook.cells
    for cell, count in ((with_windows, 2), (without_windows, 1)):
        images = pictures(cell)
        assert len(cell.outputs) == len(images) == count  # and no warning
        for picture in images:
            assert Image.open(io.BytesIO(picture)).width > 400
    assert open_figures.outputs[0]["data"]["text/plain"] == "[]"
