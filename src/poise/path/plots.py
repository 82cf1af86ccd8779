"""The plot of a path: losses, sizes of weights, and shares that are not zero, over the strengths.

The axis of strengths is logarithmic, with a strength of zero left of the others. Names come from data and are escaped,
because Plotly reads a subset of HTML.
"""

import html
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from plotly.subplots import make_subplots

NAMED = 20
"""Number of the largest weights or groups, which are drawn in color and named."""
UNNAMED = 300
"""Number of the next largest, which are drawn in gray; more would not be visible."""

PREDICTION, PENALTY, ZEROS = "#0072b2", "#d55e00", "#00805e"
INK, SOFT, RULE, PAPER, WEIGHTS = "#1c2127", "#59626d", "#dfe2e6", "#ffffff", "#c3cad2"
COLORS = ("#0072b2", "#d55e00", "#00805e", "#cc79a7", "#8a6d00", "#2fa4d7", "#59626d")
DASHES = ("solid", "dash", "dot")
# The middle panel is as high as the list of its names.
HEIGHT, HEIGHTS = 1000, {"loss": 0.30, "sizes": 0.48, "nonzero": 0.22}
TITLES = {
    "loss": "prediction loss",
    "sizes": "size of weights (trained on all rows)",
    "nonzero": "share that is not zero (trained on all rows)",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
BRANCHES = {
    "features": ("inputs", ZEROS, "solid"),
    "units": ("units", INK, "dash"),
    "weights": ("weights", SOFT, "dot"),
}


class PathFigure(go.Figure):
    """A figure that the HTML export of a notebook shows, too. Plotly chooses a renderer that only Jupyter can show."""

    def _ipython_display_(self) -> None:
        if pio.renderers.default == "plotly_mimetype":
            pio.show(self, renderer="plotly_mimetype+notebook_connected")
        else:
            super()._ipython_display_()


def plot_path(
    table: pd.DataFrame,
    sizes: Mapping[str, np.ndarray],
    label: Callable[[str, tuple[int, ...]], str],
    totals: Mapping[str, float],
    marks: Mapping[str, int],
    title: str,
) -> go.Figure:
    """Return the plot of a path.

    Args:
        table: `poise.RegularizationPath.table`.
        sizes: by variable, (strengths, groups or *shape); if empty, there is no panel of sizes.
        label: returns the name of a group or an entry of a variable, by its index.
        totals: numbers of `features`, `units` and `weights`; NaN or missing if unknown.
        marks: maps the name of a mark to its position in the grid, such as {"best": 3}.
        title: title of the axis of strengths.
    """
    panels = ["loss", *(["sizes"] if sizes else []), "nonzero"]
    strengths = table["strength"].to_numpy()
    x = axis_positions(strengths)
    figure = make_subplots(
        figure=PathFigure(),
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.06,
        row_heights=[HEIGHTS[panel] for panel in panels],
        subplot_titles=[TITLES[panel] for panel in panels],
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 13, "color": INK})
    for row, panel in enumerate(panels, start=1):
        cell = {"row": row, "col": 1, "legend": f"legend{row}"}
        if panel == "loss":
            _add_losses(figure, cell, x, table)
        elif panel == "sizes":
            _add_sizes(figure, cell, x, strengths, sizes, label)
        else:
            _add_nonzero(figure, cell, x, table, totals)
    _add_marks(figure, x, strengths, marks)
    _set_layout(figure, x, strengths, title)
    return figure


def plain_label(text: str, most: int = 28) -> str:
    """Return text that Plotly shows literally: without tags, links and line breaks, and at most `most` long."""
    plain = " ".join(text.split())
    if len(plain) > most:  # names that start alike often end differently
        plain = f"{plain[: most - 11]}…{plain[-10:]}"
    return html.escape(plain, quote=False)


def axis_positions(strengths: np.ndarray) -> np.ndarray:
    """Return the strengths on a logarithmic axis, a strength of zero two steps left of the next one."""
    positive = strengths[strengths > 0]
    if not len(positive):
        return np.ones(len(strengths))
    span = np.log10(positive[-1] / positive[0])
    gap = max(2.0 * span / max(len(positive) - 1, 1), 0.05 * span, 0.1)
    return np.where(strengths > 0, strengths, positive[0] / 10.0**gap)


def _add_losses(figure: go.Figure, cell: dict, x: np.ndarray, table: pd.DataFrame) -> None:
    """Add both losses, the band of one standard error, and crosses where a lane diverged."""
    mean, error, loss = (table[column].to_numpy(float) for column in ("val_loss", "val_se", "loss"))
    low, high, is_log = _range(mean, np.where(np.isfinite(error), error, 0.0), loss)
    strength = table["strength"]
    has_band = np.isfinite(mean) & np.isfinite(error)
    for number, part in enumerate(_runs(has_band)):
        top, bottom = mean[part] + error[part], np.maximum(mean[part] - error[part], low)
        around, border = np.append(x[part], x[part][::-1]), np.append(top, bottom[::-1])
        figure.add_scatter(
            x=around, y=border, fill="toself", fillcolor="rgba(0, 114, 178, 0.16)", line_width=0, mode="lines",
            hoverinfo="skip", name="± 1 standard error", legendgroup="band", legendrank=2,
            showlegend=number == 0, **cell,
        )  # fmt: skip
    line = {"customdata": strength, "mode": _mode(x, 40), "marker_size": 5, **cell}
    hover = "strength %{customdata:.4g}<br>%{y:.5g}"
    figure.add_scatter(
        x=x, y=_gaps(loss), name="training", line={"color": SOFT, "width": 1.2, "dash": "dot"}, hovertemplate=hover,
        legendrank=3, **line,
    )  # fmt: skip
    figure.add_scatter(
        x=x, y=_gaps(mean), name="validation", line={"color": PREDICTION, "width": 2.4}, hovertemplate=hover,
        legendrank=1, **line,
    )  # fmt: skip
    diverged = table["diverged"].to_numpy()
    if diverged.any():
        at = diverged > 0
        figure.add_scatter(
            x=x[at], y=np.full(at.sum(), low), customdata=np.column_stack([strength[at], diverged[at]]),
            mode="markers", marker={"symbol": "x", "size": 7, "color": PENALTY}, name="diverged", cliponaxis=False,
            hovertemplate="strength %{customdata[0]:.4g}<br>lanes that diverged: %{customdata[1]}", legendrank=4,
            **cell,
        )  # fmt: skip
    axis: dict = {"range": [low, high]}
    if is_log:
        ticks = _round_numbers(low, high, 7)
        axis = {"type": "log", "range": [np.log10(low), np.log10(high)], "tickvals": ticks, "ticktext": _texts(ticks)}
    figure.update_yaxes(**axis, row=cell["row"], col=1)


def _range(mean: np.ndarray, error: np.ndarray, loss: np.ndarray) -> tuple[float, float, bool]:
    """Return (lowest, highest, whether logarithmic): logarithmic if positive losses differ by a factor over 20."""
    losses = np.concatenate([mean, loss])
    losses = losses[np.isfinite(losses)]
    if not len(losses):
        return 0.0, 1.0, False
    if 0 < losses.min() < losses.max() / 20:
        return float(losses.min()) / 1.3, float(losses.max()) * 1.3, True
    seen = np.concatenate([losses, *(edge[np.isfinite(edge)] for edge in (mean - error, mean + error))])
    low, high = float(seen.min()), float(seen.max())
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin, False


def _runs(is_true: np.ndarray) -> list[slice]:
    """Return the slices of neighbors that are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_true, [False]]).astype(int)))
    return [slice(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _mode(x: np.ndarray, most: int) -> str:
    """Return Plotly's mode: lines, with markers if there are few points."""
    return "lines+markers" if len(x) <= most else "lines"


def _gaps(values: Any) -> np.ndarray:
    """Return a curve with a gap where a number is not finite."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values), values, np.nan)


def _add_sizes(
    figure: go.Figure,
    cell: dict,
    x: np.ndarray,
    strengths: np.ndarray,
    sizes: Mapping[str, np.ndarray],
    label: Callable[[str, tuple[int, ...]], str],
) -> None:
    """Add the largest sizes in color with their names, the next ones as a single gray trace with gaps between them."""
    names = [name for name, array in sizes.items() for _ in range(array[0].size)]
    flat = np.concatenate([array.reshape(len(x), -1) for array in sizes.values()], axis=1)
    starts = dict(zip(sizes, np.cumsum([0, *(array[0].size for array in sizes.values())]), strict=False))
    largest = np.where(np.isfinite(flat), flat, 0.0).max(axis=0)
    order = np.argsort(-largest, kind="stable")
    order = order[largest[order] > 0]
    gray = order[NAMED : NAMED + UNNAMED]
    if len(gray):
        left = len(order) - NAMED
        name = f"{left} more" if left <= UNNAMED else f"{UNNAMED} of {left:,} more"
        apart = np.concatenate([_gaps(flat[:, gray]), np.full((1, len(gray)), np.nan)]).T.ravel()
        along = np.tile(np.append(x, np.nan), len(gray))
        figure.add_scatter(
            x=along.astype("float32"), y=apart.astype("float32"), mode="lines", name=name, hoverinfo="skip",
            line={"color": WEIGHTS, "width": 0.8}, opacity=0.7, **cell,
        )  # fmt: skip
    for rank, number in enumerate(order[:NAMED]):
        variable = names[number]
        index = np.unravel_index(number - starts[variable], sizes[variable].shape[1:])
        dash = DASHES[rank // len(COLORS) % len(DASHES)]
        figure.add_scatter(
            x=x, y=_gaps(flat[:, number]), customdata=strengths, mode=_mode(x, 12), marker_size=4,
            name=plain_label(label(variable, tuple(map(int, index)))),
            line={"color": COLORS[rank % len(COLORS)], "width": 1.6, "dash": dash},
            hovertemplate="strength %{customdata:.4g}<br>%{y:.4g}", **cell,
        )  # fmt: skip
    figure.update_yaxes(rangemode="tozero", row=cell["row"], col=1)


def _add_nonzero(
    figure: go.Figure, cell: dict, x: np.ndarray, table: pd.DataFrame, totals: Mapping[str, float]
) -> None:
    """Add the shares of inputs, units and weights that are not zero."""
    counts = {"features": table["features"], "units": table["units"], "weights": totals["weights"] - table["zeros"]}
    for key, (name, color, dash) in BRANCHES.items():
        total = totals.get(key, np.nan)
        if not total > 0:
            continue
        count = counts[key].to_numpy(float)
        figure.add_scatter(
            x=x, y=_gaps(count / total), customdata=np.column_stack([table["strength"], count]), mode=_mode(x, 12),
            marker_size=4,
            name=f"{name}, of {total:,.0f}", line={"color": color, "width": 2, "dash": dash},
            hovertemplate=f"strength %{{customdata[0]:.4g}}<br>%{{customdata[1]:,.0f}} of {total:,.0f}", **cell,
        )  # fmt: skip
    figure.update_yaxes(range=[-0.04, 1.06], tickformat=".0%", nticks=4, row=cell["row"], col=1)


def _add_marks(figure: go.Figure, x: np.ndarray, strengths: np.ndarray, marks: Mapping[str, int]) -> None:
    """Add a line through all panels for each mark, its name above; marks on the same strength share one."""
    places_of: dict[int, list[str]] = {}
    for name, at in marks.items():
        places_of.setdefault(at, []).append(name)
    for line, (at, names) in enumerate(sorted(places_of.items())):
        figure.add_vline(x=x[at], line={"color": INK, "width": 1, "dash": "dash"}, opacity=0.6)
        # One name per line, so that neighbors do not cover each other; at the edges inside the plot.
        across = np.log10(x[at] / x[0]) / (np.log10(x[-1] / x[0]) or 1.0)
        figure.add_annotation(
            x=np.log10(x[at]), y=1, xref="x", yref="y domain", yanchor="bottom", yshift=18 + 15 * line,
            xanchor="left" if across < 0.1 else "right" if across > 0.9 else "center", showarrow=False,
            text=f"<b>{' = '.join(names)}</b> {strengths[at]:.3g}", font={"size": 12, "color": INK},
        )  # fmt: skip


def _set_layout(figure: go.Figure, x: np.ndarray, strengths: np.ndarray, title: str) -> None:
    ticks, texts = _ticks(x, strengths)
    margin = 0.02 * np.log10(x[-1] / x[0]) or 0.5
    figure.update_xaxes(
        type="log", tickvals=ticks, ticktext=texts, range=[np.log10(x[0]) - margin, np.log10(x[-1]) + margin],
        showgrid=False, zeroline=False, linecolor=RULE, tickfont={"size": 11, "color": SOFT},
    )  # fmt: skip
    figure.update_yaxes(gridcolor=RULE, zeroline=False, tickfont={"size": 11, "color": SOFT})
    last = max(figure.select_xaxes(), key=lambda axis: int(axis.plotly_name[5:] or "1"))
    last.update(title={"text": plain_label(title, 90), "font": {"size": 12, "color": SOFT}, "standoff": 8})
    # Each panel has its legend next to it.
    for number, axis in enumerate(figure.select_yaxes(), start=1):
        place = {"x": 1.01, "y": axis.domain[1], "xanchor": "left", "yanchor": "top", "tracegroupgap": 0}
        figure.update_layout({f"legend{number}": {**place, "font": {"size": 11, "color": SOFT}}})
    figure.update_layout(
        template="none", height=HEIGHT, margin={"l": 64, "r": 20, "t": 72, "b": 56}, hovermode="closest",
        paper_bgcolor=PAPER, plot_bgcolor=PAPER, font={"family": FONT, "size": 12, "color": INK},
        hoverlabel={"bgcolor": PAPER, "bordercolor": RULE, "font": {"color": INK, "size": 12}},
    )  # fmt: skip


def _ticks(x: np.ndarray, strengths: np.ndarray) -> tuple[list[float], list[str]]:
    """Return ticks of round numbers with their texts, and "0" for a strength of zero."""
    positive = strengths[strengths > 0]
    zero = [float(x[0])] if strengths[0] == 0 else []
    if not len(positive):
        return zero, ["0"]
    inside = _round_numbers(0.999 * positive[0], 1.001 * positive[-1], 9) or positive.tolist()
    return [*zero, *inside], ["0"] * len(zero) + _texts(inside)


def _round_numbers(low: float, high: float, most: int) -> list[float]:
    """Return round numbers between two positive ones, evenly apart on a logarithmic axis: about `most`, or fewer."""
    inside: list[float] = []
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 4)):
        values = [digit * 10.0**power for power in decades if power % every == 0 for digit in digits]
        inside = [value for value in values if low <= value <= high]
        if len(inside) <= most:
            break
    return inside


def _texts(values: list[float]) -> list[str]:
    return [f"{value:.3g}" for value in values]
