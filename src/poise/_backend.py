"""What happens when Keras is imported after poise: the backend is chosen, and poise's classes are registered.

`import poise` does not import Keras, so that `poise.torch` and `poise.optax` can still choose its backend, and so that
`poise --help` answers at once.
"""

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

NAMES = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
LIGHT = ("poise", "poise._backend", "poise._version")
"""The modules of poise that `import poise` imports."""


class KerasFinder(MetaPathFinder):
    """Finds Keras like the other finders, and makes its import choose a backend and register the classes of poise."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _KerasLoader(spec.loader)
        return spec


class _KerasLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        choose_backend()
        try:
            self._loader.exec_module(module)
        except ModuleNotFoundError as error:
            raise _explain(error) from None
        # If a module of poise imports Keras, its classes cannot be imported before it has finished.
        if all(name in LIGHT for name in sys.modules if name.startswith("poise.")):
            register_classes()


def watch_keras() -> None:
    """Register the classes of poise with Keras if Keras is imported, otherwise when it is."""
    if "keras" in sys.modules:
        register_classes()
    elif not any(isinstance(finder, KerasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, KerasFinder())


def register_classes() -> None:
    """Import the classes that a saved model may contain. That registers them with Keras, which can then load it."""
    for module in ("poise.optimizer.penalized", "poise._losses", "poise.survival.loss"):
        importlib.import_module(module)


def choose_backend() -> None:
    """Choose JAX if no backend is chosen and TensorFlow, the default of Keras, is not installed."""
    if os.environ.get("KERAS_BACKEND") or _configured_backend() != "tensorflow":
        return
    if importlib.util.find_spec("tensorflow") is None:
        os.environ["KERAS_BACKEND"] = "jax"


def require_backend(backend: str, module: str) -> None:
    """Import Keras on a backend, which no environment variable needs to name.

    Args:
        backend: `"torch"` or `"jax"`.
        module: The module of poise that needs this backend.

    Raises:
        ImportError: If Keras runs on another backend, or has to.
    """
    is_imported = "keras" in sys.modules
    chosen = os.environ.get("KERAS_BACKEND")
    if not is_imported and not chosen:
        os.environ["KERAS_BACKEND"] = backend
    actual = importlib.import_module("keras").backend.backend()
    if actual == backend:
        return
    if is_imported:
        raise ImportError(
            f"{module} needs Keras on {NAMES[backend]}, but Keras is already imported on {NAMES.get(actual, actual)}. "
            f"Restart Python and import {module} before Keras and before the first use of a name such as poise.L1, or "
            f"set KERAS_BACKEND={backend}."
        )
    raise ImportError(
        f"{module} needs Keras on {NAMES[backend]}, but KERAS_BACKEND is {chosen!r}. Unset it, or set it to "
        f"{backend!r}."
    )


def _explain(error: ModuleNotFoundError) -> ImportError:
    chosen = os.environ.get("KERAS_BACKEND")
    backend = chosen or _configured_backend()
    if error.name != backend or backend not in NAMES:
        return error
    where = "KERAS_BACKEND is" if chosen else f"{_settings_file()} sets the backend"
    return ImportError(
        f"{where} {backend!r}, and {NAMES[backend]} is not installed. Install it with "
        f'`pip install "poise[{backend}]"`, or set KERAS_BACKEND=jax.',
        name=backend,
    )


def _settings_file() -> Path:
    """Return the path of the settings of Keras, which Keras creates with its defaults."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"


def _configured_backend() -> str:
    """Return the backend in the settings, which Keras uses unless KERAS_BACKEND is set."""
    try:
        return json.loads(_settings_file().read_text(encoding="utf-8")).get("backend", "tensorflow")
    except (OSError, ValueError, AttributeError):
        return "tensorflow"
