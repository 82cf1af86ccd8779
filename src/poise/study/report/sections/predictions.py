"""How the predictions of the saved network for the test rows compare with what the rows are."""

from typing import Any

import numpy as np

from poise.study.findings import Findings
from poise.study.report.class_plots import draw_class_curves
from poise.study.report.number_plots import draw_number_predictions, draw_targets
from poise.study.report.numbers import format_number
from poise.study.report.panels import Plot
from poise.study.report.quantile_plots import draw_quantiles
from poise.study.report.sections.base import Section
from poise.study.report.survival_plots import draw_survival_curves
from poise.study.tasks.quantiles import Quantiles

MOST_CLASSES = 20
"""Classes in the confusion matrix, the most frequent ones."""
MOST_POINTS = 2000
UNITS = {"MAE": "both in units of", "pinball loss": "in units of"}
"""Scores in units of the target; MAE comes after RMSE."""


class PredictionsSection(Section):
    """Predicted against actual numbers, or a confusion matrix, ROC curves and calibration, or survival curves."""

    name, title, link = "predictions", "Predictions of the test rows", "Predictions"

    def context(self, study: Findings) -> dict[str, Any]:
        view = study.table.task.view
        shared = {"saved": study.saved, "rows": study.rows["test"], "metrics": list_metrics(study), "view": view}
        return {**shared, **VIEWS[view](study)}


def list_metrics(study: Findings) -> list[str]:
    """Return the score and the further scores of the saved network, with their units.

    Those of several targets are in a table.
    """
    targets = study.table.targets
    scores = {study.table.task.score_name: study.saved.score.value, **(study.metrics if len(targets) == 1 else {})}
    units = {name: f" ({words} {targets[0]})" for name, words in UNITS.items()}
    return [f"{name} {format_number(value)}{units.get(name, '')}" for name, value in scores.items()]


def _show_numbers(study: Findings) -> dict[str, Any]:
    figure, count = draw_number_predictions(study.predicted, MOST_POINTS, study.settings.seed)
    alternative = (
        "Two scatter plots of test rows: the predicted over the actual value, with a line where both are equal, and "
        "the residual, actual minus predicted, over the predicted value."
    )
    return {
        "plot": Plot("accuracy", figure, alternative),
        "drawn": count,
        "residual_note": study.table.task.residual_note,
    }


def _show_several_numbers(study: Findings) -> dict[str, Any]:
    targets = study.table.targets
    figure, count = draw_targets(study.predicted, targets, MOST_POINTS, study.settings.seed)
    alternative = (
        "Scatter plots of test rows, one for each target: the predicted over the actual value, with a line where both "
        "are equal."
    )
    values = np.reshape([*study.metrics.values()], (len(targets), -1))
    names = [name.removesuffix(f" of {targets[0]}") for name in [*study.metrics][: values.shape[1]]]
    return {
        "plot": Plot("accuracy", figure, alternative),
        "drawn": count,
        "scores": [(name, "") for name in names],
        "targets": [*zip(targets, values, strict=True)],
    }


def _show_classes(study: Findings) -> dict[str, Any]:
    figure, legend = draw_class_curves(study.predicted, study.table.classes)
    alternative = (
        "Two line charts of test rows: the ROC curve, which is the true positive rate over the false positive rate, "
        "and the calibration, which is the observed share over the predicted probability."
    )
    counts = study.predicted.count_confusions()
    shown = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[:MOST_CLASSES])
    return {
        "plot": Plot("accuracy", figure, alternative, legend),
        "labels": [study.table.classes[number] for number in shown],
        "matrix": [(study.table.classes[number], _make_row(counts[number], shown, number)) for number in shown],
        "left_out": len(study.table.classes) - len(shown),
        "has_two_classes": len(study.table.classes) == 2,
        "has_curves": len(legend) > 1,
        "correct": int(np.trace(counts)),
    }


def _make_row(counts: np.ndarray, shown: np.ndarray, number: int) -> list[tuple[int, float, bool]]:
    """Return for each predicted class the number of rows, their share of the actual class, and whether it is right."""
    total = max(int(counts.sum()), 1)
    return [(int(counts[other]), float(counts[other] / total), bool(other == number)) for other in shown]


def _show_survival(study: Findings) -> dict[str, Any]:
    figure, legend = draw_survival_curves(study.predicted, study.table.targets[0])
    alternative = (
        "Three step curves of test rows, the thirds with the lowest, the middle and the highest predicted risk: the "
        "share of rows without an event over time (Kaplan-Meier)."
    )
    return {"plot": Plot("accuracy", figure, alternative, legend)}


def _show_quantiles(study: Findings) -> dict[str, Any]:
    task = study.table.task
    assert isinstance(task, Quantiles)
    figure, legend, count = draw_quantiles(
        study.predicted, task.quantiles, task.middle, MOST_POINTS, study.settings.seed
    )  # fmt: skip
    alternative = (
        "Two plots of test rows: actual values and predicted quantiles over the middle predicted quantile, and the "
        "share of rows at or below each predicted quantile over the quantile."
    )
    return {
        "plot": Plot("accuracy", figure, alternative, legend),
        "drawn": count,
    }


VIEWS = {
    "numbers": _show_numbers,
    "several_numbers": _show_several_numbers,
    "classes": _show_classes,
    "quantiles": _show_quantiles,
    "survival": _show_survival,
}
"""What shows the predictions of a task, by `Task.view`. The HTML of a view is templates/views/VIEW.html.j2."""
