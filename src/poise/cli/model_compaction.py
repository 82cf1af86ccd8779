"""The work of `poise compact`: a model in a file becomes a smaller one in another file."""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from poise._keras_internals import input_structure, sublayers
from poise.cli.errors import BadInputError, InternalError
from poise.cli.row_files import Rows, read_rows
from poise.compaction import compact, compare_models, dead_units
from poise.compaction.graph import check_model, graph_of
from poise.files import OutputExistsError, check_writable, replace_file
from poise.path.model_files import load_model
from poise.validation import validate_count, validate_number

SUFFIX = ".keras"
OLD_SUFFIXES = (".h5", ".hdf5")
BATCH_SIZE = 128
TOLERANCE = 1e-4
"""The largest difference of outputs, relative to the largest output, if only exact zeros were removed."""
HALF_PRECISION_TOLERANCE = {"float16": 1e-2, "bfloat16": 1e-1}
MODEL_HINT = "Give a file that model.save wrote"


@dataclass(frozen=True, eq=False)
class Check:
    """How well the outputs of two models agree.

    Args:
        data: The file of rows.
        rows: The number of rows.
        difference: The largest difference between the outputs, relative to the largest output.
    """

    data: str
    rows: int
    difference: float


@dataclass(frozen=True, eq=False)
class InputFeatures:
    """The features of an input that the smaller model takes, along the last axis.

    Args:
        input: The name of the input.
        features: The number of features before.
        kept: The positions of those that remain.
        columns: Their names, if rows came from a table.
    """

    input: str
    features: int
    kept: tuple[int, ...]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Compaction:
    """A smaller model, and how it compares.

    Args:
        source: The file of the original model.
        smaller: The model without its dead units.
        tolerance: The largest absolute value of a weight that counted as zero.
        dead: The dead units, from `poise.dead_units`.
        savings: The comparison of sizes, from `poise.compare_models`.
        inputs: One entry per input with features; `None` if all features remain.
        check: The comparison of outputs; `None` without rows.
    """

    source: Path
    smaller: keras.Model
    tolerance: float
    dead: pd.DataFrame
    savings: pd.DataFrame
    inputs: tuple[InputFeatures, ...] | None
    check: Check | None


def compact_file(
    source: Path,
    data: Path | None = None,
    *,
    tolerance: float = 0.0,
    drop_inputs: bool = False,
    multiple: int = 1,
) -> Compaction:
    """Read a model, make it smaller, and compare the two.

    Args:
        source: The file of the model.
        data: A file of rows on which to compare outputs; see `read_rows`. Default: `None`.
        tolerance: The largest absolute value of a weight that counts as zero. Default: 0.
        drop_inputs: Whether to remove input features that the model does not use. Default: `False`.
        multiple: The number of units that each layer keeps is a multiple of this. Default: 1.

    Raises:
        BadInputError: If the model or the rows cannot be read, or the model cannot be made smaller.
        poise.DataError: If a table of rows cannot be read.
        InternalError: If the outputs differ although only exact zeros were removed.
    """
    model = read_model(source)
    try:
        check_model(model)
        validate_number("tolerance", tolerance)
        validate_count("multiple", multiple, 1)
    except (TypeError, ValueError) as error:
        raise BadInputError(str(error)) from None
    rows = None if data is None else read_rows(data, model)
    inputs = None
    if drop_inputs:
        smaller, positions = compact(model, tolerance=tolerance, drop_inputs=True, multiple=multiple)
        inputs = _input_features(model, positions, () if rows is None else rows.columns)
    else:
        smaller = compact(model, tolerance=tolerance, multiple=multiple)
    check = None
    if rows is not None:
        check = Check(str(data), rows.count, _difference(model, smaller, rows, inputs or ()))
        limit = np.inf if tolerance else _largest_tolerance(model)
        if not check.difference <= limit:
            raise InternalError(
                f"Internal error: on {check.data!r} the outputs of the smaller model differ by {check.difference:.2g} "
                f"of the largest output, more than {limit:g}. Nothing was written. Please report this."
            )
    dead = dead_units(model, tolerance=tolerance, drop_inputs=drop_inputs, multiple=multiple)
    return Compaction(source, smaller, tolerance, dead, compare_models(model, smaller), inputs, check)


def read_model(source: Path, *, compile: bool = False) -> keras.Model:
    """Return the model in a file; only with `compile` with its optimizer, loss and metrics.

    Raises:
        BadInputError: If it cannot be loaded.
    """
    name = str(source)
    if source.is_dir():
        raise BadInputError(f"{name!r} is a folder. {MODEL_HINT}, such as model.keras.")
    if not source.exists():
        raise BadInputError(f"The file {name!r} does not exist. {MODEL_HINT}, such as model.keras.")
    if source.suffix.lower() not in OLD_SUFFIXES and not zipfile.is_zipfile(source):
        raise BadInputError(f"{name!r} is not a Keras model, or it is damaged. {MODEL_HINT}.")
    try:
        model = load_model(source, compile=compile)
        for layer in sublayers(model):
            layer.name.encode("utf-8")
        return model
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # Keras, zipfile, h5py and JSON raise anything when a file is damaged
        raise BadInputError(_explain_loading_error(name, str(error))) from None


def check_output(out: Path, *, overwrite: bool = False) -> None:
    """Check, before anything is read, whether a model can be written to a file.

    Raises:
        BadInputError: If the suffix is not .keras or the path is a folder.
        OutputExistsError: If the file exists and `overwrite` is false.
        CannotWriteError: If it cannot be written.
    """
    if out.suffix != SUFFIX:
        raise BadInputError(f"--out must end in {SUFFIX}, got {str(out)!r}.")
    if out.is_dir():
        raise BadInputError(f"--out must be a file, and {str(out)!r} is a folder.")
    if out.exists() and not overwrite:
        raise OutputExistsError(out)
    check_writable(out)


def write_model(model: keras.Model, out: Path) -> None:
    """Write a model, completely or not at all.

    Raises:
        CannotWriteError: If it cannot be written.
    """
    with replace_file(out) as new:
        model.save(new)


def _explain_loading_error(name: str, reason: str) -> str:
    unknown = re.search(r"Could not locate (?:class|function) '([^']+)'", reason)
    if unknown:
        part = unknown[1].removeprefix("Custom>")
        return f"{name!r} needs the custom layer or function {part!r}. Pass --import with the module that registers it."
    if "`Lambda`" in reason:
        return (
            f"{name!r} holds Python code (a Lambda layer), which is not run by default. If you trust its source, load "
            "it in Python with safe_mode=False and use poise.compact."
        )
    lines = reason.strip(" \"'\n").splitlines() or ["the reason is unknown"]
    return f"{name!r} cannot be read as a Keras model: {lines[0].rstrip('.')}. {MODEL_HINT}."


def _input_features(
    model: keras.Model, positions: np.ndarray | Sequence[np.ndarray], columns: tuple[str, ...]
) -> tuple[InputFeatures, ...]:
    per_input = [positions] if len(model.inputs) == 1 else positions
    return tuple(
        InputFeatures(symbol.name, symbol.shape[-1], tuple(map(int, kept)), tuple(columns[i] for i in kept if columns))
        for symbol, kept in zip(model.inputs, per_input, strict=True)
        if _has_features(symbol)
    )


def _has_features(symbol: keras.KerasTensor) -> bool:
    return len(symbol.shape) > 1 and symbol.shape[-1] is not None


def _difference(model: keras.Model, smaller: keras.Model, rows: Rows, inputs: tuple[InputFeatures, ...]) -> float:
    positions = {features.input: list(features.kept) for features in inputs}
    names = [symbol.name for symbol in model.inputs]
    cut = [x[..., positions[name]] if name in positions else x for name, x in zip(names, rows.arrays, strict=True)]
    pairs = zip(_outputs(model, rows.arrays), _outputs(smaller, cut), strict=True)
    return max(_relative_difference(before, after) for before, after in pairs)


def _outputs(model: keras.Model, arrays: list[np.ndarray]) -> list[np.ndarray]:
    x = keras.tree.pack_sequence_as(input_structure(graph_of(model)), arrays)
    outputs = model.predict(x, batch_size=BATCH_SIZE, verbose=0)
    return [np.asarray(output, "float64") for output in keras.tree.flatten(outputs)]


def _relative_difference(before: np.ndarray, after: np.ndarray) -> float:
    """Return max |before − after| / max |before|; NaN equals NaN, and infinity equals infinity."""
    with np.errstate(invalid="ignore"):
        gaps = np.abs(before - after)
    gaps[(before == after) | (np.isnan(before) & np.isnan(after))] = 0.0
    largest = np.abs(before[np.isfinite(before)]).max(initial=0.0)
    worst = np.nan_to_num(gaps, nan=np.inf, posinf=np.inf).max(initial=0.0)
    return 0.0 if worst == 0 else float(worst / largest) if largest else float("inf")


def _largest_tolerance(model: keras.Model) -> float:
    return max(HALF_PRECISION_TOLERANCE.get(layer.compute_dtype, TOLERANCE) for layer in sublayers(model))
