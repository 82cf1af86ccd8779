"""Import the package `poise`, and Keras with it, only when a command runs.

`poise/__init__.py` imports Keras, which takes seconds; the commands and their `--help` need only modules of
`poise.cli`. The console script therefore puts the package into `sys.modules` without running its `__init__.py`, and
each command that needs Keras runs it before its work starts.
"""

import importlib
import signal
import sys

from poise.cli.lean_imports import lean_imports
from poise.compilation_cache import enable_compilation_cache


def import_package(*, needs_skops: bool = False, caches_programs: bool = False) -> None:
    """Run `poise/__init__.py` unless it has already run.

    During the import, Ctrl-C ends the process immediately,
    because an imported module could swallow KeyboardInterrupt.

    Args:
        needs_skops: Whether to import skops too. It is imported first, because it searches all modules that are
            imported for each function of NumPy and SciPy: after Keras, there are three times as many. Default: `False`.
        caches_programs: Whether to keep compiled programs on disk and use those that are there. Default: `False`.

    Raises:
        ImportError: If the backend of Keras is not installed; its `name` is the backend's.
    """
    package = sys.modules["poise"]
    if hasattr(package, "__all__"):
        return
    assert package.__spec__ is not None
    assert package.__spec__.loader is not None
    if caches_programs:
        enable_compilation_cache()
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with lean_imports():
            if needs_skops:
                importlib.import_module("skops.io")
            package.__spec__.loader.exec_module(package)
    finally:
        signal.signal(signal.SIGINT, handler)
