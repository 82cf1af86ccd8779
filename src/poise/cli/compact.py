"""`poise compact`: a model in a file becomes a smaller one in another file."""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from poise.cli.rows import Rows, read_rows
from poise.cli.screen import BadInputError, FaultError
from poise.compaction import compact, compare_models, dead_units
from poise.compaction.analysis import check_multiple, check_tolerance
from poise.compaction.graph import check_model, graph_of
from poise.files import replace_file
from poise.path.declared_sizes import load_model

ENDING = ".keras"
OLD_ENDINGS = (".h5", ".hdf5")
BATCH = 128
EXACT = 1e-4
"""How far outputs may be apart, relative to the largest, where nothing but exact zeros was removed."""
COARSE = {"float16": 1e-2, "bfloat16": 1e-1}
"""The same where a layer computes in half precision."""


@dataclass(frozen=True, eq=False)
class Check:
    """How two models agree on rows.

    Args:
        data: the file of the rows.
        rows: how many there are.
        difference: the largest one between the outputs, relative to the largest output.
    """

    data: str
    rows: int
    difference: float


@dataclass(frozen=True, eq=False)
class Needed:
    """Which features of an input are still needed, along its last axis.

    Args:
        input: its name.
        features: how many it had.
        kept: the positions of those that stay.
        columns: their names, if rows were given as a table.
    """

    input: str
    features: int
    kept: tuple[int, ...]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Compaction:
    """A model made smaller, and what is known about that.

    Args:
        source: the file of the larger model.
        smaller: the model without its dead units.
        tolerance: weights of at most this size counted as zero.
        dead: what died and why, as `poise.dead_units` tells it.
        saved: what that saves, as `poise.compare_models` tells it.
        needed: for every input with features; None if they were to stay as they are.
        check: None without rows.
    """

    source: Path
    smaller: keras.Model
    tolerance: float
    dead: pd.DataFrame
    saved: pd.DataFrame
    needed: tuple[Needed, ...] | None
    check: Check | None


def compacted(
    source: Path,
    data: Path | None = None,
    *,
    tolerance: float = 0.0,
    drop_inputs: bool = False,
    multiple: int = 1,
) -> Compaction:
    """Reads a model, makes it smaller, and compares the two.

    Args:
        source: the file of a model.
        data: a file of rows to compare on (see `read_rows`).
        tolerance: weights of at most this size count as zero.
        drop_inputs: whether features of the inputs that nobody reads go as well.
        multiple: of which every layer keeps a number of units.

    Raises:
        BadInputError, poise.study.DataError: the model or the rows cannot be read, or the model not be compacted.
        FaultError: the outputs differ, and nothing but exact zeros was removed.
    """
    model = load(source)
    try:
        check_model(model)
        check_tolerance(tolerance)
        check_multiple(multiple)
    except (TypeError, ValueError) as error:
        raise BadInputError(str(error)) from None
    rows = None if data is None else read_rows(data, model)
    needed = None
    if drop_inputs:
        smaller, positions = compact(model, tolerance=tolerance, drop_inputs=True, multiple=multiple)
        needed = _needed(model, positions, rows)
    else:
        smaller = compact(model, tolerance=tolerance, multiple=multiple)
    check = None
    if rows is not None:
        check = Check(str(data), rows.count, _difference(model, smaller, rows, needed or ()))
        allowed = np.inf if tolerance else _allowed(model)
        if not check.difference <= allowed:
            raise FaultError(
                f"On {check.data!r} the outputs of the smaller model differ by {check.difference:.2g} of the largest "
                f"output, more than {allowed:g}. Nothing is written. That is a fault of poise: please report it."
            )
    dead = dead_units(model, tolerance=tolerance, drop_inputs=drop_inputs, multiple=multiple)
    return Compaction(source, smaller, tolerance, dead, compare_models(model, smaller), needed, check)


def load(source: Path) -> keras.Model:
    """The model in a file, without its optimizer.

    Raises:
        BadInputError: it cannot be loaded; the text says why.
    """
    name = str(source)
    if source.is_dir():
        raise BadInputError(f"{name!r} is a folder. Give a file that model.save wrote, such as model.keras.")
    if not source.exists():
        raise BadInputError(f"There is no file {name!r}. Give one that model.save wrote, such as model.keras.")
    if source.suffix.lower() not in OLD_ENDINGS and not zipfile.is_zipfile(source):
        raise BadInputError(f"{name!r} is no Keras model, or a damaged one. Give a file that model.save wrote.")
    try:
        model = load_model(source)
        for layer in model._flatten_layers():
            layer.name.encode("utf-8")
        return model
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # Keras, zipfile, h5py and JSON raise whatever the file makes them stumble over
        raise BadInputError(_why_not_loaded(name, str(error))) from None


def check_output(out: Path, *, overwrite: bool = False) -> None:
    """Finds out, before anything is read, whether a model can be written to a file.

    Raises:
        BadInputError: it is no .keras file, it is a folder, or it exists and `overwrite` is false.
    """
    if out.suffix != ENDING:
        raise BadInputError(f"--out {str(out)!r} is no name of a Keras model. End it in {ENDING}.")
    if out.is_dir():
        raise BadInputError(f"--out {str(out)!r} is a folder. Give the name of a file.")
    if out.exists() and not overwrite:
        raise BadInputError(f"The file {str(out)!r} exists, and nothing is overwritten unasked. Use --force.")


def write(model: keras.Model, out: Path) -> None:
    """Writes a model beside its place first, and then moves it there.

    Raises:
        OSError: it cannot be written.
    """
    with replace_file(out) as new:
        model.save(new)


def _why_not_loaded(name: str, reason: str) -> str:
    unknown = re.search(r"Could not locate (?:class|function) '([^']+)'", reason)
    if unknown:
        return (
            f"{name!r} has a part of its own, {unknown[1].removeprefix('Custom>')!r}, which is not known here. "
            "Name the module that registers it: --import MODULE."
        )
    if "`Lambda`" in reason:
        return (
            f"{name!r} holds Python code (a Lambda layer), which is not run from a file unasked. If you trust its "
            "source, load it in Python with safe_mode=False and use poise.compact."
        )
    lines = reason.strip(" \"'\n").splitlines() or ["no reason is known"]
    return f"{name!r} cannot be read as a Keras model: {lines[0].rstrip('.')}. Give a file that model.save wrote."


def _needed(model: keras.Model, positions, rows: Rows | None) -> tuple[Needed, ...]:
    several = [positions] if len(model.inputs) == 1 else positions
    columns = rows.columns if rows is not None else ()
    return tuple(
        Needed(symbol.name, symbol.shape[-1], tuple(map(int, kept)), tuple(columns[i] for i in kept if columns))
        for symbol, kept in zip(model.inputs, several, strict=True)
        if _has_features(symbol)
    )


def _has_features(symbol: keras.KerasTensor) -> bool:
    return len(symbol.shape) > 1 and symbol.shape[-1] is not None


def _difference(model: keras.Model, smaller: keras.Model, rows: Rows, needed: tuple[Needed, ...]) -> float:
    positions = {one.input: list(one.kept) for one in needed}
    names = [symbol.name for symbol in model.inputs]
    cut = [x[..., positions[name]] if name in positions else x for name, x in zip(names, rows.arrays, strict=True)]
    pairs = zip(_outputs(model, rows.arrays), _outputs(smaller, cut), strict=True)
    return max(_apart(before, after) for before, after in pairs)


def _outputs(model: keras.Model, arrays: list[np.ndarray]) -> list[np.ndarray]:
    given = keras.tree.pack_sequence_as(graph_of(model)._inputs_struct, arrays)
    made = model.predict(given, batch_size=BATCH, verbose=0)
    return [np.asarray(one, "float64") for one in keras.tree.flatten(made)]


def _apart(before: np.ndarray, after: np.ndarray) -> float:
    """max |before − after| / max |before|; an entry that is NaN or infinite in both is the same in both."""
    with np.errstate(invalid="ignore"):
        gaps = np.abs(before - after)
    gaps[(before == after) | (np.isnan(before) & np.isnan(after))] = 0.0
    largest = np.abs(before[np.isfinite(before)]).max(initial=0.0)
    worst = np.nan_to_num(gaps, nan=np.inf, posinf=np.inf).max(initial=0.0)
    return 0.0 if worst == 0 else float(worst / largest) if largest else float("inf")


def _allowed(model: keras.Model) -> float:
    return max(COARSE.get(layer.compute_dtype, EXACT) for layer in model._flatten_layers())
