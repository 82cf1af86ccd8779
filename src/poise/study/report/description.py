"""What a study says to machines: study.json with its schema, and the table of all strengths of all paths."""

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import import_module, metadata
from importlib.resources import files
from typing import Any

import keras
import numpy as np
import pandas as pd

from poise.study.report.sentences import answer
from poise.study.result import Candidate, Study
from poise.study.splits import put_aside

FORMAT = "poise study"
VERSION = 2
LARGEST = 1e300
KINDS = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}


def describe(study: Study) -> dict:
    """The content of study.json but for the checksums of files, as templates/study.schema.json documents it."""
    table = study.table
    roles = {name: getattr(table, name) for name in ("groups", "time", "weight")}
    selector = study.selector
    testing = put_aside(table, study.settings.test, study.settings.seed)[1]
    content = {
        "format": FORMAT,
        "version": VERSION,
        "data": {
            "name": table.name,
            "source": table.source,
            "target": str(table.target.name),
            "task": table.task,
            "classes": table.classes,
            "columns": [asdict(column) for column in table.columns],
            **{name: None if role is None else str(role.name) for name, role in roles.items()},
            "notes": table.notes,
            "digest": _digest(np.arange(len(table.target)), table.target),
        },
        "rows": {**study.rows, "digest": _digest(testing, table.target)},
        "settings": asdict(study.settings),
        "candidates": [_described(study, one) for one in study.candidates],
        "chosen": study.chosen,
        "parameters": {"trained": study.best.model.count_params(), "saved": study.smaller.count_params()},
        "selector": None if selector is None else selector.name,
        "answer": answer(study),
        "center": study.center,
        "scale": study.scale,
        "inputs": study.encoder.inputs,
        "seed": study.settings.seed,
        "seconds": round(study.seconds, 1),
        "versions": versions(),
    }
    return _plain(content)


def paths_table(study: Study) -> pd.DataFrame:
    """One row a candidate, stage and strength: the columns of `Path.table`, and which row predicts and which selects.

    Stages count from 1; all but adaptive candidates have one. `predicts` marks the strength whose network predicts,
    `selects` that at which it is told what survives.
    """
    parts = []
    for one in study.candidates:
        stages = [*one.path.stages, one.path]
        for number, stage in enumerate(stages, 1):
            rows = stage.table
            strengths = rows["strength"].to_numpy()
            rows.insert(0, "candidate", one.name)
            rows.insert(1, "stage", number)
            rows["predicts"] = (stage is one.stage) & (strengths == one.row["strength"])
            rows["selects"] = (number == len(stages)) & np.isclose(strengths, one.kept_at, rtol=1e-6, atol=0.0)
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    backend = keras.backend.backend()
    found = {name: metadata.version(name) for name in ("keras", "jax", "numpy", "pandas", "scikit-learn", "skops")}
    own = {name: str(import_module(name).__version__) for name in ("poise", backend)}
    return {"python": platform.python_version(), "backend": backend, **found, **own}


@cache
def schema() -> dict:
    """The JSON Schema of study.json."""
    return json.loads((files("poise.study.report") / "templates" / "study.schema.json").read_text(encoding="utf-8"))


def checksum_of(content: Mapping) -> str:
    """SHA-256 of the content of study.json without its checksum, however it is laid out."""
    text = json.dumps({name: value for name, value in content.items() if name != "checksum"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fault(value: object, rule: Mapping, place: str = "") -> str | None:
    """What is wrong with a value by a JSON Schema, as far as that of study.json goes; None for nothing."""
    if "const" in rule and value != rule["const"]:
        return f"{place} is not {rule['const']!r}"
    if "enum" in rule and value not in rule["enum"]:
        return f"{place} is none of {', '.join(rule['enum'])}"
    named = rule.get("type", [])
    allowed = [named] if isinstance(named, str) else named
    if allowed and not any(isinstance(value, KINDS[kind]) and not isinstance(value, bool) for kind in allowed):
        return f"{place or 'it'} is no {' or '.join(allowed)}"
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        return f"{place} is not a finite number"
    if isinstance(value, int | float) and value < rule.get("minimum", -math.inf):
        return f"{place} is below {rule['minimum']}"
    if isinstance(value, list):
        if len(value) < rule.get("minItems", 0):
            return f"{place} is empty"
        faults = (fault(item, rule.get("items", {}), f"{place}[{number}]") for number, item in enumerate(value))
        return next(filter(None, faults), None)
    return _fault_inside(value, rule, place) if isinstance(value, dict) else None


def _fault_inside(value: Mapping, rule: Mapping, place: str) -> str | None:
    before = f"{place}." if place else ""
    for name in rule.get("required", ()):
        if name not in value:
            return f"{before}{name} is missing"
    known, others = rule.get("properties", {}), rule.get("additionalProperties", {})
    for name, inner in value.items():
        if name not in known and others is False:
            return f"{before}{name} is unknown"
        found = fault(inner, known.get(name, others), f"{before}{name}")
        if found:
            return found
    return None


def _described(study: Study, one: Candidate) -> dict:
    stages = [*one.path.stages, one.path]
    return {
        "candidate": one.name,
        "stage": 1 + next(number for number, stage in enumerate(stages) if stage is one.stage),
        "kept_at": one.kept_at,
        **study.results.loc[one.name].to_dict(),
        "kept": one.kept,
        "stability": None if one.stability is None else one.stability.to_dict(),
    }


def _digest(positions: np.ndarray, target: pd.Series) -> str:
    values = "\n".join(repr(value) for value in target.iloc[positions].tolist())
    return hashlib.sha256(f"{positions.tolist()}\n{values}".encode("utf-8", "backslashreplace")).hexdigest()


def _plain(value: object) -> Any:
    """The same in what JSON has: no NaN, no NumPy, no tuples; a text instead of whatever else."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
