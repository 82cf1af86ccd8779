"""Plots of predicted probabilities: ROC curves, and calibration.

References:
    Wilson 1927, "Probable inference, the law of succession, and statistical inference", for the intervals of shares.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from scipy.stats import norm
from sklearn.metrics import roc_curve

from poise.path.plots import plain_label
from poise.study.predicted_rows import PredictedRows
from poise.study.report.numbers import shorten
from poise.study.report.panels import LegendEntry, make_panels
from poise.study.scores import LEVEL

MOST_CURVES = 6
"""Classes with a ROC curve, the most frequent ones, as many as there are colors."""
MOST_STEPS = 300
"""Points of a ROC curve."""
MOST_BINS = 10
ROWS_PER_BIN = 15
"""Rows in a bin of the calibration, at least."""
DIGITS = 4
AXIS = [-0.02, 1.02]


class CalibrationBin(NamedTuple):
    """Test rows with similar predictions.

    Args:
        probability: The mean prediction.
        share: The share of rows for which it is right.
        low, high: The 95% interval of that share.
        rows: The number of rows.
    """

    probability: float
    share: float
    low: float
    high: float
    rows: int


def draw_class_curves(predicted: PredictedRows, classes: Sequence[str]) -> tuple[go.Figure, list[LegendEntry]]:
    """Draw ROC curves, and the calibration of the second of two classes, or of the predicted class of several.

    Args:
        predicted: The test rows.
        classes: The classes.

    Returns:
        The figure, and the entries of its legend.
    """
    figure = make_panels([["ROC curve", "Calibration"]], "", "", shared="", columns=2)
    for column in (1, 2):
        figure.add_scatter(
            x=[0, 1], y=[0, 1], mode="lines", meta="total", line_dash="dash", hoverinfo="skip", row=1, col=column
        )  # fmt: skip
    legend: list[LegendEntry] = []
    for rank, number in enumerate(choose_classes(predicted), start=1):
        _add_roc_curve(figure, predicted, number, plain_label(classes[number]), f"line{rank}")
        legend.append((shorten(classes[number]), f"line{rank}", "solid"))
    _add_calibration(figure, predicted)
    figure.update_xaxes(title_text="false positive rate", range=AXIS, row=1, col=1)
    figure.update_yaxes(title_text="true positive rate", range=AXIS, row=1, col=1)
    figure.update_xaxes(title_text="predicted probability", range=AXIS, row=1, col=2)
    figure.update_yaxes(title_text="observed share", range=AXIS, row=1, col=2)
    legend.append(("chance (left), perfect calibration (right)", "total", "dash"))
    return figure.update_layout(hovermode="closest"), legend


def choose_classes(predicted: PredictedRows) -> list[int]:
    """Return the classes with a ROC curve: the second of two, or the most frequent ones of several."""
    counts = np.bincount(predicted.actual, minlength=predicted.predictions.shape[1])
    if len(counts) == 2:
        return [1] if counts.all() else []
    frequent = np.argsort(-counts, kind="stable")[:MOST_CURVES]
    return sorted(int(number) for number in frequent if 0 < counts[number] < counts.sum())


def bin_probabilities(predicted: PredictedRows) -> Iterator[CalibrationBin]:
    """Yield bins with equal numbers of rows, by the probability of the second class, or of the predicted one."""
    probabilities, rows = predicted.predictions, len(predicted.actual)
    number = np.ones(rows, int) if probabilities.shape[1] == 2 else probabilities.argmax(axis=1)
    probability, is_right = probabilities[np.arange(rows), number], predicted.actual == number
    weight = np.ones(rows) if predicted.weight is None else predicted.weight
    order = np.argsort(probability, kind="stable")
    for part in np.array_split(order, int(np.clip(rows // ROWS_PER_BIN, 1, MOST_BINS))):
        mean = float(np.average(probability[part], weights=weight[part]))
        share = float(np.average(is_right[part], weights=weight[part]))
        effective = float(weight[part].sum() ** 2 / np.square(weight[part]).sum())
        yield CalibrationBin(mean, share, *wilson_interval(share, effective), len(part))


def wilson_interval(share: float, rows: float) -> tuple[float, float]:
    """Return the 95% interval of a share of independent rows (Wilson 1927)."""
    z = float(norm.ppf(0.5 + LEVEL / 2))
    center = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return center - half, center + half


def _add_roc_curve(figure: go.Figure, predicted: PredictedRows, number: int, name: str, role: str) -> None:
    false, true, _ = roc_curve(
        predicted.actual == number, predicted.predictions[:, number], sample_weight=predicted.weight
    )  # fmt: skip
    at = np.unique(np.linspace(0, len(false) - 1, MOST_STEPS).astype(int))
    figure.add_scatter(
        x=false[at].round(DIGITS), y=true[at].round(DIGITS), mode="lines", meta=role, name=name, row=1, col=1,
        hovertemplate=f"{name}<br>true positive rate %{{y:.0%}}, false positive rate %{{x:.0%}}<extra></extra>",
    )  # fmt: skip


def _add_calibration(figure: go.Figure, predicted: PredictedRows) -> None:
    bins = [*bin_probabilities(predicted)]
    shares = np.array([each.share for each in bins])
    figure.add_scatter(
        x=np.round([each.probability for each in bins], DIGITS), y=shares.round(DIGITS), mode="lines+markers",
        meta="prediction", marker_size=7, line_width=1, row=1, col=2, name="",
        error_y={
            "array": np.round([each.high - each.share for each in bins], DIGITS),
            "arrayminus": np.round([each.share - each.low for each in bins], DIGITS),
            "thickness": 1, "width": 3,
        },
        text=[f"{each.rows:,} rows" for each in bins],
        hovertemplate="%{y:.0%} observed where %{x:.0%} is predicted<br>%{text}<extra></extra>",
    )  # fmt: skip
