"""The coefficients of a network without hidden layers, which is a linear model."""

from typing import Any

import keras
import numpy as np

from poise.study.columns.encoding import PIECEWISE
from poise.study.findings import Findings
from poise.study.report.sections.base import Section

LISTED = 200
"""Inputs that the table lists, those with the largest coefficients."""


class CoefficientsSection(Section):
    """One row per input, and the intercept. An additive model has curves instead."""

    name, title, link = "coefficients", "Coefficients of the linear model", "Coefficients"

    def context(self, study: Findings) -> dict[str, Any] | None:
        is_additive = study.encoder.encoding == PIECEWISE  # its curves are drawn as effects
        is_linear = bool(study.table.task.coefficient_meaning)
        if study.settings.model is not None or study.settings.hidden_layer_sizes or is_additive or not is_linear:
            return None
        kernel, bias = (keras.ops.convert_to_numpy(weight).astype("float64") for weight in study.saved.model.weights)
        kernel, bias = study.table.task.unstandardize(kernel, bias, study.center, study.scale)
        names = study.table.classes or study.table.targets if len(bias) > 1 else ["coefficient"]
        order = np.argsort(-np.abs(kernel).max(axis=1), kind="stable")
        return {
            "saved": study.saved,
            "meaning": study.table.task.coefficient_meaning,
            "columns": [(name, "") for name in names],
            "second": study.table.classes[1] if study.table.classes and len(bias) == 1 else None,
            "intercept": bias,
            "rows": [(study.encoder.inputs[at], kernel[at]) for at in order[:LISTED]],
            "left_out": max(len(order) - LISTED, 0),
            "zeros": int((kernel == 0.0).all(axis=1).sum()),
        }
