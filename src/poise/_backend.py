"""The backend of Keras, chosen before Keras is imported. JAX is a dependency of poise, TensorFlow is not."""

import importlib
import importlib.util
import json
import os
from pathlib import Path

NAMES = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}


def import_keras() -> None:
    """Import Keras. The backend is JAX if none is chosen and TensorFlow, the default of Keras, is not installed.

    Raises:
        ImportError: If the chosen backend is not installed.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    backend = chosen or _configured_backend()
    if not chosen and backend == "tensorflow" and importlib.util.find_spec("tensorflow") is None:
        os.environ["KERAS_BACKEND"] = backend = "jax"
    try:
        importlib.import_module("keras")
    except ModuleNotFoundError as error:
        if error.name != backend or backend not in NAMES:
            raise
        where = "KERAS_BACKEND is" if chosen else f"{_settings_file()} sets the backend"
        raise ImportError(
            f"{where} {backend!r}, and {NAMES[backend]} is not installed. Install it with "
            f'`pip install "poise[{backend}]"`, or set KERAS_BACKEND=jax.',
            name=backend,
        ) from None


def _settings_file() -> Path:
    """Return the path of the settings of Keras, which Keras creates with its defaults."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"


def _configured_backend() -> str:
    """Return the backend in the settings, which Keras uses unless KERAS_BACKEND is set."""
    try:
        return json.loads(_settings_file().read_text(encoding="utf-8")).get("backend", "tensorflow")
    except (OSError, ValueError, AttributeError):
        return "tensorflow"
