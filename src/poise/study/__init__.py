"""From a table to a report: does a penalty help on these data, which one, how strong, and which columns matter?

The names below are imported on first use. Everything else is imported from its module.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poise.study.candidates.penalties import DEFAULT_PENALTIES, PENALTIES
    from poise.study.errors import DataError
    from poise.study.result import Study
    from poise.study.run import run_study
    from poise.study.tables import Table, read

__all__ = ["DEFAULT_PENALTIES", "PENALTIES", "DataError", "Study", "Table", "read", "run_study"]

_MODULES = {
    "DEFAULT_PENALTIES": "poise.study.candidates.penalties",
    "PENALTIES": "poise.study.candidates.penalties",
    "DataError": "poise.study.errors",
    "Study": "poise.study.result",
    "Table": "poise.study.tables",
    "read": "poise.study.tables",
    "run_study": "poise.study.run",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'poise.study' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
