"""Find features that determine the target almost exactly, which usually means a leak."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from poise.study.tasks.base import Task

CORRELATION = 0.9999
FEWEST_ROWS = 10


def find_leaks(
    features: Mapping[str, pd.Series], target: np.ndarray, task: Task, classes: tuple[str, ...]
) -> list[str]:  # fmt: skip
    """Return the features that are a linear function of the target, or another name for each of its values."""
    codes, distinct = pd.factorize(target)
    repeats = bool(classes) or len(distinct) <= len(target) / 2
    numbers = pd.Series(target).map({label: code for code, label in enumerate(classes)}) if classes else target
    line = None if classes and task.count_outputs(len(classes)) > 1 else np.asarray(numbers, dtype="float64")
    return [
        name
        for name, feature in features.items()
        if (line is not None and _is_linear(feature, line)) or (repeats and _is_renamed(feature, codes))
    ]


def _is_linear(feature: pd.Series, target: np.ndarray) -> bool:
    if feature.dtype == object:
        return False
    present = feature.notna().to_numpy()
    if present.sum() < max(FEWEST_ROWS, len(target) / 2):
        return False
    x, y = (part[present].astype("float64") for part in (feature.to_numpy(), target))
    x, y = (part / (np.abs(part).max() or 1.0) for part in (x, y))
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return bool(size > 0 and abs(x @ y) > CORRELATION * size)


def _is_renamed(feature: pd.Series, target: np.ndarray) -> bool:
    codes, values = pd.factorize(feature)
    present = codes >= 0
    if present.sum() < max(FEWEST_ROWS, len(target) / 2):
        return False
    present_target = target[present]
    count = len(np.unique(present_target))
    pairs = codes[present] * (target.max() + 1) + present_target
    return len(values) == count > 1 and len(np.unique(pairs)) == count
