"""The data, the settings and the columns."""

from typing import Any

import numpy as np

from poise.path.tables import replica_table
from poise.study.candidates.penalties import DROPOUT, get_penalty
from poise.study.columns.encoding import PIECEWISE
from poise.study.findings import Findings
from poise.study.report.description import versions
from poise.study.report.sections.base import Section

LISTED = 200
"""Columns that a table lists."""


class SettingsSection(Section):
    """What was studied, and how."""

    name, title, link = "settings", "Data and settings", "Settings"
    is_detail = True

    def context(self, study: Findings) -> dict[str, Any]:
        columns = study.table.columns
        penalties = [(candidate.title, get_penalty(candidate.name).meaning) for candidate in study.penalized]
        return {
            "table": study.table,
            "settings": study.settings,
            "rows": study.rows,
            "class_weights": [*zip(study.table.classes, np.ravel(study.table.class_weight), strict=True)]
            if study.table.class_weight is not None
            else [],
            "offsets": _list_offsets(study),
            "standardized": [*zip(study.table.targets, np.ravel(study.center), np.ravel(study.scale), strict=True)],
            "folds": replica_table(study.baseline.path.lanes).query("fold >= 0")["fold"].nunique(),
            "used": sum(column.is_used for column in columns),
            "inputs": len(study.encoder.inputs),
            "piecewise": [each.title for each in study.candidates if each.encoder.encoding == PIECEWISE],
            "is_piecewise": study.encoder.encoding == PIECEWISE,
            "outputs": study.saved.model.output_shape[-1],
            "trained": study.saved.model.count_params(),
            "saved": study.compact_model.count_params(),
            "needed": study.needed_columns,
            "loss": study.table.task.loss_title,
            "penalties": [f"{title} ({meaning})" for title, meaning in penalties],
            "has_dropout": DROPOUT in study.settings.penalties,
            "seconds": study.seconds,
            "versions": versions(),
            "columns": columns[:LISTED],
        }


def _list_offsets(study: Findings) -> list[str]:
    """Return what is added to the linear predictor."""
    offset, exposure = study.table.offset, study.table.exposure
    parts = [] if offset is None else [str(offset.name)]
    return parts if exposure is None else [*parts, f"the logarithm of {exposure.name}"]
