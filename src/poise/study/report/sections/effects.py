"""How the mean prediction changes with each of the most important columns: small multiples of partial dependence."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from poise.path.plots import plain_label
from poise.study.columns.base import text_of
from poise.study.findings import Findings
from poise.study.importance import PartialDependence
from poise.study.report.numbers import round_values
from poise.study.report.panels import Plot, make_panels
from poise.study.report.sections.base import Section

MOST_PANELS = 8
PANELS_PER_ROW = 4
MOST_CATEGORIES = 5
LONGEST_CATEGORY = 9
MARGIN = 0.08
HOVER = "%{y:.4g} at %{text}<extra></extra>"


class EffectsSection(Section):
    """One panel per column."""

    name, title, link = "effects", "How predictions change with each column", "Effects"

    def context(self, study: Findings) -> dict[str, Any] | None:
        names = choose_columns(study)
        if not names:
            return None
        alternative = (
            "Line charts, one for each column: the mean prediction over the values of the column. The direction in the "
            "table of columns says whether it rises or falls."
        )
        return {
            "plot": Plot("curves", draw_effects(study, names), alternative),
            "drawn": len(names),
            "saved": study.saved,
            "prediction": describe_prediction(study),
            "has_categories": any(not study.effects[name].is_ordered for name in names),
            "several": name_outputs(study),
            "most_categories": MOST_CATEGORIES,
        }


def choose_columns(study: Findings) -> list[str]:
    """Return the columns to draw: the most important ones whose values differ."""
    order = study.importance["importance"].sort_values(ascending=False, kind="stable").dropna()
    changes = [name for name in order.index if name in study.effects and np.ptp(study.effects[name].predictions) > 0]
    return [str(name) for name in changes[:MOST_PANELS]]


def name_outputs(study: Findings) -> str:
    """Return what the network predicts several of, one of which each panel shows: `"class"`, `"target"` or `""`."""
    if len(study.table.targets) > 1:
        return "target"
    return "class" if len(study.table.classes) > 2 else ""


def describe_prediction(study: Findings) -> str:
    """Return what the vertical axis shows."""
    classes = [*study.table.classes]
    if classes:
        return f"probability of {classes[1] if len(classes) == 2 else 'a class'}"
    title, exposure = study.table.task.name_prediction(), study.table.exposure
    return title if exposure is None else f"{title} per unit of {exposure.name}"


def draw_effects(study: Findings, names: list[str]) -> go.Figure:
    """Draw the mean prediction over the values of each column; all panels share their vertical axis."""
    curves = [study.effects[name] for name in names]
    titles = [_make_title(name, curve, study) for name, curve in zip(names, curves, strict=True)]
    figure = make_panels([titles], "", plain_label(describe_prediction(study)), shared="y", columns=PANELS_PER_ROW)
    is_single = len(study.table.targets) == 1  # several targets have several units
    heights = [curve.predictions * study.scale + study.center if is_single else curve.predictions for curve in curves]
    for column, (curve, height) in enumerate(zip(curves, heights, strict=True), start=1):
        _add_curve(figure, column, curve, height)
    low, high = min(map(np.min, heights)), max(map(np.max, heights))
    margin = MARGIN * (high - low)
    return figure.update_yaxes(range=[low - margin, high + margin]).update_layout(hovermode="closest")


def _make_title(name: str, curve: PartialDependence, study: Findings) -> str:
    """Return the title of a panel: the column, and the class or target that is drawn, if there are several."""
    several = name_outputs(study)
    return _in_one_line(name) + (f"\n{several} {_in_one_line(curve.label)}" if several else "")


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _add_curve(figure: go.Figure, column: int, curve: PartialDependence, height: np.ndarray) -> None:
    cell: dict[str, Any] = {"row": 1, "col": column, "name": "", "meta": "prediction", "hovertemplate": HOVER}
    if curve.is_ordered:
        values = place_values(curve.values)
        figure.add_scatter(
            x=values, y=round_values(height), text=values.astype(str), mode="lines+markers", marker_size=5, **cell
        )
        return
    labels = [text_of(value) for value in curve.values][:MOST_CATEGORIES]
    places = [*range(len(labels))]
    figure.add_scatter(
        x=places, y=round_values(height[: len(labels)]), text=[plain_label(label) for label in labels], mode="markers",
        marker_size=9, **cell,
    )  # fmt: skip
    most = LONGEST_CATEGORY
    short = [plain_label(label if len(label) <= most else f"{label[: most - 1]}…") for label in labels]
    figure.update_xaxes(tickvals=places, ticktext=short, range=[-0.5, len(labels) - 0.5], row=1, col=column)


def place_values(values: pd.Series) -> np.ndarray:
    """Return where numbers and dates are on an axis."""
    if pd.api.types.is_datetime64_any_dtype(values):
        has_times = (values != values.dt.normalize()).any()
        return values.dt.strftime("%Y-%m-%d %H:%M:%S" if has_times else "%Y-%m-%d").to_numpy()
    return round_values(values.to_numpy("float64"))
