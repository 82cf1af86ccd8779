"""The backend of Keras, chosen before Keras is imported: JAX comes with poise, TensorFlow may be missing."""

import importlib
import importlib.util
import json
import os
from pathlib import Path

NAMES = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}


def import_keras() -> None:
    """Import Keras, on JAX where no backend is chosen and TensorFlow, the default of Keras, is not installed.

    Raises:
        ImportError: if the chosen backend is not installed.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    backend = chosen or _configured()
    if not chosen and backend == "tensorflow" and importlib.util.find_spec("tensorflow") is None:
        os.environ["KERAS_BACKEND"] = backend = "jax"
    try:
        importlib.import_module("keras")
    except ModuleNotFoundError as error:
        if error.name != backend or backend not in NAMES:
            raise
        where = "KERAS_BACKEND is" if chosen else f"{_file()} sets the backend"
        raise ImportError(
            f"{where} {backend!r}, and {NAMES[backend]} is not installed. Install it with "
            f'`pip install "poise[{backend}]"`, or set KERAS_BACKEND=jax.',
            name=backend,
        ) from None


def _file() -> Path:
    """The file in which Keras keeps its settings; it writes one with its defaults where there is none."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"


def _configured() -> str:
    """The backend of that file, which Keras uses unless KERAS_BACKEND is set."""
    try:
        return json.loads(_file().read_text(encoding="utf-8")).get("backend", "tensorflow")
    except (OSError, ValueError, AttributeError):
        return "tensorflow"
