"""The rows of a path as arrays, checked once, before anything is trained.

The rows of `validation_data` come after the training rows, so that one table holds all rows and a position names one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from pandas.api import types as dtypes

MOST_COLUMNS_NAMED = 5
TABLE = ("x", "y", "sample_weight")
VALIDATION = ("validation_data[0]", "validation_data[1]", "validation_data[2]")
ENCODE = (
    "Encode it as numbers first: OneHotEncoder for inputs, LabelEncoder for classes, both in sklearn.preprocessing."
)


@dataclass(frozen=True, eq=False)
class Data:
    """Rows as arrays that share their first axis, in the structures in which they were given.

    Attributes:
        x, y: an array (rows, ...), or lists, tuples or dicts of arrays: floats in Keras' float type, integers and
            booleans as they were, and None for a missing one.
        sample_weight: likewise, all in Keras' float type; None if there are none.
        rows: number of training rows; the rows of `validation_data` follow.
        names: columns of x if it was a DataFrame, else None.
    """

    x: Any
    y: Any
    sample_weight: Any
    rows: int
    names: tuple[str, ...] | None = None

    @property
    def validation_rows(self) -> int:
        """Number of rows of `validation_data`."""
        return len(leaves(self.x)[0]) - self.rows


def prepare_data(
    model: keras.Model, x: Any, y: Any, sample_weight: Any = None, groups: Any = None, validation_data: Any = None
) -> Data:
    """Return the rows as arrays, after checking whatever can be checked before training.

    Args:
        model: model that will read x; its inputs are compared with x if their number and shapes are known.
        x, y: arrays, tensors, DataFrames or Series, or lists, tuples or dicts of those; None for an optional input, or
            for an output that has no loss.
        sample_weight: a weight >= 0 per row, or a structure of such arrays; None if there are none.
        groups: (rows,) as for `split_rows`; only counted here.
        validation_data: (x, y) or (x, y, sample_weight) whose rows are put after the others; None if there is none. If
            one of the two has weights, the other gets weights of one.

    Raises:
        TypeError: If something is not an array of numbers, or `validation_data` is not a tuple.
        ValueError: If there are no rows, the numbers of rows differ, values are NaN or infinite, weights are negative,
            or shapes do not fit.
    """
    table = _arrays((x, y, sample_weight), TABLE)
    rows = _check_length((*table, None if groups is None else np.asarray(groups)), (*TABLE, "groups"))
    _check_inputs(model, table[0])
    if validation_data is not None:
        held = _validation_arrays(validation_data, x, table)
        count = len(leaves(held[1])[0])
        table[2], held[2] = _or_ones(table[2], held[2], rows), _or_ones(held[2], table[2], count)
        table = [_concatenate(*parts) for parts in zip(table, held, TABLE, VALIDATION, strict=True)]
    names = tuple(map(str, x.columns)) if isinstance(x, pd.DataFrame) else None
    return Data(*table, rows=rows, names=names)


def leaves(structure: Any) -> list:
    """Return the arrays of a structure, without None."""
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]


def _map(function: Callable[[Any, str], Any], structure: Any, label: str) -> Any:
    """Return the structure with function(leaf, its name in messages) for every leaf that is not None."""
    mapped = [
        None if leaf is None else function(leaf, label + "".join(f"[{key!r}]" for key in path))
        for path, leaf in keras.tree.flatten_with_path(structure)
    ]
    return keras.tree.pack_sequence_as(structure, mapped)


def _arrays(table: Sequence[Any], labels: Sequence[str]) -> list:
    """Return x, y and sample_weight with a checked array for every leaf."""
    for structure, label in zip(table[:2], labels[:2], strict=True):
        if not leaves(structure):
            raise TypeError(f"{label} has no array. Pass inputs and targets.")
    return [_map(*parts) for parts in zip((_array, _array, _weights), table, labels, strict=True)]


def _array(values: Any, label: str) -> np.ndarray:
    columns = None
    if isinstance(values, pd.DataFrame):
        columns = list(values.columns)
        array = _from_frame(values, label)
    elif isinstance(values, pd.Series):
        array = _from_frame(values.to_frame(), label)  # (rows, 1), as Keras reads it
    elif hasattr(values, "toarray"):
        raise TypeError(f"{label} is sparse. Pass a dense array: {label}.toarray().")
    elif hasattr(values, "shape"):
        array = keras.ops.convert_to_numpy(values) if keras.ops.is_tensor(values) else np.asarray(values)
    else:
        raise TypeError(
            f"{label} is of type {type(values).__name__}. Pass an array, a tensor or a DataFrame, or a list, tuple or "
            "dict of those."
        )
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{label} must be numeric, got dtype {array.dtype}. {ENCODE}")
    if array.ndim == 0:
        raise TypeError(f"{label} is a single number. Pass an array whose first axis is the rows.")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # the next line refuses infinite values
            array = array.astype(keras.config.floatx(), copy=False)
        _check_finite(array, label, columns)
    return array


def _weights(values: Any, label: str) -> np.ndarray:
    array = _array(values, label).astype(keras.config.floatx(), copy=False)
    if (array < 0).any():
        raise ValueError(f"{label} has {(array < 0).sum()} negative values. Pass weights >= 0; 0 leaves a row out.")
    return array[:, 0] if isinstance(values, pd.Series) else array


def _from_frame(frame: pd.DataFrame, label: str) -> np.ndarray:
    text_columns = [repr(column) for column, dtype in frame.dtypes.items() if not dtypes.is_numeric_dtype(dtype)]
    if text_columns:
        raise TypeError(f"{label} has columns that are not numbers: {_few(text_columns)}. {ENCODE}")
    array = frame.to_numpy()
    return frame.to_numpy("float64", na_value=np.nan) if array.dtype == object else array


def _check_finite(array: np.ndarray, label: str, columns: list | None) -> None:
    bad = ~np.isfinite(array)
    if not bad.any():
        return
    where = f"{bad.reshape(len(array), -1).any(axis=1).sum()} of {len(array)} rows"
    if array.ndim > 1:
        counts = bad.any(axis=tuple(range(1, array.ndim - 1))).sum(axis=0)
        names = columns or range(len(counts))
        where += f" ({_few([f'column {k!r}: {n}' for k, n in zip(names, counts, strict=True) if n])})"
    raise ValueError(
        f"{label} has values that are NaN, infinite or too large for {array.dtype} in {where}. Replace these values, "
        "or drop the rows."
    )


def _few(texts: list[str]) -> str:
    more = len(texts) - MOST_COLUMNS_NAMED
    return ", ".join(texts[:MOST_COLUMNS_NAMED]) + (f" and {more} more" if more > 0 else "")


def _check_length(structures: Sequence[Any], labels: Sequence[str]) -> int:
    """Return the number of rows."""
    lengths = {}
    for structure, label in zip(structures, labels, strict=True):
        _map(lambda leaf, name: lengths.update({name: len(leaf)}), structure, label)
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ValueError(f"All arrays must have the same number of rows, got {counts}.")
    if 0 in lengths.values():
        least = "two" if labels[0] == TABLE[0] else "one"
        raise ValueError(f"{labels[0]} has no rows. Pass at least {least}.")
    return next(iter(lengths.values()))


def _check_inputs(model: keras.Model, x: Any) -> None:
    inputs = getattr(model, "inputs", None)
    if not inputs or isinstance(x, dict):  # from a dict Keras takes what the model asks for
        return
    arrays = keras.tree.flatten(x)
    if len(arrays) != len(inputs):
        raise ValueError(
            f"The model has {len(inputs)} inputs, and x has {len(arrays)} arrays. Pass one array per input."
        )
    for tensor, array in zip(inputs, arrays, strict=True):
        if array is None:
            continue
        needed, shape = tuple(tensor.shape[1:]), array.shape[1:]
        shapes = [shape, (*shape, 1)] + ([shape[:-1]] if shape[-1:] == (1,) else [])  # Keras adds or drops a last 1
        if not any(_fits(candidate, needed) for candidate in shapes):
            raise ValueError(
                f"x has rows of shape {shape}, but the model's input {tensor.name!r} expects {needed}. Pass rows of "
                "that shape."
            )


def _fits(shape: tuple, needed: tuple) -> bool:
    return len(shape) == len(needed) and all(need in (None, size) for size, need in zip(shape, needed, strict=True))


def _validation_arrays(validation: Any, x: Any, table: Sequence[Any]) -> list:
    """Return the validation rows as x, y and sample_weight in the structures of the training rows."""
    if not isinstance(validation, tuple) or len(validation) not in (2, 3):
        kind = (
            f"a tuple of {len(validation)}" if isinstance(validation, tuple) else f"of type {type(validation).__name__}"
        )
        error = ValueError if isinstance(validation, tuple) else TypeError
        raise error(f"validation_data must be a tuple (x, y) or (x, y, sample_weight), got {kind}.")
    for training, held, name, label in zip(table, validation, TABLE, VALIDATION, strict=False):
        if training is not None and held is not None:
            try:
                keras.tree.assert_same_structure(training, held)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{label} must have the same structure (array, list, tuple or dict) as {name}."
                ) from error
    if isinstance(x, pd.DataFrame) and isinstance(validation[0], pd.DataFrame) and list(x) != list(validation[0]):
        raise ValueError(
            f"{VALIDATION[0]} must have the same columns as x, in the same order: {_few([*map(repr, x)])}, got "
            f"{_few([*map(repr, validation[0])])}."
        )
    arrays = _arrays((*validation, None)[:3], VALIDATION)
    _check_length(arrays, VALIDATION)
    return arrays


def _or_ones(weights: Any, others: Any, count: int) -> Any:
    """Return the weights; if there are none, weights of one like the others' for `count` rows."""
    if weights is not None:
        return weights
    return _map(lambda leaf, _: np.ones((count, *leaf.shape[1:]), leaf.dtype), others, "")


def _concatenate(training: Any, validation: Any, label: str, validation_label: str) -> Any:
    """Return the training rows with the validation rows after them."""

    def concatenate(first: Any, second: Any) -> Any:
        if first is None and second is None:
            return None
        if first is None or second is None or first.shape[1:] != second.shape[1:]:
            shapes = [None if part is None else part.shape[1:] for part in (first, second)]
            raise ValueError(
                f"{label} and {validation_label} must have rows of the same shape, got {shapes[0]} and {shapes[1]}."
            )
        if first.dtype.kind != "f" and second.dtype.kind == "f":
            raise TypeError(
                f"{label} has dtype {first.dtype}, and {validation_label} {second.dtype}. Pass the same type for both."
            )
        return np.concatenate([first, second.astype(first.dtype) if first.dtype.kind == "f" else second])

    return keras.tree.map_structure(concatenate, training, validation)
