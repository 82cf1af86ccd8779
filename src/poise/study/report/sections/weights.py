"""Histograms of the weights before and after training."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from poise.study.findings import Findings
from poise.study.report.panels import Plot, make_panels
from poise.study.report.sections.base import Section

BINS = 41
ALTERNATIVE = (
    "Histograms of the weights before and after training, with a separate bar for weights that are exactly zero; their "
    "numbers are in the headings."
)
BETWEEN = "%{y:,} between %{customdata[0]:.3g} and %{customdata[1]:.3g}<extra></extra>"


class WeightsSection(Section):
    """How the weights are distributed, and how many are exactly zero."""

    name, title, link = "histograms", "Weights before and after training", "Weights"
    is_detail = True

    def context(self, study: Findings) -> dict[str, Any]:
        return {"plot": Plot("weights", draw_weights(study), ALTERNATIVE)}


def draw_weights(study: Findings) -> go.Figure:
    """Draw histograms of the weights at the start and after each watched training."""
    candidates = study.watched_candidates
    parts = {"Before training": study.watched[candidates[0].name].before}
    parts |= {candidate.title: study.watched[candidate.name].after for candidate in candidates}
    end = max(float(np.abs(weights).max(initial=0.0)) for weights in parts.values()) or 1.0
    edges = np.linspace(-end, end, BINS + 1)
    middles, bounds = (edges[:-1] + edges[1:]) / 2.0, np.column_stack([edges[:-1], edges[1:]]).round(6)
    zeros = {name: int((weights == 0.0).sum()) for name, weights in parts.items()}
    titles = [f"{name}\n{zeros[name]:,} of {len(weights):,} exactly zero" for name, weights in parts.items()]
    figure = make_panels([titles], "weight", "number of weights", shared="xy", columns=3)
    highest = 1
    for column, (name, weights) in enumerate(parts.items(), start=1):
        cell = {"row": 1, "col": column, "width": edges[1] - edges[0], "name": ""}
        counts, _ = np.histogram(weights[weights != 0.0], edges)
        highest = max(highest, int(counts.max()))
        figure.add_bar(x=middles.round(6), y=counts, customdata=bounds, meta="weights", hovertemplate=BETWEEN, **cell)
        figure.add_bar(
            x=[0.0], y=[zeros[name]], meta="zeros", hovertemplate="%{y:,} exactly zero<extra></extra>", **cell
        )
    # The bar of zeros may exceed the plot: it would otherwise flatten all others.
    figure.update_yaxes(range=[0, 1.15 * highest])
    return figure.update_layout(barmode="stack", hovermode="closest")
