"""Rows in a file as the arrays that a model takes."""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from poise.cli.errors import BadInputError
from poise.path.declared_sizes import check_arrays

ARRAYS, TABLES = (".npy", ".npz"), (".csv", ".tsv", ".parquet")
FORMATS = "an .npy, .npz, .csv or .parquet file"


@dataclass(frozen=True)
class Rows:
    """Rows on which a model can predict.

    Args:
        arrays: One per input of the model, in their order, of shape (rows, *shape of the input).
        columns: The names of the features, if they come from a table.
    """

    arrays: list[np.ndarray]
    columns: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.arrays[0])


def read_rows(path: Path, model: keras.Model) -> Rows:
    """Return the rows of a file if they fit a model.

    Args:
        path: An .npy file, for a model with one input; an .npz file with `x`, or with one array per input, by their
            names or in their order; a .csv or .parquet file of numbers, one column per feature.
        model: A model with known inputs.

    Raises:
        BadInputError: If the file cannot be read or does not fit.
        poise.DataError: If a table cannot be read.
    """
    if _is_table(path):
        columns = _read_table(path, model)
        rows = Rows([np.column_stack([*columns.values()])], tuple(columns))
    else:
        rows = Rows(_order_by_input(_read_arrays(path), model, path))
    return _fit_rows(rows, model, path)


def read_labeled_rows(path: Path, model: keras.Model, target: str | None) -> tuple[Rows, np.ndarray]:
    """Return the rows of a file and their targets if they fit a model.

    Args:
        path: An .npz file as for `read_rows`, with the targets in `y`; or a .csv or .parquet file of numbers.
        model: A model with known inputs.
        target: The column of a table that holds the targets.

    Raises:
        BadInputError: If the file cannot be read or does not fit.
        poise.DataError: If a table cannot be read.
    """
    if _is_table(path):
        if target is None:
            raise BadInputError(f"{path.name!r} is a table. Pass --target with the column that the model predicts.")
        columns = _read_table(path, model)
        if target not in columns:
            raise BadInputError(f"{path.name!r} has no column {target!r}. Its columns are {', '.join(columns)}.")
        y = columns.pop(target)
        if not columns:
            raise BadInputError(f"{path.name!r} has no column besides the target {target!r}.")
        return _fit_rows(Rows([np.column_stack([*columns.values()])], tuple(columns)), model, path), y
    if target is not None:
        raise BadInputError(
            f"--target names a column of a table, and {path.name!r} holds arrays. Name the targets 'y'."
        )
    arrays = _read_arrays(path)
    if "y" not in arrays:
        raise BadInputError(
            f"{path.name!r} holds no targets, only {', '.join(arrays)}. Write them with np.savez(file, x=x, y=y)."
        )
    y = arrays.pop("y")
    rows = _fit_rows(Rows(_order_by_input(arrays, model, path)), model, path)
    if y.ndim == 0 or len(y) != rows.count:
        raise BadInputError(f"'y' in {path.name!r} has shape {_show_shape(y.shape)}, and there are {rows.count} rows.")
    return rows, y


def _is_table(path: Path) -> bool:
    """Whether the file is a table; raise BadInputError if it is neither a table nor arrays."""
    if path.is_dir():
        raise BadInputError(f"{str(path)!r} is a folder. Give the path of {FORMATS}.")
    if not path.exists():
        raise BadInputError(f"The file {str(path)!r} does not exist. Give the path of {FORMATS}.")
    suffix = path.suffix.lower()
    if suffix not in (*TABLES, *ARRAYS):
        raise BadInputError(f"{path.name!r} has an unsupported format. Give the path of {FORMATS}.")
    return suffix in TABLES


def _fit_rows(rows: Rows, model: keras.Model, path: Path) -> Rows:
    """Return the rows with the types of the inputs."""
    _check_counts(rows.arrays, path)
    fitting = [_fit_array(array, symbol, path) for array, symbol in zip(rows.arrays, model.inputs, strict=True)]
    return Rows(fitting, rows.columns)


def _read_table(path: Path, model: keras.Model) -> dict[str, np.ndarray]:
    """Return the columns of a table of numbers."""
    import pandas as pd

    from poise.study.columns.base import RawColumn
    from poise.study.columns.reading import detect_kind
    from poise.study.columns.text_rules import make_rules
    from poise.study.sources import load

    if len(model.inputs) > 1 or len(model.inputs[0].shape) != 2:
        raise BadInputError(
            f"{path.name!r} is a table, and the model takes {_list_inputs(model)}. Give arrays, as .npy or .npz."
        )
    _, _, frame = load(path)
    rules, _ = make_rules(frame, None, None)
    columns = {}
    for name in frame.columns:
        detected = detect_kind(RawColumn(frame[name], rules))
        is_missing = pd.isna(detected.values)
        if (detected.values.dtype != "float64" or detected.ignored_texts) and not is_missing.all():
            raise BadInputError(
                f"Column {name!r} of {path.name!r} is not numeric. The model takes numbers; encode or remove the "
                "column."
            )
        if is_missing.any():
            raise BadInputError(f"Column {name!r} of {path.name!r} has missing values. Remove or fill them.")
        columns[name] = detected.values
    return columns


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return arrays by name; the array of an .npy file is named "x"."""
    message = f"{path.name!r} cannot be read as arrays of numbers"
    try:
        check_arrays(path)
    except ValueError as error:
        raise BadInputError(f"{message}: {error}. Write it with np.save or np.savez.") from None
    except zipfile.BadZipFile:
        pass  # np.load fails below
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"x": content}
        with content as archive:
            return {name: archive[name] for name in archive.files}
    except PermissionError:
        raise
    except Exception:  # zipfile, zlib and NumPy raise anything when an archive is damaged
        raise BadInputError(
            f"{message}: it is damaged, or holds Python objects. Write it with np.save or np.savez."
        ) from None


def _order_by_input(arrays: dict[str, np.ndarray], model: keras.Model, path: Path) -> list[np.ndarray]:
    names = [symbol.name for symbol in model.inputs]
    if all(name in arrays for name in names):
        return [arrays[name] for name in names]
    if len(names) == 1 and "x" in arrays:
        return [arrays["x"]]
    if len(arrays) == len(names):
        return [*arrays.values()]
    raise BadInputError(
        f"{path.name!r} holds {len(arrays)} arrays ({', '.join(arrays)}), and the model takes {_list_inputs(model)}. "
        f"Give one array per input, named {', '.join(names)} or in this order."
    )


def _check_counts(arrays: list[np.ndarray], path: Path) -> None:
    counts = [len(array) if array.ndim else 0 for array in arrays]
    if not all(counts):
        raise BadInputError(f"{path.name!r} holds no rows. Give at least one.")
    if len(set(counts)) > 1:
        raise BadInputError(
            f"The arrays in {path.name!r} have {', '.join(map(str, counts))} rows. Give the same number for each input."
        )


def _fit_array(array: np.ndarray, symbol: keras.KerasTensor, path: Path) -> np.ndarray:
    """Return the array with the type of the input."""
    expected, shape = tuple(symbol.shape), array.shape
    if len(shape) != len(expected) or any(
        size not in (None, actual) for size, actual in zip(expected, shape, strict=True)
    ):
        raise BadInputError(
            f"The input {symbol.name!r} takes shape {_show_shape(expected)}, got {_show_shape(shape)} in {path.name!r}."
            " Give values of that shape."
        )
    if array.dtype.kind not in "biuf":
        raise BadInputError(
            f"The model takes numbers, got values of type {array.dtype} in {path.name!r}. Encode them as numbers."
        )
    dtype = keras.backend.standardize_dtype(symbol.dtype)
    if dtype.startswith(("int", "uint")) and (array != np.round(array)).any():
        raise BadInputError(
            f"The input {symbol.name!r} takes whole numbers, got fractions in {path.name!r}. Convert them to integers."
        )
    return array.astype("float32" if dtype == "bfloat16" else dtype)


def _list_inputs(model: keras.Model) -> str:
    return ", ".join(f"{symbol.name!r} {_show_shape(symbol.shape)}" for symbol in model.inputs)


def _show_shape(shape: Iterable[int | None]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
