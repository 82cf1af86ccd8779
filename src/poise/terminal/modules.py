"""What a user wrote in Python, found from the folder in which a command runs."""

import importlib
import os
import sys
from collections.abc import Sequence

from poise.terminal.screen import BadInputError


def look_here() -> None:
    """Modules in the working directory are found, as by `python -m` and not by a console script."""
    sys.path.insert(0, os.getcwd())


def import_modules(names: Sequence[str] | None) -> None:
    """Imports modules that register layers and functions with Keras.

    Raises:
        BadInputError: one cannot be imported, for whatever reason.
    """
    look_here()
    for name in names or ():
        try:
            importlib.import_module(name)
        except Exception as error:
            raise BadInputError(
                f"--import {name} fails: {type(error).__name__}: {error}. Give the name of a module in this folder or "
                "on PYTHONPATH, such as nets for nets.py."
            ) from None
