"""Plots of predicted numbers: predicted against actual, and residuals."""

import numpy as np
import plotly.graph_objects as go

from poise.study.predicted_rows import PredictedRows
from poise.study.report.numbers import round_values
from poise.study.report.panels import make_panels

MARGIN = 0.05


def draw_number_predictions(predicted: PredictedRows, most: int, seed: int) -> tuple[go.Figure, int]:
    """Draw predicted against actual values and residuals against predicted values.

    Args:
        predicted: The test rows.
        most: The number of points; of more rows a random sample is drawn.
        seed: The seed of the sample.

    Returns:
        The figure, and the number of points.
    """
    rows = np.arange(len(predicted.actual))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
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
