"""The rows of a path as arrays, checked once, before anything is trained.

`checked_data` makes arrays of what the user gave and refuses what no network can digest. Rows that were given to
validate on (`validation_data=(x, y)`) are put behind those that train, so that one table holds all and a row is known by its
position.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from pandas.api import types as dtypes

MOST_COLUMNS_NAMED = 5
TABLE = ("x", "y", "sample_weight")
GIVEN = ("validation_data[0]", "validation_data[1]", "validation_data[2]")
ENCODE = (
    "Encode it as numbers first: OneHotEncoder for inputs, LabelEncoder for classes, both in sklearn.preprocessing."
)
HOW_TO_WRITE = (
    "Rows to validate on are a tuple, validation_data=(x, y) or validation_data=(x, y, sample_weight); "
    "positions of rows are a list of pairs, cv=[(train, held), ...]."
)


@dataclass(frozen=True, eq=False)
class Data:
    """Rows as arrays that share their first axis, in the structures in which they were given.

    Attributes:
        x, y: an array (rows, ...), or lists, tuples or dicts of arrays: floats in Keras' float type, whole numbers and
            truth values as they were, and None where there is none.
        sample_weight: likewise, all in Keras' float type; None for none.
        rows: how many rows train; those behind them were given to validate on.
        names: the columns of x where it was a DataFrame, else None.
    """

    x: Any
    y: Any
    sample_weight: Any
    rows: int
    names: tuple[str, ...] | None = None


def checked_data(model: keras.Model, x, y, sample_weight=None, groups=None, cv: Any = 5) -> Data:
    """Makes arrays of the rows, and checks whatever can be checked before training.

    Args:
        model: what will read x; its inputs are compared with x where their number and shapes are known.
        x, y: arrays, tensors, DataFrames or Series, or lists, tuples or dicts of those; None for an optional input, or
            for an output that has no loss.
        sample_weight: a weight ≥ 0 for every row, or a structure of those; None for none.
        groups: (rows,) as for `poise.path.data.folds.split`; here only counted.
        cv: as for `split`; the rows of a tuple (x, y) or (x, y, sample_weight) are put behind the others. Where one
            of the two has weights, the other gets weights of one.

    Raises:
        TypeError: for what is not an array of numbers.
        ValueError: for no rows, numbers of rows that differ, NaN and infinite values, negative weights, shapes that
            do not fit, and tuples in `validation_data` that can be read in two ways.
    """
    table = _arrays((x, y, sample_weight), TABLE)
    rows = _checked_length((*table, None if groups is None else np.asarray(groups)), (*TABLE, "groups"))
    _check_inputs(model, table[0])
    if isinstance(cv, tuple):
        held = _given(cv, x, table)
        count = len(leaves(held[1])[0])
        table[2], held[2] = _or_ones(table[2], held[2], rows), _or_ones(held[2], table[2], count)
        table = [_joined(*parts) for parts in zip(table, held, TABLE, GIVEN, strict=True)]
    names = tuple(map(str, x.columns)) if isinstance(x, pd.DataFrame) else None
    return Data(*table, rows=rows, names=names)


def leaves(structure) -> list:
    """The arrays of a structure, without the None."""
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]


def _mapped(function, structure, label: str):
    """The structure with function(leaf, its name in messages) for every leaf that is not None."""
    found = [
        None if leaf is None else function(leaf, label + "".join(f"[{key!r}]" for key in path))
        for path, leaf in keras.tree.flatten_with_path(structure)
    ]
    return keras.tree.pack_sequence_as(structure, found)


# ---------------------------------------------------------------- one array


def _arrays(table, labels) -> list:
    """x, y and sample_weight with a checked array for every leaf."""
    for structure, label in zip(table[:2], labels[:2], strict=True):
        if not leaves(structure):
            raise TypeError(f"{label} holds no array, and a path needs inputs and targets.")
    return [_mapped(*parts) for parts in zip((_array, _array, _weights), table, labels, strict=True)]


def _array(values, label: str) -> np.ndarray:
    columns = None
    if isinstance(values, pd.DataFrame):
        columns = list(values.columns)
        array = _from_frame(values, label)
    elif isinstance(values, pd.Series):
        array = _from_frame(values.to_frame(), label)  # (rows, 1), as Keras reads it
    elif hasattr(values, "toarray"):
        raise TypeError(f"{label} is sparse, and a path trains on dense arrays. Give {label}.toarray().")
    elif hasattr(values, "shape"):
        array = keras.ops.convert_to_numpy(values) if keras.ops.is_tensor(values) else np.asarray(values)
    else:
        raise TypeError(
            f"{label} is of type {type(values).__name__}. Give an array, a tensor or a DataFrame, or a list, tuple or "
            "dict of those."
        )
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{label} has dtype {array.dtype}, and a network reads numbers. {ENCODE}")
    if array.ndim == 0:
        raise TypeError(f"{label} is a single number. Give an array whose first axis is the rows.")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what becomes infinite is refused in the next line
            array = array.astype(keras.config.floatx(), copy=False)
        _check_finite(array, label, columns)
    return array


def _weights(values, label: str) -> np.ndarray:
    array = _array(values, label).astype(keras.config.floatx(), copy=False)
    if (array < 0).any():
        raise ValueError(f"{label} has {(array < 0).sum()} negative values. Give weights ≥ 0; 0 leaves a row out.")
    return array[:, 0] if isinstance(values, pd.Series) else array


def _from_frame(frame: pd.DataFrame, label: str) -> np.ndarray:
    odd = [repr(column) for column, dtype in frame.dtypes.items() if not dtypes.is_numeric_dtype(dtype)]
    if odd:
        raise TypeError(f"{label} has columns that are not numbers: {_few(odd)}. {ENCODE}")
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
        f"{label} is NaN, infinite or beyond {array.dtype} in {where}. Fill these values in, or leave the rows out."
    )


def _few(texts: list[str]) -> str:
    more = len(texts) - MOST_COLUMNS_NAMED
    return ", ".join(texts[:MOST_COLUMNS_NAMED]) + (f" and {more} more" if more > 0 else "")


# ---------------------------------------------------------------- arrays together


def _checked_length(structures, labels) -> int:
    lengths = {}
    for structure, label in zip(structures, labels, strict=True):
        _mapped(lambda leaf, name: lengths.update({name: len(leaf)}), structure, label)
    if len(set(lengths.values())) > 1:
        raise ValueError("The numbers of rows differ: " + ", ".join(f"{k} has {n}" for k, n in lengths.items()) + ".")
    if 0 in lengths.values():
        raise ValueError(f"{labels[0]} has no rows. Give at least two to train on and one to hold out.")
    return next(iter(lengths.values()))


def _check_inputs(model: keras.Model, x) -> None:
    inputs = getattr(model, "inputs", None)
    if not inputs or isinstance(x, dict):  # from a dict Keras takes what the model asks for
        return
    arrays = keras.tree.flatten(x)
    if len(arrays) != len(inputs):
        raise ValueError(
            f"The model's inputs are {len(inputs)}, and those of x are {len(arrays)}. Give x one for each."
        )
    for tensor, array in zip(inputs, arrays, strict=True):
        if array is None:
            continue
        wanted, found = tuple(tensor.shape[1:]), array.shape[1:]
        shapes = [found, (*found, 1)] + ([found[:-1]] if found[-1:] == (1,) else [])  # Keras adds or drops a last 1
        if not any(_fits(shape, wanted) for shape in shapes):
            raise ValueError(f"A row of x has shape {found}, and the model's input {tensor.name!r} takes {wanted}.")


def _fits(shape: tuple, wanted: tuple) -> bool:
    return len(shape) == len(wanted) and all(want in (None, size) for size, want in zip(shape, wanted, strict=True))


# ---------------------------------------------------------------- rows to validate on


def _given(validation: tuple, x, table) -> list:
    """The validation rows as x, y and sample_weight, built like those that train."""
    if len(validation) not in (2, 3):
        raise ValueError(f"validation_data is a tuple of {len(validation)}. {HOW_TO_WRITE}")
    if len(validation) == 2 and all(_could_be_positions(part) for part in validation):
        raise ValueError(
            "validation_data is a tuple of two lists of whole numbers or truth values, which could be positions and could be "
            f"data. {HOW_TO_WRITE} Data of this kind need their weights: cv=(x, y, numpy.ones(len(y)))."
        )
    for mine, theirs, label in zip(table, validation, GIVEN, strict=False):
        if mine is not None and theirs is not None:
            try:
                keras.tree.assert_same_structure(mine, theirs)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{label} is not built like the rows that train. {HOW_TO_WRITE}") from error
    if isinstance(x, pd.DataFrame) and isinstance(validation[0], pd.DataFrame) and list(x) != list(validation[0]):
        raise ValueError(
            "validation_data[0] has other columns than x, or has them in another order. Give the columns of x."
        )
    held = _arrays((*validation, None)[:3], GIVEN)
    _checked_length(held, GIVEN)
    return held


def _could_be_positions(part) -> bool:
    if isinstance(part, (list, tuple)):
        return all(isinstance(value, (int, np.integer, np.bool_)) for value in part)
    return getattr(part, "ndim", None) == 1 and np.asarray(part).dtype.kind in "iub"


def _or_ones(weights, others, count: int):
    """The weights; where there are none, weights of one like the others' for `count` rows."""
    if weights is not None:
        return weights
    return _mapped(lambda leaf, _: np.ones((count, *leaf.shape[1:]), leaf.dtype), others, "")


def _joined(mine, theirs, label: str, label_of_theirs: str):
    """The rows that train with those given behind them."""

    def join(first, second):
        if first is None and second is None:
            return None
        if first is None or second is None or first.shape[1:] != second.shape[1:]:
            shapes = [None if part is None else part.shape[1:] for part in (first, second)]
            raise ValueError(
                f"A row of {label} has shape {shapes[0]}, one of {label_of_theirs} {shapes[1]}. {HOW_TO_WRITE}"
            )
        if first.dtype.kind != "f" and second.dtype.kind == "f":
            raise TypeError(
                f"{label} has dtype {first.dtype} and {label_of_theirs} {second.dtype}. Give both the same."
            )
        return np.concatenate([first, second.astype(first.dtype) if first.dtype.kind == "f" else second])

    return keras.tree.map_structure(join, mine, theirs)
