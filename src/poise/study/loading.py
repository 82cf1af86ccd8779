"""Read the folder of a study: check that it is whole and consistent, and rebuild its network and encoder."""

import json
import os
import re
from pathlib import Path

import keras
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from poise.files import checksum
from poise.path.declared_sizes import LARGEST_JSON, check_arrays
from poise.path.model_files import load_model
from poise.study.columns.base import Column, Key
from poise.study.columns.encoding import Encoder
from poise.study.consistency import find_inconsistency
from poise.study.errors import DataError, first_line
from poise.study.report.schema import FORMAT, VERSION, checksum_of, find_violation

REPORT, RECORD, TABLE, MODEL, PREPROCESSING = (
    "report.html", "study.json", "table.parquet", "model.keras", "preprocessing.skops",
)  # fmt: skip
FILES = (REPORT, RECORD, TABLE, MODEL, PREPROCESSING)
NEEDED = (MODEL, PREPROCESSING)
TRUSTED = ("numpy.dtype", *(f"{cls.__module__}.{cls.__qualname__}" for cls in (Encoder, Column, Key)))
"""Types that may be built from preprocessing.skops, besides the types of scikit-learn and NumPy that skops trusts."""
CODE_SIGNS = ("`Lambda`", "Python lambda")
"""What Keras' error names if an undamaged network holds Python code."""


def read_study(folder: str | os.PathLike[str], *, safe_mode: bool = True) -> tuple[dict, keras.Model, Encoder]:
    """Return the description, the network and the encoder of a saved study; see `Study.load`."""
    description, folder = read_description(folder), Path(folder)
    for name in NEEDED:
        if not (folder / name).is_file():
            raise _damaged(folder, f"{name} is missing")
        if checksum(folder / name) != description["files"].get(name):
            raise _damaged(folder, f"{name} has changed since it was saved")
    model, encoder = _read_network(folder, safe_mode), _read_encoder(folder)
    problem = find_inconsistency(description, model, encoder)
    if problem:
        raise _damaged(folder, problem)
    return description, model, encoder


def read_description(folder: str | os.PathLike[str]) -> dict:
    """Return the content of study.json.

    Raises:
        DataError: If there is no study, or it is of another version, or damaged.
    """
    folder = Path(folder)
    record = folder / RECORD
    if not folder.is_dir():
        raise DataError(f"The folder {str(folder)!r} does not exist.", "folder")
    if not record.is_file():
        raise DataError(f"The folder {str(folder)!r} holds no saved study: {RECORD} is missing.", "folder")
    try:
        if record.stat().st_size > LARGEST_JSON:
            raise _damaged(folder, f"{RECORD} is larger than any that poise writes")
        content = json.loads(record.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except DataError:
        raise
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or "it is not JSON in UTF-8"
        raise _damaged(folder, f"{RECORD} cannot be read, {reason}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"The folder {str(folder)!r} holds no saved study: {RECORD} has another format.", "folder")
    version = content.get("version")
    if isinstance(version, int) and version != VERSION:
        remedy = "Update poise" if version > VERSION else "Run the study again"
        raise DataError(
            f"The study in {str(folder)!r} has format version {version}, but this version of poise reads {VERSION}. "
            f"{remedy}."
        )
    violation = find_violation(content)
    if violation:
        raise _damaged(folder, f"in {RECORD}, {violation}")
    if content["checksum"] != checksum_of(content):
        raise _damaged(folder, f"{RECORD} has changed since it was saved")
    names = [candidate["candidate"] for candidate in content["candidates"]]
    for key in ("chosen", "selector"):
        if content[key] is not None and content[key] not in names:
            raise _damaged(folder, f"in {RECORD}, {key} is {content[key]!r}, which is not a candidate")
    return content


def _read_network(folder: Path, safe_mode: bool) -> keras.Model:
    try:
        return load_model(folder / MODEL, safe_mode=safe_mode)
    except MemoryError:
        raise
    except Exception as error:  # Keras, zipfile, h5py and JSON raise anything when a file is damaged
        unknown = re.search(r"Could not locate (?:class|function) '([^']+)'", str(error))
        if unknown is None and not any(sign in str(error) for sign in CODE_SIGNS):
            raise _damaged(folder, f"{MODEL} cannot be read, {first_line(error)}") from error
        reason = f"its layer or function {unknown[1]!r} is unknown" if unknown else first_line(error)
        raise DataError(
            f"The network in {str(folder / MODEL)!r} cannot be rebuilt: {reason}. Import the module that registers its "
            "layers first. If the network holds Python code and you trust its source, use safe_mode=False.",
            "imports" if unknown else "safe_mode",
        ) from error


def _read_encoder(folder: Path) -> Encoder:
    try:
        check_arrays(folder / PREPROCESSING)
        encoder = skops.io.load(folder / PREPROCESSING, trusted=list(TRUSTED))
    except MemoryError:
        raise
    except UntrustedTypesFoundException as error:
        raise DataError(
            f"{str(folder / PREPROCESSING)!r} was not loaded, because it needs types that poise does not trust: "
            f"{first_line(error)}. Use a copy of the study from a source that you trust, or run the study again."
        ) from error
    except Exception as error:  # skops, zipfile and NumPy raise anything when a file is damaged
        raise _damaged(folder, f"{PREPROCESSING} cannot be read, {first_line(error)}") from error
    if not isinstance(encoder, Encoder):
        raise _damaged(folder, f"{PREPROCESSING} holds {type(encoder).__name__}")
    return encoder


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _damaged(folder: Path, reason: str) -> DataError:
    return DataError(f"The study in {str(folder)!r} is damaged: {reason}. Use a copy of it, or run the study again.")
