"""Describe a study for programs: study.json, and the table of all strengths of all paths."""

import hashlib
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module, metadata
from typing import Any

import keras
import numpy as np
import pandas as pd

from poise.study.errors import list_first
from poise.study.findings import Candidate, Findings, Reference, flatten_estimate, is_regularized
from poise.study.offsets import ROLES as OFFSET_ROLES
from poise.study.report.schema import FORMAT, VERSION
from poise.study.report.sentences import write_answer, write_headline
from poise.study.settings import NO_PENALTY
from poise.study.splits import split_test_rows
from poise.study.stability_selection import StabilitySelection

MOST_CLASSES = 100
"""Classes of a confusion matrix: it has as many numbers as their square."""


def describe(study: Findings) -> dict:
    """Return the content of study.json except checksums, as templates/study.schema.json documents it."""
    table = study.table
    roles = {name: getattr(table, name) for name in ("groups", "time", "weight", *OFFSET_ROLES)}
    selector, selection = study.selector, study.selection
    testing = split_test_rows(table, study.settings.test, study.settings.seed)[1]
    content = {
        "format": FORMAT,
        "version": VERSION,
        "data": {
            "name": table.name,
            "source": table.source,
            "target": list_first(table.targets),
            "targets": table.targets,
            "event": table.event,
            "task": table.task.name,
            "task_title": table.task.title,
            "task_reason": table.task_reason,
            "classes": table.classes,
            "columns": [asdict(column) for column in table.columns],
            **{name: None if role is None else str(role.name) for name, role in roles.items()},
            "decimal": table.decimal,
            "notes": table.notes,
            "digest": _digest(np.arange(len(table.target)), table.target),
        },
        "rows": {**study.rows, "digest": _digest(testing, table.target)},
        "settings": asdict(study.settings),
        "candidates": [_describe_candidate(study, candidate) for candidate in study.candidates],
        "selection": None if selection is None else _describe_candidate(study, selection),
        "references": [_describe_reference(reference) for reference in study.references],
        "chosen": study.chosen,
        "verdict": _describe_verdict(study),
        "metrics": study.metrics,
        "estimates": study.estimates,
        "selector": None if selector is None else selector.name,
        "stability_selection": _describe_stability_selection(study.stability_selection),
        "importance": tabulate_importance(study).reset_index().to_dict("records"),
        "saved": study.saved.name,
        "parameters": {"trained": study.saved.model.count_params(), "saved": study.compact_model.count_params()},
        "needed_columns": study.needed_columns,
        "confusion_matrix": study.predicted.count_confusions() if 0 < len(table.classes) <= MOST_CLASSES else None,
        "headline": write_headline(study),
        "answer": write_answer(study),
        "center": study.center,
        "scale": study.scale,
        "inputs": study.inputs,
        "seed": study.settings.seed,
        "seconds": round(study.seconds, 1),
        "versions": versions(),
    }
    return _to_json(content)


def tabulate_importance(study: Findings) -> pd.DataFrame:
    """Return one row per column, the most important first, as `Study.importance` documents."""
    table = study.importance.assign(selected=None, stability=np.nan)
    selector = study.selector
    if selector is not None and selector.selected is not None and selector.stability is not None:
        table["selected"] = table.index.isin(list(selector.selected))
        table["stability"] = selector.stability.reindex(table.index)
    return table.sort_values("importance", ascending=False, kind="stable")


def paths_table(study: Findings) -> pd.DataFrame:
    """Return one row per candidate, stage and strength: the columns of `RegularizationPath.table` and two marks.

    Stages count from 1; candidates without adaptive stages have one. `predicts` marks the strength whose network
    predicts, `selects` the strength that selects columns.
    """
    parts = []
    for candidate in study.candidates:
        for number, stage in enumerate(candidate.stages, 1):
            rows = stage.table
            strengths = rows["strength"].to_numpy()
            rows.insert(0, "candidate", candidate.name)
            rows.insert(1, "stage", number)
            is_last = number == len(candidate.stages)
            rows["predicts"] = (stage is candidate.stage) & (strengths == candidate.row["strength"])
            rows["selects"] = is_last & np.isclose(strengths, candidate.selection_strength, rtol=1e-6, atol=0.0)
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def versions() -> dict[str, str]:
    """Return the versions of Python, the backend and the packages that the numbers depend on."""
    backend = keras.backend.backend()
    packages = {name: metadata.version(name) for name in ("keras", "jax", "numpy", "pandas", "scikit-learn", "skops")}
    modules = {name: str(import_module(name).__version__) for name in ("poise", backend)}
    return {"python": platform.python_version(), "backend": backend, **packages, **modules}


def _describe_candidate(study: Findings, candidate: Candidate) -> dict:
    stage = 1 + next(number for number, stage in enumerate(candidate.stages) if stage is candidate.stage)
    return {
        "candidate": candidate.name,
        "stage": stage,
        "selection_strength": candidate.selection_strength,
        **study.results.loc[candidate.name].to_dict(),
        "selected": candidate.selected,
        "stability": None if candidate.stability is None else candidate.stability.to_dict(),
    }


def _describe_reference(reference: Reference) -> dict:
    return {
        "name": reference.name,
        "title": reference.title,
        "val_loss": reference.val_loss,
        "val_error": reference.val_error,
        **flatten_estimate("test_loss", reference.test_loss),
        **flatten_estimate("score", reference.score),
        **flatten_estimate("gain", reference.gain),
    }


def _describe_stability_selection(found: StabilitySelection | None) -> dict | None:
    return None if found is None else {**vars(found), "share": found.share.to_dict()}


def _describe_verdict(study: Findings) -> dict:
    verdict = study.verdict
    over = {NO_PENALTY: verdict.over_baseline, **verdict.over_references}
    return {
        "judged": verdict.judged,
        "outcome": verdict.over_baseline.outcome if is_regularized(study[verdict.judged]) else None,
        "agrees_with_test_rows": verdict.agrees_with(study[verdict.judged].gain),
        "comparisons": [
            {
                "over": name,
                "outcome": comparison.outcome,
                **flatten_estimate("loss_gain", comparison.loss_gain),
                **flatten_estimate("score_gain", comparison.score_gain),
            }
            for name, comparison in over.items()
        ],
    }


def _digest(positions: np.ndarray, target: pd.Series | pd.DataFrame) -> str:
    values = "\n".join(repr(value) for value in target.iloc[positions].to_numpy().tolist())
    return hashlib.sha256(f"{positions.tolist()}\n{values}".encode("utf-8", "backslashreplace")).hexdigest()


def _to_json(value: object) -> Any:
    """The same value in the types of JSON: no NaN, NumPy or tuples, and text instead of anything else."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_to_json(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
