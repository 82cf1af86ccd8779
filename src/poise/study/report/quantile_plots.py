"""Plots of predicted quantiles: actual values over the middle quantile, and how often they are below each quantile."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from poise.study.predicted_rows import PredictedRows
from poise.study.report.class_plots import wilson_interval
from poise.study.report.number_plots import draw_rows
from poise.study.report.numbers import round_values
from poise.study.report.panels import LegendEntry, make_panels

DIGITS = 4


def draw_quantiles(
    predicted: PredictedRows, quantiles: Sequence[float], middle: int, most: int, seed: int
) -> tuple[go.Figure, Sequence[LegendEntry], int]:
    """Draw actual values and predicted quantiles over the middle one, and the share of rows below each quantile.

    Args:
        predicted: The test rows.
        quantiles: The quantiles.
        middle: The number of the one on the horizontal axis.
        most: The number of rows in the first panel; of more rows a random sample is drawn.
        seed: The seed of the sample.

    Returns:
        The figure, its legend, and the number of rows in the first panel.
    """
    rows = draw_rows(predicted, most, seed)
    rows = rows[np.argsort(predicted.predictions[rows, middle], kind="stable")]
    figure = make_panels([["Actual and predicted", "Calibration"]], "", "", shared="", columns=2)
    x = round_values(predicted.predictions[rows, middle])
    for number, quantile in enumerate(quantiles):
        figure.add_scatter(
            x=x, y=round_values(predicted.predictions[rows, number]), mode="markers", marker_size=4, meta="total",
            name="", row=1, col=1, hovertemplate=f"quantile {quantile:g}: %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=x, y=round_values(predicted.actual[rows]), mode="markers", marker_size=6, marker_opacity=0.55,
        meta="prediction", name="", row=1, col=1, hovertemplate="actual %{y:.4g}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text=f"predicted quantile {quantiles[middle]:g}", row=1, col=1)
    _add_calibration(figure, predicted, quantiles)
    legend = [("actual values", "prediction", "disc"), ("predicted quantiles", "total", "disc")]
    return figure.update_layout(hovermode="closest"), legend, len(rows)


def _add_calibration(figure: go.Figure, predicted: PredictedRows, quantiles: Sequence[float]) -> None:
    weight = np.ones(len(predicted.actual)) if predicted.weight is None else predicted.weight
    below = predicted.actual[:, None] <= predicted.predictions
    shares = np.average(below, axis=0, weights=weight)
    effective = float(weight.sum() ** 2 / np.square(weight).sum())
    ends = np.array([wilson_interval(share, effective) for share in shares])
    figure.add_scatter(
        x=[0.0, 1.0], y=[0.0, 1.0], mode="lines", meta="total", line_dash="dash", hoverinfo="skip", row=1, col=2
    )
    figure.add_scatter(
        x=list(quantiles), y=shares.round(DIGITS), mode="markers", meta="prediction", marker_size=8, name="", row=1,
        col=2,
        error_y={
            "array": (ends[:, 1] - shares).round(DIGITS), "arrayminus": (shares - ends[:, 0]).round(DIGITS),
            "thickness": 1, "width": 3,
        },
        hovertemplate="%{y:.0%} of rows below quantile %{x:.4g}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="quantile", range=[0.0, 1.0], row=1, col=2)
    figure.update_yaxes(title_text="share of rows below", range=[0.0, 1.0], row=1, col=2)
