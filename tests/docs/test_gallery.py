"""The notebooks of the gallery: their cells run, and the stored outputs come from the present code.

`python docs/draw.py --notebooks` executes them again and stores the outputs.
"""

import ast
import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import plotly.graph_objects as go
import pytest
from nbconvert import HTMLExporter
from test_guide import difference

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
NOTEBOOKS = sorted(GALLERY.glob("*.ipynb"))
TOLERANCE = 0.3
"""By this share a number may differ on another machine: trainings that are not convex end in other last digits."""
VARIES = "varies"
"""The metadata of cells whose output may have other rows or names on another machine, so that only its kind is compared."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_run_and_give_the_stored_outputs(path: Path) -> None:
    namespace: dict[str, Any] = {"__name__": path.stem}

    with pd.option_context("display.width", 200):
        for cell in _code_cells(path):
            printed, value = _run(cell.source, namespace)

            stored = _stored_text(cell)
            is_figure = isinstance(value, go.Figure)
            assert is_figure == _stores_figure(cell)
            if is_figure:
                continue
            text = printed + ("" if value is None else repr(value))
            assert bool(text) == bool(stored), f"stored: {stored!r}, printed: {text!r}"
            if not cell.metadata.get(VARIES):
                assert difference(stored, text, TOLERANCE) is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_have_no_warnings(path: Path) -> None:
    streams = {output.name for cell in _code_cells(path) for output in cell.outputs if output.output_type == "stream"}

    assert "stderr" not in streams


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_plots_survive_the_conversion_to_html(path: Path) -> None:
    html, _ = HTMLExporter().from_filename(os.fspath(path))

    assert html.count("Plotly.newPlot") == sum(_stores_figure(cell) for cell in _code_cells(path)) > 0


def test_the_gallery_names_every_notebook() -> None:
    index = (GALLERY / "index.md").read_text(encoding="utf-8")

    assert len(NOTEBOOKS) == 3
    assert all(f"({path.name})" in index for path in NOTEBOOKS)


def _code_cells(path: Path) -> Iterator[Any]:
    return (cell for cell in nbformat.read(os.fspath(path), as_version=4).cells if cell.cell_type == "code")


def _run(source: str, namespace: dict[str, Any]) -> tuple[str, Any]:
    """Run a cell and return what it prints and the value of its last line, which a notebook displays."""
    *statements, last = ast.parse(source).body
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        if not isinstance(last, ast.Expr):
            exec(source, namespace)
            return output.getvalue(), None
        exec(compile(ast.Module(statements, []), "cell", "exec"), namespace)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)
    return output.getvalue(), value


def _stored_text(cell: Any) -> str:
    return "".join(
        output.text if output.output_type == "stream" else output.data.get("text/plain", "") for output in cell.outputs
    )


def _stores_figure(cell: Any) -> bool:
    return any("Plotly.newPlot" in output.get("data", {}).get("text/html", "") for output in cell.outputs)
