"""Kaplan-Meier curves of test rows by predicted risk."""

import numpy as np
import plotly.graph_objects as go

from poise.study.predicted_rows import PredictedRows
from poise.study.report.numbers import round_values
from poise.study.report.panels import LegendEntry, make_panels
from poise.survival.curves import KaplanMeier

GROUPS = ("lowest", "middle", "highest")
"""Thirds of the test rows by predicted log hazard ratio."""
MOST_STEPS = 300
"""Points of a curve."""


def draw_survival_curves(predicted: PredictedRows, time: str) -> tuple[go.Figure, list[LegendEntry]]:
    """Draw the share of rows without an event over time, in thirds of the rows by predicted risk.

    Args:
        predicted: The test rows.
        time: The name of the time.

    Returns:
        The figure, and the entries of its legend. A third without events has no curve.
    """
    figure = make_panels([["Rows without an event, by predicted risk"]], "", "", shared="", columns=1)
    legend: list[LegendEntry] = []
    thirds = np.array_split(np.argsort(predicted.predictions, kind="stable"), len(GROUPS))
    for number, (name, rows) in enumerate(zip(GROUPS, thirds, strict=True), start=1):
        y = predicted.actual[rows]
        if not y[:, 1].any():
            continue
        curve = KaplanMeier.fit(y, None if predicted.weight is None else predicted.weight[rows])
        at = np.unique(np.linspace(0, len(curve.times) - 1, MOST_STEPS).astype(int))
        times = np.concatenate([[0.0], curve.times[at], [y[:, 0].max()]])
        shares = np.concatenate([[1.0], curve.probabilities[at], curve.probabilities[-1:]])
        title, role = f"{name} predicted risk", f"line{number}"
        figure.add_scatter(
            x=round_values(times), y=shares.round(4), mode="lines", line_shape="hv", meta=role, name=title,
            row=1, col=1,
            hovertemplate=f"{title}<br>%{{y:.0%}} without an event at %{{x:.4g}}<extra></extra>",
        )  # fmt: skip
        legend.append((title, role, "solid"))
    figure.update_xaxes(title_text=time, rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="share without an event", range=[-0.02, 1.02], tickformat=".0%", row=1, col=1)
    return figure.update_layout(hovermode="closest"), legend
