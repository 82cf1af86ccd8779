"""Prediction loss and penalty over the training steps."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from poise.study.findings import Findings, has_penalty
from poise.study.report.panels import Plot, add_line, make_panels
from poise.study.report.sections.base import Section
from poise.study.settings import NO_PENALTY

LINES = (
    ("loss", "prediction, training rows", "prediction", "dot"),
    ("val_loss", "prediction, held-out rows", "prediction", "solid"),
    ("penalty", "penalty", "penalty", "solid"),
    ("total_loss", "total = prediction + penalty", "total", "dash"),
)
PREDICTION = ("loss", "val_loss")
OVERFITTING = 0.05
"""A held-out loss that rises again by more than this share of its fall shows overfitting."""
ALTERNATIVE = (
    "Line charts over the steps, for the baseline and the chosen candidate: prediction loss on training rows and on "
    "held-out rows, penalty, and total."
)


class TrainingSection(Section):
    """Training curves on the rows of the first fold."""

    name, title, link = "training", "Training curves", "Training"
    is_detail = True

    def context(self, study: Findings) -> dict[str, Any]:
        keys = [line[0] for line in LINES] if has_penalty(study.best) else PREDICTION
        legend = [line[1:] for line in LINES if line[0] in keys]
        baseline = study.watched[NO_PENALTY].history if NO_PENALTY in study.watched else None
        return {
            "plot": Plot("losses", draw_losses(study), ALTERNATIVE, legend),
            "baseline": baseline,
            "overfits": baseline is not None and _overfits(baseline["val_loss"].to_numpy()),
            "best": study.best,
            "history": study.watched[study.chosen].history,
            "is_cut": is_cut(study),
        }


def draw_losses(study: Findings) -> go.Figure:
    """Draw both losses, penalty and total over the steps, of the baseline and of the chosen candidate."""
    candidates = study.watched_candidates
    titles = [[candidate.title for candidate in candidates]]
    figure = make_panels(titles, "step", "loss", shared="xy", columns=2)
    for column, candidate in enumerate(candidates, start=1):
        history = study.watched[candidate.name].history
        for key, *style in LINES:
            if has_penalty(candidate) or key in PREDICTION:
                add_line(figure, 1, column, history.index, history[key].round(6), *style)
    figure.update_traces(hovertemplate="%{y:.4g}")
    low, high = _loss_range(study)
    figure.update_xaxes(range=[0, last_step(study)])
    return figure.update_yaxes(range=[low, high]).update_layout(hovermode="x unified")


def last_step(study: Findings) -> int:
    """Return the last step of the longest training."""
    return max(int(study.watched[candidate.name].history.index[-1]) for candidate in study.watched_candidates)


def is_cut(study: Findings) -> bool:
    """Return whether the first steps are above the edge of the plot."""
    keys = [line[0] for line in LINES]
    histories = [study.watched[candidate.name].history[keys] for candidate in study.watched_candidates]
    return any(history.max().max() > _loss_range(study)[1] for history in histories)


def _loss_range(study: Findings) -> tuple[float, float]:
    """The lowest and highest loss without the first steps, which would flatten everything else."""
    keys = [line[0] for line in LINES]
    histories = [study.watched[candidate.name].history[keys] for candidate in study.watched_candidates]
    values = np.concatenate([history.iloc[len(history) // 20 :].to_numpy().ravel() for history in histories])
    values = values[np.isfinite(values)]
    low, high = min(float(values.min(initial=0.0)), 0.0), float(values.max(initial=0.1))
    return low - (0.05 * (high - low) if low < 0 else 0.0), high + 0.05 * (high - low)


def _overfits(val_loss: np.ndarray) -> bool:
    lowest = np.nanmin(val_loss)
    return bool(val_loss[-1] - lowest > OVERFITTING * (val_loss[0] - lowest))
