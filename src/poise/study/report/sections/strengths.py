"""Held-out and training loss over the strengths of each penalty, and over the rates of dropout."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from poise.path.result import RegularizationPath
from poise.study.findings import Candidate, Findings, has_penalty
from poise.study.report.names import quantity_of
from poise.study.report.panels import Plot, log_axis, make_panels, strength_axis
from poise.study.report.sections.base import Section

LEGEND = (
    ("held-out rows", "prediction", "solid"),
    ("± 1 standard error", "band", "band"),
    ("training rows", "prediction", "dot"),
    ("held-out rows, no penalty", "total", "dash"),
    ("strength that predicts", "ink", "disc"),
    ("strength that selects columns", "zeros", "diamond"),
)
LAST_STAGE = ("held-out rows, last adaptive stage", "prediction", "dash")
WIDE_RANGE = 20.0
"""Losses that differ by more than this factor need a logarithmic axis."""
HOVER = "{}<br>%{{y:.4g}}{} at {} %{{x:.3g}}<extra></extra>"
ALTERNATIVE = (
    "Line charts, one for each penalty or dropout. Each shows three losses over the strength of the penalty or the "
    "rate of dropout: the prediction loss on held-out rows with a band of one standard error, the prediction loss on "
    "training rows, and, as a horizontal line, the held-out loss without a penalty. The comparison table lists the "
    "values at the chosen strengths."
)


class StrengthsSection(Section):
    """The regularization path of each penalty, and the path of dropout."""

    name, title, link = "strengths", "Loss along each regularization path", "Strengths"

    def context(self, study: Findings) -> dict[str, Any] | None:
        penalized = study.penalized
        if not penalized:
            return None
        has_stages = any(candidate.path is not candidate.stage for candidate in penalized)
        can_select = any(has_penalty(candidate) for candidate in penalized)
        legend = [*(LEGEND if can_select else LEGEND[:-1]), *([LAST_STAGE] if has_stages else [])]
        return {
            "plot": Plot("paths", draw_paths(study), ALTERNATIVE, legend),
            "has_stages": has_stages,
            "can_select": can_select,
            "baseline": study.baseline,
            "penalized": penalized,
        }


def draw_paths(study: Findings) -> go.Figure:
    """Draw held-out and training loss over the strengths or rates, one panel per candidate."""
    candidates = study.penalized
    titles = [f"{candidate.title}{', chosen' if candidate.name == study.chosen else ''}" for candidate in candidates]
    figure = make_panels([titles], "strength", "prediction loss", shared="y", columns=len(titles))
    low, high, is_log = _loss_range(study)
    for column, candidate in enumerate(candidates, start=1):
        _add_path(figure, column, candidate, study.baseline.val_loss, low)
        figure.update_xaxes(title_text=quantity_of(candidate.name), row=1, col=column)
    figure.update_yaxes(log_axis(low, high) if is_log else {"range": [low, high]})
    return figure.update_layout(hovermode="closest")


def _loss_range(study: Findings) -> tuple[float, float, bool]:
    """The lowest and highest loss of all panels, and whether the axis is logarithmic."""
    tables = [stage.table for candidate in study.penalized for stage in {candidate.stage, candidate.path}]
    held = np.concatenate([*(table["val_loss"] for table in tables), [study.baseline.val_loss]])
    train = np.concatenate([table["loss"] for table in tables])
    held, train = held[np.isfinite(held)], train[np.isfinite(train)]
    tops = np.concatenate([table["val_loss"] + table["val_se"].fillna(0.0) for table in tables])
    if not len(held):
        return 0.0, 1.0, False
    high = float(np.nanmax([held.max(), *tops[np.isfinite(tops)]]))
    low = float(min(held.min(), train.min(initial=held.min())))
    if 0 < held.min() < held.max() / WIDE_RANGE:
        return max(low, held.min() / 10) / 1.2, 1.2 * high, True
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin, False


def _add_path(figure: go.Figure, column: int, candidate: Candidate, baseline: float, low: float) -> None:
    cell = {"row": 1, "col": column}
    stage, path, quantity = candidate.stage, candidate.path, quantity_of(candidate.name)
    table, x = stage.table, stage.strengths
    mean, error = table["val_loss"].to_numpy(), table["val_se"].to_numpy()
    _add_band(figure, cell, x, mean, error, low)
    figure.add_scatter(
        x=x, y=table["loss"], mode="lines", meta="prediction", line_dash="dot", name="training rows", marker_size=5,
        hovertemplate=HOVER.format("training rows", "", quantity), **cell,
    )  # fmt: skip
    if path is not stage:
        figure.add_scatter(
            x=path.strengths, y=path.table["val_loss"], mode="lines", meta="prediction", line_dash="dash",
            name=LAST_STAGE[0], hovertemplate=HOVER.format(LAST_STAGE[0], "", quantity), **cell,
        )  # fmt: skip
    ends = [*x, *path.strengths]
    figure.add_scatter(
        x=np.geomspace(min(ends), max(ends), 25), y=np.full(25, baseline), mode="lines", meta="total",
        line_dash="dash", name="no penalty", hovertemplate="no penalty<br>%{y:.4g}<extra></extra>", **cell,
    )  # fmt: skip
    figure.add_scatter(
        x=x, y=mean, customdata=error, mode="lines+markers", meta="prediction", name="held-out rows", marker_size=5,
        hovertemplate=HOVER.format("held-out rows", " ± %{customdata:.2g}", quantity), **cell,
    )  # fmt: skip
    diverged = table["diverged"].to_numpy() > 0
    if diverged.any():
        figure.add_scatter(
            x=x[diverged], y=np.full(diverged.sum(), low), mode="markers", meta="penalty", name="",
            marker={"symbol": "x", "size": 8}, hovertemplate="diverged<extra></extra>", cliponaxis=False, **cell,
        )  # fmt: skip
    diamond, disc = {"symbol": "diamond-open", "size": 14}, {"symbol": "circle", "size": 9}
    if has_penalty(candidate):
        _add_mark(figure, cell, candidate, path, candidate.selection_strength, "zeros", diamond, "selects columns")
    _add_mark(figure, cell, candidate, stage, candidate.strength, "ink", disc, "predicts")
    strength_axis(figure, column, [x, path.strengths], [candidate.strength, candidate.selection_strength])


def _add_band(
    figure: go.Figure, cell: dict[str, int], x: np.ndarray, mean: np.ndarray, error: np.ndarray, low: float
) -> None:
    is_known = np.isfinite(mean) & np.isfinite(error)
    if is_known.any():
        x, top, bottom = x[is_known], (mean + error)[is_known], np.maximum((mean - error)[is_known], low)
        figure.add_scatter(
            x=np.append(x, x[::-1]), y=np.append(top, bottom[::-1]), fill="toself", mode="lines", meta="band",
            hoverinfo="skip", **cell,
        )  # fmt: skip


def _add_mark(
    figure: go.Figure,
    cell: dict[str, int],
    candidate: Candidate,
    path: RegularizationPath,
    strength: float,
    role: str,
    marker: dict,
    name: str,
) -> None:
    at = int(np.argmin(np.abs(path.strengths - strength)))
    figure.add_scatter(
        x=[path.strengths[at]], y=[path.table["val_loss"].iloc[at]], mode="markers", meta=role, marker=marker,
        name=name, hovertemplate=HOVER.format(name, "", quantity_of(candidate.name)), **cell,
    )  # fmt: skip
