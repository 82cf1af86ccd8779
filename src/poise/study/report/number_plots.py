"""Plots of predicted numbers: predicted against actual, and residuals."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from poise.study.predicted_rows import PredictedRows
from poise.study.report.numbers import round_values
from poise.study.report.panels import make_panels

MARGIN = 0.05
MOST_TARGETS = 8
TARGETS_PER_ROW = 4


def draw_number_predictions(predicted: PredictedRows, most: int, seed: int) -> tuple[go.Figure, int]:
    """Draw predicted against actual values and residuals against predicted values.

    Args:
        predicted: The test rows.
        most: The number of points; of more rows a random sample is drawn.
        seed: The seed of the sample.

    Returns:
        The figure, and the number of points.
    """
    rows = draw_rows(predicted, most, seed)
    actual, values = round_values(predicted.actual[rows]), round_values(predicted.predictions[rows])
    residuals = round_values(predicted.actual[rows] - predicted.predictions[rows])
    figure = make_panels([["Predicted against actual", "Residuals"]], "", "", shared="", columns=2)
    ends = _widen(np.concatenate([actual, values]))
    _add_line(figure, 1, ends, ends)
    _add_points(figure, 1, actual, values, "actual %{x:.4g}, predicted %{y:.4g}")
    across = _widen(values)
    _add_line(figure, 2, across, [0.0, 0.0])
    _add_points(figure, 2, values, residuals, "predicted %{x:.4g}, residual %{y:.4g}")
    figure.update_xaxes(title_text="actual", range=ends, row=1, col=1)
    figure.update_yaxes(title_text="predicted", range=ends, row=1, col=1)
    figure.update_xaxes(title_text="predicted", range=across, row=1, col=2)
    figure.update_yaxes(title_text="actual − predicted", row=1, col=2)
    return figure.update_layout(hovermode="closest"), len(rows)


def draw_targets(predicted: PredictedRows, targets: Sequence[str], most: int, seed: int) -> tuple[go.Figure, int]:
    """Draw predicted against actual values of each target, at most the first `MOST_TARGETS`.

    Args:
        predicted: The test rows.
        targets: The names of the targets.
        most: The number of points per panel; of more rows a random sample is drawn.
        seed: The seed of the sample.

    Returns:
        The figure, and the number of points per panel.
    """
    rows, names = draw_rows(predicted, most, seed), list(targets[:MOST_TARGETS])
    figure = make_panels([names], "actual", "predicted", shared="", columns=TARGETS_PER_ROW)
    for number in range(len(names)):
        actual, values = round_values(predicted.actual[rows, number]), round_values(predicted.predictions[rows, number])
        ends = _widen(np.concatenate([actual, values]))
        _add_line(figure, number + 1, ends, ends)
        _add_points(figure, number + 1, actual, values, "actual %{x:.4g}, predicted %{y:.4g}")
        figure.update_xaxes(range=ends, row=1, col=number + 1).update_yaxes(range=ends, row=1, col=number + 1)
    return figure.update_layout(hovermode="closest"), len(rows)


def draw_rows(predicted: PredictedRows, most: int, seed: int) -> np.ndarray:
    """Return the positions of the rows, or of a random sample of them in order."""
    rows = np.arange(len(predicted.actual))
    return rows if len(rows) <= most else np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _add_points(figure: go.Figure, column: int, x: np.ndarray, y: np.ndarray, hover: str) -> None:
    figure.add_scatter(
        x=x, y=y, mode="markers", meta="prediction", marker_opacity=0.55, marker_size=6, row=1, col=column,
        hovertemplate=f"{hover}<extra></extra>",
    )  # fmt: skip


def _add_line(figure: go.Figure, column: int, x: list[float], y: list[float]) -> None:
    figure.add_scatter(x=x, y=y, mode="lines", meta="total", line_dash="dash", hoverinfo="skip", row=1, col=column)


def _widen(values: np.ndarray) -> list[float]:
    """Return the ends of an axis that holds the values."""
    low, high = float(values.min()), float(values.max())
    margin = MARGIN * (high - low) or 1.0
    return [low - margin, high + margin]
