"""poise: training under a regularization penalty, with both sides in sight."""

import importlib
from typing import TYPE_CHECKING

from poise._backend import import_keras

import_keras()

from poise.adoption import adopt
from poise.callbacks import ForceHistory, KeepZeros, LossSplit, ToSparsity
from poise.compaction import compact, dead_units, savings, structure
from poise.diagnostics.force_balance import forces
from poise.diagnostics.inventory import Summary, summary
from poise.optimizer.penalized import Penalized, find_penalized
from poise.path import Cluster, Path, Training, path
from poise.penalties import *  # noqa: F403
from poise.penalties import __all__ as _penalties
from poise.rules.rule import ALL, BIASES, EMBEDDINGS, SCALES, WEIGHTS, Role, Rule

if TYPE_CHECKING:
    from poise.study import study
    from poise.study.estimators import PathClassifier, PathRegressor

__version__ = "0.1.0"
__all__ = [
    "ALL",
    "BIASES",
    "EMBEDDINGS",
    "SCALES",
    "WEIGHTS",
    "Cluster",
    "ForceHistory",
    "KeepZeros",
    "LossSplit",
    "Path",
    "PathClassifier",
    "PathRegressor",
    "Penalized",
    "Role",
    "Rule",
    "Summary",
    "ToSparsity",
    "Training",
    "adopt",
    "compact",
    "dead_units",
    "find_penalized",
    "forces",
    "path",
    "savings",
    "structure",
    "study",
    "summary",
    *_penalties,
]


_LATER = {
    "PathClassifier": "poise.study.estimators",
    "PathRegressor": "poise.study.estimators",
    "study": "poise.study",
}
"""Names that are imported when they are first asked for: what they need takes seconds, and few programs need it."""


def __getattr__(name):
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'poise' has no attribute {name!r}")
