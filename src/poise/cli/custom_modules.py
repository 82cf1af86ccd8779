"""Import custom layers and networks from the folder in which a command runs."""

import importlib
import os
import sys
from collections.abc import Sequence

from poise.cli.errors import BadInputError


def add_working_directory() -> None:
    """Let Python find modules in the working directory, after the installed ones, which they cannot replace."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def import_modules(names: Sequence[str] | None) -> None:
    """Import modules that register layers and functions with Keras.

    Args:
        names: Their names. The working directory is searched only if there are any.

    Raises:
        BadInputError: If one cannot be imported, for any reason.
    """
    if names:
        add_working_directory()
    for name in names or ():
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise BadInputError(
                f"--import {name} failed: {type(error).__name__}: {error}. Give the name of a module in this folder or "
                "on PYTHONPATH, such as nets for nets.py."
            ) from None
