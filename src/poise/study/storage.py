"""A study as a folder, written whole or not at all, and read again for predictions.

report.html          the report
study.json           what was asked and what came out, by templates/study.schema.json
table.parquet        every strength of every path
model.keras          the chosen network without its dead units, a plain Keras model
preprocessing.skops  what brings columns to the network's inputs

Nothing in it is a pickle: scikit-learn's parts are kept by skops, and only types that are listed here are built again.
"""

import errno
import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from poise.files import checksum, clear_leftovers, replace_file, replace_folder, write_bytes
from poise.path.declared_sizes import LARGEST_JSON, check_arrays, load_model
from poise.study.candidates.candidates import probabilities
from poise.study.columns.columns import Column, features_of
from poise.study.columns.encoding import Encoder
from poise.study.report.description import FORMAT, VERSION, checksum_of, describe, fault, paths_table, schema
from poise.study.report.page import page
from poise.study.result import Study
from poise.study.sources import DataError

REPORT, RECORD, TABLE, MODEL, PREPROCESSING = (
    "report.html", "study.json", "table.parquet", "model.keras", "preprocessing.skops",
)  # fmt: skip
FILES = (REPORT, RECORD, TABLE, MODEL, PREPROCESSING)
NEEDED = (MODEL, PREPROCESSING)
TRUSTED = ("numpy.dtype", "poise.study.columns.encoding.Encoder", "poise.study.columns.columns.Column")
"""Types that may be built from preprocessing.skops, besides those of scikit-learn and NumPy that skops trusts."""
BATCH = 1024
CODE = ("`Lambda`", "Python lambda")
"""What Keras names where a network that is whole holds Python code."""
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
STEERING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that JSON has as they are, and that steer a terminal."""


def save(study: Study, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Writes a run, whole or not at all; returns the path of its report.

    Args:
        study: what `poise.study.study` returned.
        folder: where to; its parents are made.
        overwrite: whether a run that is there may be replaced; nothing else ever is.

    Raises:
        FileExistsError: the folder holds something that may not be replaced.
        OSError: it cannot be written.
    """
    check_folder(folder, overwrite=overwrite)
    with _told(folder), replace_folder(Path(folder).resolve()) as new:
        _write(study, new)
    return Path(folder) / REPORT


def check_folder(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Finds out, before anything is trained, whether a run can be saved in `folder`; leaves no trace.

    Raises:
        FileExistsError: the folder holds something that may not be replaced.
        OSError: it cannot be written.
    """
    with _told(folder):
        clear_leftovers(Path(folder).resolve())
        _check_place(Path(folder), overwrite)
    check_writable(folder)


def check_writable(folder: str | os.PathLike[str], option: str = "--out") -> None:
    """Raises OSError if nothing could be written beside a folder, and names the option by which to choose another."""
    with _told(folder, option):
        whole = Path(folder).resolve()
        _check_name(whole)
        nearest = next(parent for parent in whole.parents if parent.exists())
        tempfile.TemporaryDirectory(dir=nearest).cleanup()


def check_output(out: Path, *, overwrite: bool = False) -> None:
    """Finds out, before anything is predicted, whether predictions can be written to a file.

    Raises:
        DataError: its name does not tell how, it is a folder, or it exists and `overwrite` is false.
    """
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(f"--out {str(out)!r} does not tell how to write. End it in .csv or .parquet.")
    if out.is_dir():
        raise DataError(f"--out {str(out)!r} is a folder. Give the name of a file.")
    if out.suffix.lower() == ".parquet":
        try:
            _check_name(out.resolve())
        except OSError as error:
            raise DataError(
                f"The file {str(out)!r} cannot be written: {error.strerror}. Choose another with --out, or end it in "
                ".csv."
            ) from None
    if out.exists() and not overwrite:
        raise DataError(f"The file {str(out)!r} exists, and nothing is overwritten unasked. Use --force.")


def write_predictions(predictions: pd.DataFrame, out: Path) -> None:
    """Writes a .csv or .parquet file beside its place first, and then moves it there.

    Raises:
        OSError: it cannot be written.
    """
    with replace_file(out) as new:
        if out.suffix.lower() == ".csv":
            predictions.to_csv(new, index=False, lineterminator="\n", errors="backslashreplace")
        else:
            predictions.to_parquet(new, index=False)


@dataclass(frozen=True, eq=False)
class Run:
    """A saved study, ready to predict.

    Args:
        folder: where it is.
        describe: the content of study.json.
        model: the chosen network; it takes encoded rows.
        encoder: brings the columns in use to the network's inputs.
        columns: every column of the data that were studied, with what it holds.
    """

    folder: Path
    describe: dict
    model: keras.Model
    encoder: Encoder

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        return tuple(map(_column, self.describe["data"]["columns"]))

    def encode(self, frame: pd.DataFrame, name: str = "the table of new rows") -> np.ndarray:
        """(rows, inputs) float32, what the network takes.

        Args:
            frame: with the columns in use, in any order; others are ignored.
            name: of the rows, for errors.

        Raises:
            DataError: a column is missing, or holds something else than when it was studied.
        """
        return self.encoder.transform(features_of(frame, self.columns, name))

    def predict(self, frame: pd.DataFrame, name: str = "the table of new rows") -> pd.DataFrame:
        """One row a row of `frame`: the target in its own units, or the mean count, or class and probabilities.

        Args:
            frame, name: as for `encode`.

        Raises:
            DataError: as for `encode`.
        """
        data = self.describe["data"]
        outputs = np.zeros((0, len(data["classes"]) if data["task"] == "multiclass" else 1))
        if len(frame):
            outputs = self._outputs(self.encode(frame, name))
        if not data["classes"]:
            values = outputs[:, 0] * self.describe["scale"] + self.describe["center"]
            return pd.DataFrame({data["target"]: values}, index=frame.index)
        shares = probabilities(outputs)
        classes = np.asarray(data["classes"], object)
        said = {data["target"]: classes[shares.argmax(axis=1)]}
        said |= {f"probability of {label}": shares[:, number] for number, label in enumerate(classes)}
        return pd.DataFrame(said, index=frame.index)

    def _outputs(self, x: np.ndarray) -> np.ndarray:
        try:
            return self.model.predict(x, batch_size=BATCH, verbose=0).astype("float64")
        except MemoryError:
            raise
        except Exception as error:  # whatever the layers of a network stumble over
            raise DataError(
                f"The network in {str(self.folder / MODEL)!r} cannot predict these rows: {_reason(error)}. Take a copy "
                "of the run, or run poise study again."
            ) from error


def load_run(folder: str | os.PathLike[str], *, safe_mode: bool = True) -> Run:
    """The run that `save` put into a folder, to predict with.

    Args:
        folder: where it is.
        safe_mode: False to allow Python code in the model (a `Lambda` layer), if you trust its source.

    Raises:
        DataError: there is no run, or one of a newer poise, a damaged one, or one that cannot be rebuilt here.
    """
    found, folder = read_description(folder), Path(folder)
    for name in NEEDED:
        if not (folder / name).is_file():
            raise _damaged(folder, f"{name} is missing")
        if checksum(folder / name) != found["files"].get(name):
            raise _damaged(folder, f"{name} is not what was saved")
    run = Run(folder, found, _network(folder, safe_mode), _encoder(folder))
    wrong = _what_does_not_fit(run)
    if wrong:
        raise _damaged(folder, wrong)
    return run


def read_description(folder: str | os.PathLike[str]) -> dict:
    """The content of study.json.

    Raises:
        DataError: there is no run, or one of a newer poise, or a damaged one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"There is no folder {str(folder)!r}. `poise study` makes one.")
    if not (folder / RECORD).is_file():
        raise DataError(f"The folder {str(folder)!r} holds no run of poise: {RECORD} is missing.")
    try:
        if (folder / RECORD).stat().st_size > LARGEST_JSON:
            raise _damaged(folder, f"{RECORD} is larger than any that poise writes")
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else "") or "it is not JSON in UTF-8"
        raise _damaged(folder, f"{RECORD} cannot be read, {reason}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"The folder {str(folder)!r} holds no run that this poise can read: {RECORD} is another's.")
    version = found.get("version")
    if isinstance(version, int) and version != VERSION:
        mend = "Update poise" if version > VERSION else "Run poise study again"
        raise DataError(f"The run in {str(folder)!r} has the format {version}, and this poise reads {VERSION}. {mend}.")
    wrong = fault(found, schema())
    if wrong:
        raise _damaged(folder, f"in {RECORD} {wrong}")
    if found["checksum"] != checksum_of(found):
        raise _damaged(folder, f"{RECORD} is not what was saved")
    names = [one["candidate"] for one in found["candidates"]]
    for key in ("chosen", "selector"):
        if found[key] is not None and found[key] not in names:
            raise _damaged(folder, f"in {RECORD} {key} is {found[key]!r}, which is not a candidate")
    return found


def _write(study: Study, folder: Path) -> None:
    study.smaller.save(folder / MODEL)
    write_bytes(folder / PREPROCESSING, skops.io.dumps(study.encoder))
    paths_table(study).to_parquet(folder / TABLE, index=False)
    write_bytes(folder / REPORT, page(study).encode("utf-8", "replace"))
    content = describe(study) | {"files": {name: checksum(folder / name) for name in NEEDED}}
    content["checksum"] = checksum_of(content)
    # A lone surrogate, which UTF-8 does not have, becomes the escape that JSON reads as the same; so does what steers a
    # terminal on which the file is shown.
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    text = STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    write_bytes(folder / RECORD, text.encode("utf-8", "backslashreplace"))


def _check_place(target: Path, overwrite: bool) -> None:
    """Raises FileExistsError unless the place is free, or holds nothing but a run that may be replaced."""
    if not target.is_dir():
        if target.exists():
            raise FileExistsError(f"{str(target)!r} is a file, and a run is a folder. Give another name with --out.")
        return
    inside = {one.name for one in target.iterdir()}
    name = str(target)
    if not inside:
        return
    if RECORD not in inside:
        raise FileExistsError(
            f"The folder {name!r} holds something that is no run of poise, and it is left alone. Give another with "
            "--out."
        )
    if not overwrite:
        raise FileExistsError(
            f"The folder {name!r} already holds a run, and nothing is overwritten unasked. Use --force "
            "(overwrite=True), or another folder."
        )
    strange = sorted(inside - {*FILES})
    if strange:
        raise FileExistsError(
            f"The folder {name!r} holds a run and also {strange[0]!r}, which would be lost. Move that away, or give "
            "another with --out."
        )


@contextmanager
def _told(folder: str | os.PathLike[str], option: str = "--out"):
    """What the system refuses, in one sentence."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileExistsError) and error.errno is None:
            raise
        reason = error.strerror or str(error).splitlines()[0]
        mend = "Free some space, or choose" if error.errno in FULL else "Choose"
        raise OSError(
            f"The folder {os.fspath(folder)!r} cannot be written: {reason}. {mend} another with {option}."
        ) from error


def _check_name(place: Path) -> None:
    """Raises OSError for a name that some libraries cannot write, before anything is trained or predicted."""
    try:
        str(place).encode("utf-8")
    except UnicodeEncodeError:
        raise OSError(errno.EILSEQ, "its name, or that of a folder around it, is not UTF-8") from None


def _network(folder: Path, safe_mode: bool) -> keras.Model:
    try:
        return load_model(folder / MODEL, safe_mode=safe_mode)
    except MemoryError:
        raise
    except Exception as error:  # Keras, zipfile, h5py and JSON raise whatever the file makes them stumble over
        unknown = re.search(r"Could not locate (?:class|function) '([^']+)'", str(error))
        if unknown is None and not any(sign in str(error) for sign in CODE):
            raise _damaged(folder, f"{MODEL} cannot be read, {_reason(error)}") from error
        reason = f"{unknown[1]!r} in it is not known" if unknown else _reason(error)
        raise DataError(
            f"The network in {str(folder / MODEL)!r} cannot be rebuilt here: {reason}. Import what registers its "
            "layers first (--import MODULE); for Python code in it, if you trust its source, use load_run(folder, "
            "safe_mode=False)."
        ) from error


def _encoder(folder: Path) -> Encoder:
    try:
        check_arrays(folder / PREPROCESSING)
        found = skops.io.load(folder / PREPROCESSING, trusted=list(TRUSTED))
    except MemoryError:
        raise
    except UntrustedTypesFoundException as error:
        raise DataError(
            f"{str(folder / PREPROCESSING)!r} asks for types that poise does not trust, and was not loaded: {error}"
        ) from error
    except Exception as error:  # skops, zipfile and NumPy raise whatever the file makes them stumble over
        raise _damaged(folder, f"{PREPROCESSING} cannot be read, {_reason(error)}") from error
    if not isinstance(found, Encoder):
        raise _damaged(folder, f"{PREPROCESSING} holds {type(found).__name__}")
    return found


def _what_does_not_fit(run: Run) -> str:
    """Where study.json, the preprocessing and the network do not belong together; "" for nothing."""
    data, inputs = run.describe["data"], run.describe["inputs"]
    classes, task = data["classes"], data["task"]
    wanted = {"binary": [2], "multiclass": range(2, len(classes) + 1)}.get(task, [0])
    if len(classes) not in wanted or len(set(classes)) < len(classes):
        return f"in {RECORD} {len(classes)} classes do not fit the task {task}"
    try:
        columns = [(one.name, one.kind) for one in run.encoder.columns]
        names = list(run.encoder.inputs)
        encoded = run.encoder.transform(_row_of_gaps(run.encoder.columns))
    except Exception as error:  # whatever scikit-learn's parts stumble over
        return f"{PREPROCESSING} does not encode rows, {_reason(error)}"
    if columns != [(one.name, one.kind) for one in run.columns if one.kind != "set aside"]:
        return f"{RECORD} and {PREPROCESSING} name other columns"
    if names != inputs or encoded.shape != (1, len(inputs)):
        return f"{RECORD} and {PREPROCESSING} name other inputs"
    outputs = len(classes) if task == "multiclass" else 1
    taken, given = _shapes(run.model, len(inputs))
    if taken != [(None, len(inputs))] or given != [(None, outputs)]:
        return (
            f"the network in {MODEL} takes {_listed(taken)} and returns {_listed(given)}, and by {RECORD} it takes "
            f"{_listed([(None, len(inputs))])} and returns {_listed([(None, outputs)])}"
        )
    return ""


def _row_of_gaps(columns: tuple[Column, ...]) -> pd.DataFrame:
    kinds = {"number": [np.nan], "category": pd.Series([None], dtype=object), "date": [pd.NaT]}
    return pd.DataFrame({one.name: kinds[one.kind] for one in columns})


def _shapes(model: keras.Model, inputs: int) -> tuple[list, list]:
    """Of what a network takes and returns; a subclassed one is asked what it would return."""
    symbols = getattr(model, "inputs", None)
    if symbols:
        return [tuple(one.shape) for one in symbols], [tuple(one.shape) for one in model.outputs]
    try:
        made = keras.tree.flatten(model(keras.KerasTensor((None, inputs))))
    except Exception:  # whatever its layers stumble over
        return [], []
    return [(None, inputs)], [tuple(one.shape) for one in made]


def _listed(shapes: list) -> str:
    shown = [f"({', '.join('any' if size is None else str(size) for size in shape)})" for shape in shapes]
    return ", ".join(shown) or "something else"


def _column(content: Mapping) -> Column:
    known = {one.name for one in fields(Column)}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items() if name in known
    }
    return Column(**given)


def _reason(error: Exception) -> str:
    """The first line of what a library says, without a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _damaged(folder: Path, reason: str) -> DataError:
    return DataError(f"The run in {str(folder)!r} is damaged: {reason}. Take a copy of it, or run poise study again.")
