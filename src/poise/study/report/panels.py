"""Plots of a report: grids of panels without colors.

Every trace names its role in `meta`, and the page knows the colors of roles in light, dark and print. The layout's
`meta` tells the page how many panels fit in a row at most and which axes are shared; the page arranges them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from poise.path.plots import plain_label

LegendEntry = tuple[str, str, str]
"""A label, a role, and a dash, `"band"`, `"disc"` or `"diamond"`."""
TICKS = ".3~g"


@dataclass(frozen=True, eq=False)
class Plot:
    """A plot of a report.

    Args:
        name: Its anchor in the page.
        figure: The figure.
        alternative: What a screen reader says.
        legend: The entries of the legend.
    """

    name: str
    figure: go.Figure
    alternative: str
    legend: Sequence[LegendEntry] = ()


def make_panels(titles: list[list[str]], x: str, y: str, *, shared: str, columns: int) -> go.Figure:
    """Return an empty grid of panels.

    Args:
        titles: The title of each panel, row by row.
        x, y: The titles of the axes.
        shared: The axes that all panels share: `""`, `"x"`, `"y"` or `"xy"`.
        columns: The most panels in a row.
    """
    flat = ["<br>".join(map(plain_label, title.split("\n"))) for row in titles for title in row]
    figure = make_subplots(rows=len(titles), cols=len(titles[0]), subplot_titles=flat)
    figure.update_xaxes(title_text=x).update_yaxes(title_text=y)
    if "x" in shared:
        figure.update_xaxes(matches="x").update_layout(xaxis_matches=None)  # no axis may match itself
    if "y" in shared:
        figure.update_yaxes(matches="y").update_layout(yaxis_matches=None)
    figure.update_layout(template="none", showlegend=False, meta={"columns": columns, "shared": shared, "over": x})
    return figure


def add_line(
    figure: go.Figure, row: int, column: int, x: pd.Series | pd.Index, y: pd.Series, name: str, role: str, dash: str
) -> None:  # fmt: skip
    """Add a line to a panel."""
    figure.add_scatter(x=x, y=y, row=row, col=column, name=name, meta=role, line_dash=dash, mode="lines")


def log_axis(low: float, high: float, most: int = 7) -> dict:
    """Return a logarithmic axis with about `most` ticks: at 1, 2 and 5, or at powers of ten."""
    ends = [float(np.log10(low)), float(np.log10(high))]
    decades = ends[1] - ends[0]
    step = "D2" if 3 * decades <= most else math.ceil(decades / most)
    return {"type": "log", "range": ends, "dtick": step, "tickformat": TICKS}


def strength_axis(figure: go.Figure, column: int, grids: Sequence[np.ndarray], marks: Sequence[float]) -> None:
    """Make the x axis of a panel logarithmic.

    It ends before the strength of the null model, which is far above the others, unless a mark is there.
    """
    strengths = np.unique(np.concatenate([_without_null(grid, marks) for grid in grids]))
    span = strengths[-1] / strengths[0]
    margin = span**0.04 if span > 1 else 2.0
    figure.update_xaxes(log_axis(strengths[0] / margin, strengths[-1] * margin, 5), row=1, col=column)


def _without_null(strengths: np.ndarray, marks: Sequence[float]) -> np.ndarray:
    """The strengths without the last one, if the step to it is wider than any other and it is not marked."""
    steps = np.diff(np.log(strengths))
    is_far = len(steps) > 1 and steps[-1] > 1.1 * steps[:-1].max()
    return strengths[:-1] if is_far and strengths[-1] not in marks else strengths
