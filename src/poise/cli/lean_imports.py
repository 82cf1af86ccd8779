"""Import libraries without the optional packages that they import only because they are installed.

Keras imports Matplotlib and IPython, in case something is drawn. skops lists the estimators of scikit-learn, which
imports PyTorch and pytest. Together this takes longer than the predictions of a command.
"""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

OPTIONAL = ("IPython", "matplotlib", "pytest", "torch")


@contextmanager
def lean_imports() -> Iterator[None]:
    """Hide optional packages, except the backend of Keras, and exclude what is imported from garbage collection.

    Packages that are already imported, and other ways to find modules than `sys.path`, are not affected.
    """
    hidden = {*OPTIONAL} - {os.environ.get("KERAS_BACKEND")}

    class LeanFinder(PathFinder):
        @classmethod
        def find_spec(
            cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
        ) -> ModuleSpec | None:
            return None if fullname.partition(".")[0] in hidden else super().find_spec(fullname, path, target)

    collects = gc.isenabled()
    gc.disable()
    _replace_finder(PathFinder, LeanFinder)
    try:
        yield
    finally:
        _replace_finder(LeanFinder, PathFinder)
        gc.freeze()
        if collects:
            gc.enable()


def _replace_finder(old: type[PathFinder], new: type[PathFinder]) -> None:
    sys.meta_path[:] = [new if finder is old else finder for finder in sys.meta_path]
