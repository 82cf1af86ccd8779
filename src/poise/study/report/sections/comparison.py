"""All candidates in one table."""

from typing import Any

import numpy as np

from poise.path.tables import replica_table
from poise.study.candidates.penalties import DROPOUT
from poise.study.findings import Candidate, Findings, Reference, has_penalty
from poise.study.report.numbers import format_interval, format_number, format_with_error
from poise.study.report.sections.base import Section

Cell = tuple[str, str, str]
"""The text, the number to sort by as text, and the interval below it."""


class ComparisonSection(Section):
    """One row per network: losses, score, gain, and the columns and zeros of the network that has them."""

    name, title, link = "comparison", "Comparison of all networks and reference models", "Comparison"

    def context(self, study: Findings) -> dict[str, Any]:
        return {
            "rows": [(candidate, _make_cells(candidate)) for candidate in study.networks],
            "references": [(reference, _make_reference_cells(reference)) for reference in study.references],
            "saved": study.saved.name,
            "has_dropout": DROPOUT in study.settings.penalties,
            "folds": replica_table(study.baseline.path.lanes).query("fold >= 0")["fold"].nunique(),
            "test_rows": study.rows["test"],
            "score": study.table.task.score_name,
            "loss_unit": study.table.task.loss_unit,
        }


def _make_cells(candidate: Candidate) -> list[Cell]:
    row = candidate.row
    residual = float(row["relative_residual"]) if has_penalty(candidate) else float("nan")
    estimates = (candidate.test_loss, candidate.score, candidate.gain)
    columns = candidate.columns
    return [
        _cell(candidate.strength),
        _cell(row["loss"]),
        (format_with_error(candidate.val_loss, candidate.val_error), _sort_key(candidate.val_loss), ""),
        *(_cell(estimate.value, format_interval(estimate)) for estimate in estimates),
        ("?", "", "") if columns is None else (f"{len(columns):,}", _sort_key(len(columns)), ""),
        (f"{int(row['zeros']):,}", _sort_key(row["zeros"]), f"{row['zero_share']:.0%}"),
        _cell(residual),
    ]


def _make_reference_cells(reference: Reference) -> list[Cell]:
    """Return the cells that a reference model has: losses, score and gain."""
    estimates = (reference.test_loss, reference.score, reference.gain)
    return [
        ("", "", ""),
        ("", "", ""),
        (format_with_error(reference.val_loss, reference.val_error), _sort_key(reference.val_loss), ""),
        *(_cell(estimate.value, format_interval(estimate)) for estimate in estimates),
        *[("", "", "")] * 3,
    ]


def _cell(number: float, interval: str = "") -> Cell:
    return (format_number(number) if np.isfinite(number) else "", _sort_key(number), interval)


def _sort_key(number: float) -> str:
    return repr(float(number)) if np.isfinite(number) else ""
