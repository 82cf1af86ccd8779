"""Rows in a file as the arrays that a model takes."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from poise.cli.screen import BadInputError
from poise.path.declared_sizes import check_arrays

ARRAYS, TABLES = (".npy", ".npz"), (".csv", ".tsv", ".parquet")
KINDS = "an .npy, .npz, .csv or .parquet file"


@dataclass(frozen=True)
class Rows:
    """Rows on which a model can predict.

    Args:
        arrays: one for each input of the model, in their order, (rows, *shape of the input).
        columns: their names, if they come from a table.
    """

    arrays: list[np.ndarray]
    columns: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.arrays[0])


def read_rows(path: Path, model: keras.Model) -> Rows:
    """The rows of a file, if they fit a model.

    Args:
        path: an .npy file, for a model with one input; an .npz file of `x`, or of an array an input, by their names or
            in their order; a .csv or .parquet file of numbers, a column a feature.
        model: with known inputs.

    Raises:
        BadInputError, poise.study.DataError: it cannot be read, or does not fit.
    """
    if path.is_dir():
        raise BadInputError(f"{str(path)!r} is a folder. Give the path of {KINDS}.")
    if not path.exists():
        raise BadInputError(f"There is no file {str(path)!r}. Give the path of {KINDS}.")
    ending = path.suffix.lower()
    if ending in TABLES:
        rows = _table(path, model)
    elif ending in ARRAYS:
        rows = Rows(_by_input(_arrays(path), model, path))
    else:
        raise BadInputError(f"{path.name!r} is of a kind that is not read. Give the path of {KINDS}.")
    return Rows([_fitting(one, symbol, path) for one, symbol in _pairs(rows, model, path)], rows.columns)


def _table(path: Path, model: keras.Model) -> Rows:
    from poise.study.sources import load

    if len(model.inputs) > 1 or len(model.inputs[0].shape) != 2:
        raise BadInputError(
            f"{path.name!r} is a table, and the model takes {_shapes(model)}. Give the arrays as .npy or .npz."
        )
    _, _, frame = load(path)
    strange = [name for name in frame.columns if frame[name].dtype.kind not in "biuf"]
    if strange:
        raise BadInputError(f"Column {strange[0]!r} of {path.name!r} holds no numbers. Give the inputs of the model.")
    gaps = [name for name in frame.columns if frame[name].isna().any()]
    if gaps:
        raise BadInputError(f"Column {gaps[0]!r} of {path.name!r} has gaps. Give rows without.")
    return Rows([frame.to_numpy("float64")], tuple(frame.columns))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """By name, of an .npy file under "x"."""
    try:
        check_arrays(path)
    except ValueError as error:
        raise BadInputError(
            f"{path.name!r} cannot be read as arrays of numbers: {error}. Write it with np.save or np.savez."
        ) from None
    except zipfile.BadZipFile:
        pass  # which is said below
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"x": found}
        with found as archive:
            return {name: archive[name] for name in archive.files}
    except PermissionError:
        raise
    except Exception:  # damaged archives raise what zipfile, zlib and NumPy happen to raise
        raise BadInputError(
            f"{path.name!r} cannot be read as arrays of numbers: it is damaged, or holds Python objects. Write it with "
            "np.save or np.savez."
        ) from None


def _by_input(found: dict[str, np.ndarray], model: keras.Model, path: Path) -> list[np.ndarray]:
    names = [symbol.name for symbol in model.inputs]
    if all(name in found for name in names):
        return [found[name] for name in names]
    if len(names) == 1 and "x" in found:
        return [found["x"]]
    if len(found) == len(names):
        return [*found.values()]
    raise BadInputError(
        f"{path.name!r} holds {len(found)} arrays ({', '.join(found)}), and the model takes {_shapes(model)}. Give one "
        f"an input, named {', '.join(names)} or in this order."
    )


def _pairs(rows: Rows, model: keras.Model, path: Path) -> list[tuple[np.ndarray, keras.KerasTensor]]:
    for one in rows.arrays:
        if one.ndim == 0 or len(one) == 0:
            raise BadInputError(f"{path.name!r} holds no rows, and nothing can be compared.")
        if len(one) != len(rows.arrays[0]):
            counts = ", ".join(str(len(array)) for array in rows.arrays)
            raise BadInputError(f"The arrays of {path.name!r} have {counts} rows. Give each input as many.")
    return list(zip(rows.arrays, model.inputs, strict=True))


def _fitting(array: np.ndarray, symbol: keras.KerasTensor, path: Path) -> np.ndarray:
    """The array as the input takes it."""
    wanted, given = tuple(symbol.shape), array.shape
    if len(given) != len(wanted) or any(ours not in (None, theirs) for ours, theirs in zip(wanted, given, strict=True)):
        raise BadInputError(
            f"{path.name!r} has shape {_shape(given)}, and the input {symbol.name!r} takes {_shape(wanted)}."
        )
    if array.dtype.kind not in "biuf":
        raise BadInputError(f"{path.name!r} holds values of type {array.dtype}, and the model takes numbers.")
    dtype = keras.backend.standardize_dtype(symbol.dtype)
    if dtype.startswith(("int", "uint")) and (array != np.round(array)).any():
        raise BadInputError(f"{path.name!r} holds fractions, and the input {symbol.name!r} takes whole numbers.")
    return array.astype("float32" if dtype == "bfloat16" else dtype)


def _shapes(model: keras.Model) -> str:
    return ", ".join(f"{symbol.name!r} {_shape(symbol.shape)}" for symbol in model.inputs)


def _shape(shape) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
