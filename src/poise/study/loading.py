"""Read the folder of a study: check that it is complete and consistent, and rebuild its network and encoder."""

import os
import re
from pathlib import Path

import keras
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from poise.files import checksum
from poise.path.declared_sizes import check_arrays
from poise.path.model_files import load_model
from poise.study.columns.base import Column, Key
from poise.study.columns.encoding import Encoder
from poise.study.columns.piecewise_encoder import PiecewiseLinearEncoder
from poise.study.consistency import find_inconsistency
from poise.study.description_file import MODEL, NEEDED, PREPROCESSING, damaged, read_description
from poise.study.errors import DataError, first_line

CLASSES = (Encoder, Column, Key, PiecewiseLinearEncoder)
TRUSTED = ("numpy.dtype", *(f"{cls.__module__}.{cls.__qualname__}" for cls in CLASSES))
"""Types that may be built from preprocessing.skops, besides the types of scikit-learn and NumPy that skops trusts."""
CODE_SIGNS = ("`Lambda`", "Python lambda")
"""What Keras' error names if an undamaged network holds Python code."""


def read_study(folder: str | os.PathLike[str], *, safe_mode: bool = True) -> tuple[dict, keras.Model, Encoder]:
    """Return the description, the network and the encoder of a saved study; see `Study.load`."""
    description, folder = read_description(folder), Path(folder)
    for name in NEEDED:
        if not (folder / name).is_file():
            raise damaged(folder, f"{name} is missing")
        if checksum(folder / name) != description["files"].get(name):
            raise damaged(folder, f"{name} has changed since it was saved")
    model, encoder = _read_network(folder, safe_mode), _read_encoder(folder)
    problem = find_inconsistency(description, model, encoder)
    if problem:
        raise damaged(folder, problem)
    return description, model, encoder


def _read_network(folder: Path, safe_mode: bool) -> keras.Model:
    try:
        return load_model(folder / MODEL, safe_mode=safe_mode)
    except MemoryError:
        raise
    except Exception as error:  # Keras, zipfile, h5py and JSON raise anything when a file is damaged
        unknown = re.search(r"Could not locate (?:class|function) '([^']+)'", str(error))
        if unknown is None and not any(sign in str(error) for sign in CODE_SIGNS):
            raise damaged(folder, f"{MODEL} cannot be read, {first_line(error)}") from error
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
        raise damaged(folder, f"{PREPROCESSING} cannot be read, {first_line(error)}") from error
    if not isinstance(encoder, Encoder):
        raise damaged(folder, f"{PREPROCESSING} holds {type(encoder).__name__}")
    return encoder
