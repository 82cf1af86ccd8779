"""The columns: how important each is, which are selected, and how stable that is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from poise.compaction.inputs import input_kernels
from poise.path.plots import plain_label
from poise.path.tables import replica_table
from poise.study.findings import Candidate, Findings
from poise.study.report.description import tabulate_importance
from poise.study.report.names import name_inside
from poise.study.report.numbers import shorten
from poise.study.report.panels import LegendEntry, Plot, make_panels, strength_axis
from poise.study.report.sections.base import Section
from poise.study.report.selection_sentences import write_selection

LISTED = 200
"""Columns that a table lists."""
COLORED = 12
"""Columns that are drawn in color."""
GRAY = 300
"""Columns that are drawn in gray, the next largest."""
COLORS = 6
DASHES = ("solid", "dash")


class SelectionSection(Section):
    """The importance of each column, and which columns are selected, with stability and size."""

    name, title, link = "selection", "Importance and selection of columns", "Columns"

    def context(self, study: Findings) -> dict[str, Any]:
        table, selector = tabulate_columns(study), study.selector
        shared = {
            "table": table.head(LISTED),
            "left_out": max(len(table) - LISTED, 0),
            "saved": study.saved,
            "selector": selector,
            "halves": study.stability_selection,
            "second": study.table.classes[1] if len(study.table.classes) == 2 else None,
        }
        if selector is None:
            return {**shared, "sentence": write_selection(study)}
        alternative = (
            f"Two line charts over the strengths of {name_inside(selector)}: the size of each column, and the number "
            "of selected columns. The table below holds the numbers."
        )
        sizes = column_sizes(selector, selector.encoder.owners)
        plot = Plot("columns", draw_columns(study, selector), alternative, _make_legend(sizes))
        return {
            **shared,
            "runs": len(replica_table(selector.path.lanes)),
            "n_init": study.settings.n_init,
            "plot": plot,
        }


def tabulate_columns(study: Findings) -> pd.DataFrame:
    """Return one row per column, the selected ones first, then by importance.

    Its columns are those of `Study.importance`; `size`, at the strength that selects; and `halves`, the share of the
    halves that a stability selection found.
    """
    table, selector = tabulate_importance(study).assign(size=np.nan, halves=np.nan), study.selector
    if selector is None:
        return table
    if study.stability_selection is not None:
        table["halves"] = study.stability_selection.share.reindex(table.index)
    sizes = column_sizes(selector, selector.encoder.owners)
    at = int(np.argmin(np.abs(selector.path.strengths - selector.selection_strength)))
    table["size"] = sizes.iloc[:, at].reindex(table.index)
    return table.sort_values(["selected", "importance", "stability", "size"], ascending=False, kind="stable")


def column_sizes(candidate: Candidate, owners: Sequence[str]) -> pd.DataFrame:
    """Return (columns, strengths) the norm of all weights that read a column, trained on all rows."""
    kernels = input_kernels(candidate.model) or []
    squares = np.zeros((len(candidate.path.strengths), len(owners)))
    for kernel in kernels:
        square = np.square(candidate.path.lanes.weights[kernel.position][0].astype("float64"))
        by_slice = square.sum(axis=tuple(a for a in range(1, square.ndim) if a != kernel.axis + 1))
        np.add.at(squares.T, kernel.inputs, by_slice.T)
    norms = pd.DataFrame(squares.T, index=pd.Index([*owners], name="column")).groupby(level=0, sort=False).sum() ** 0.5
    return norms.set_axis(candidate.path.strengths, axis="columns")


def draw_columns(study: Findings, selector: Candidate) -> go.Figure:
    """Draw the size of each column over the strengths, and the number of selected columns."""
    sizes, x = column_sizes(selector, selector.encoder.owners), selector.path.strengths
    figure = make_panels([["Size of each column", "Selected columns"]], "strength", "", shared="", columns=2)
    order = _order_by_size(sizes)
    gray = sizes.iloc[order[COLORED : COLORED + GRAY]]
    if len(gray):
        # One trace with gaps instead of hundreds of traces.
        apart = np.column_stack([gray.to_numpy(), np.full(len(gray), np.nan)]).ravel()
        names = np.repeat([plain_label(str(name)) for name in gray.index], len(x) + 1)
        figure.add_scatter(
            x=np.tile(np.append(x, np.nan), len(gray)), y=apart.round(6), text=names, mode="lines", meta="weights",
            line_width=1, opacity=0.6, row=1, col=1,
            hovertemplate="%{text}<br>%{y:.3g} at strength %{x:.3g}<extra></extra>",
        )  # fmt: skip
    for rank, number in enumerate(order[:COLORED]):
        name = plain_label(str(sizes.index[number]))
        figure.add_scatter(
            x=x, y=sizes.iloc[number].round(6), name=name, mode="lines+markers", marker_size=4,
            meta=f"line{rank % COLORS + 1}", line_dash=DASHES[rank // COLORS], row=1, col=1, text=[name] * len(x),
            hovertemplate="%{text}<br>%{y:.3g} at strength %{x:.3g}<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=x, y=(sizes > 0).sum(axis=0).to_numpy(), mode="lines+markers", marker_size=5, meta="zeros", row=1, col=2,
        hovertemplate=f"%{{y:,}} of {len(sizes):,} at strength %{{x:.3g}}<extra></extra>",
    )  # fmt: skip
    at = x[int(np.argmin(np.abs(x - selector.selection_strength)))]
    for column, top in ((1, float(np.nanmax(sizes.to_numpy())) or 1.0), (2, len(sizes))):
        figure.add_scatter(
            x=[at, at], y=[0, 1.08 * top], mode="lines", meta="ink", line_dash="dot", line_width=1.5, row=1, col=column,
            hoverinfo="skip",
        )  # fmt: skip
        figure.update_yaxes(range=[-0.03 * top, 1.08 * top], tickformat=",~g", row=1, col=column)
        strength_axis(figure, column, [x], [selector.selection_strength])
    return figure.update_layout(hovermode="closest")


def _order_by_size(sizes: pd.DataFrame) -> np.ndarray:
    """The positions of the columns by their largest size, without those that are always zero."""
    largest = np.nan_to_num(sizes.to_numpy()).max(axis=1)
    order = np.argsort(-largest, kind="stable")
    return order[largest[order] > 0]


def _make_legend(sizes: pd.DataFrame) -> list[LegendEntry]:
    order = _order_by_size(sizes)
    legend: list[LegendEntry] = [
        (shorten(str(sizes.index[number])), f"line{rank % COLORS + 1}", DASHES[rank // COLORS])
        for rank, number in enumerate(order[:COLORED])
    ]
    more = len(order) - COLORED
    if more > 0:
        drawn = f"{min(more, GRAY):,} of {more:,}" if more > GRAY else f"{more:,}"
        legend.append((f"{drawn} more columns", "weights", "solid"))
    return [*legend, ("strength that selects columns", "ink", "dot")]
