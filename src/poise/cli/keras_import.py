"""Import Keras when a command runs, which takes seconds. `poise --help` does not need it."""

import importlib
import signal
import sys

from poise._backend import register_classes
from poise.cli.lean_imports import lean_imports
from poise.compilation_cache import enable_compilation_cache


def import_keras(*, needs_skops: bool = False, caches_programs: bool = False) -> None:
    """Import Keras and the classes that are registered with it, unless Keras is already imported.

    During the import, Ctrl-C ends the process immediately,
    because an imported module could swallow KeyboardInterrupt.

    Args:
        needs_skops: Whether to import skops too. It is imported first, because it searches all modules that are
            imported for each function of NumPy and SciPy: after Keras, there are three times as many. Default: `False`.
        caches_programs: Whether to keep compiled programs on disk and use those that are there. Default: `False`.

    Raises:
        ImportError: If the backend of Keras is not installed; its `name` is the backend's.
    """
    if "keras" in sys.modules:
        return
    if caches_programs:
        enable_compilation_cache()
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with lean_imports():
            if needs_skops:
                importlib.import_module("skops.io")
            importlib.import_module("keras")
            register_classes()
    finally:
        signal.signal(signal.SIGINT, handler)
