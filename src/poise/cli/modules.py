"""What a user wrote in Python, found from the folder in which a command runs."""

import importlib
import os
import sys
from collections.abc import Sequence

from poise.cli.screen import BadInputError


def look_here() -> None:
    """Modules in the working directory are found, after those that are installed: it shadows none of them."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def import_modules(names: Sequence[str] | None) -> None:
    """Imports modules that register layers and functions with Keras; without any the working directory stays out.

    Raises:
        BadInputError: one cannot be imported, for whatever reason.
    """
    if names:
        look_here()
    for name in names or ():
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise BadInputError(
                f"--import {name} fails: {type(error).__name__}: {error}. Give the name of a module in this folder or "
                "on PYTHONPATH, such as nets for nets.py."
            ) from None
