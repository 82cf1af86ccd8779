"""Weights of classes in the loss, with the meaning that scikit-learn gives them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from poise.study.columns.base import text_of
from poise.study.errors import DataError, quote_names
from poise.study.tables import Table
from poise.study.tasks.classes import Classification

BALANCED = "balanced"
ClassWeight = str | Mapping[Any, float] | None


def as_class_weight(class_weight: ClassWeight) -> ClassWeight:
    """Return the argument with classes as text, because tables in memory may have numbers as classes.

    Raises:
        DataError: If it is not `None`, `"balanced"` or positive weights by class.
    """
    check_class_weight(class_weight)
    if not isinstance(class_weight, Mapping):
        return class_weight
    return {label if isinstance(label, str) else text_of(label): value for label, value in class_weight.items()}


def check_class_weight(class_weight: object, classes: Sequence[Any] | None = None) -> None:
    """Raise DataError, which is a ValueError, unless class weights are valid.

    Args:
        class_weight: It must be `None`, `"balanced"`, or a dict of positive weights by class.
        classes: The classes that weights may name. Default: `None`, for any.
    """
    if class_weight is None or (isinstance(class_weight, str) and class_weight == BALANCED):
        return
    if not isinstance(class_weight, Mapping):
        raise DataError(
            f"class_weight must be {BALANCED!r} or a dict from classes to weights, got {class_weight!r}.",
            "class_weight",
        )
    for label, weight in class_weight.items():
        if classes is not None and label not in classes:
            raise DataError(
                f"class_weight names {label!r}, which is not a class. The classes are {quote_names(classes)}.",
                "class_weight",
            )
        if not isinstance(weight, Real) or not 0.0 < float(weight) < float("inf"):
            raise DataError(
                f"class_weight must have positive and finite weights, got {weight!r} for the class {label!r}.",
                "class_weight",
            )


def apply_class_weight(table: Table, class_weight: ClassWeight, training: np.ndarray) -> Table:
    """Return a table whose rows are also weighted by class.

    Args:
        table: The table.
        class_weight: As `as_class_weight` returns it.
        training: Positions of the training rows, whose classes `"balanced"` counts.

    Raises:
        DataError: If the target has numbers, or lacks a class.
    """
    if class_weight is None:
        return table
    if not isinstance(table.task, Classification):
        raise DataError(
            f"class_weight needs a target with classes, got the task {table.task.name}. Omit it.", "class_weight"
        )
    check_class_weight(class_weight, table.classes)
    weight = None if table.weight is None else table.weight.to_numpy("float64")[training]
    weights = weigh_classes(class_weight, table.class_numbers[training], table.classes, weight)
    return replace(table, class_weight=weights, task=replace(table.task, is_class_weighted=True))


def weigh_classes(
    class_weight: str | Mapping[Any, float],
    numbers: np.ndarray,
    labels: Sequence[Any],
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Return (classes,) the weight of each class.

    Args:
        class_weight: Weights by label, where other classes have weight 1; or `"balanced"`, for the number of rows
            divided by the number of classes and by the number of rows of the class.
        numbers: (rows,) the class numbers of the training rows.
        labels: The labels of all classes.
        weight: (rows,) sample weights, by which rows are counted. Default: `None`.
    """
    if isinstance(class_weight, Mapping):
        return np.array([class_weight.get(label, 1.0) for label in labels], "float64")
    counts = np.bincount(numbers, weight, len(labels))
    return counts.sum() / (len(labels) * np.maximum(counts, 1e-12))
