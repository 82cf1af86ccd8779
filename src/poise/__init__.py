"""Training under a regularization penalty, for Keras 3: total loss = prediction loss + strength x penalty."""

import importlib
from typing import TYPE_CHECKING, Any

from poise._backend import register_classes, watch_keras
from poise._version import __version__ as __version__

if TYPE_CHECKING:
    from poise.adoption import adopt_regularizers
    from poise.callbacks import ForceHistory, PenaltyLogger, RestoreZeros, TargetSparsity
    from poise.compaction import compact, compare_models, dead_units, input_sparsity, unit_sparsity
    from poise.diagnostics.force_balance import forces
    from poise.diagnostics.inventory import Summary, summary
    from poise.optimizer.lookup import get_penalized_optimizer
    from poise.optimizer.penalized import PenalizedOptimizer
    from poise.path.executors.ray_cluster import RayCluster
    from poise.path.fit import fit_path
    from poise.path.result import RegularizationPath
    from poise.path.training import Training
    from poise.penalties import (
        L0,
        L1,
        L2,
        MCP,
        SCAD,
        Anchored,
        Box,
        ElasticNet,
        GroupLasso,
        JointGroupLasso,
        LogSum,
        MaxNorm,
        MutualCoherence,
        NofM,
        NonNegative,
        NuclearNorm,
        Orthogonal,
        Penalty,
        PolynomialSparsity,
        Simplex,
        Slope,
        Smoothness,
        SparseGroupLasso,
        TopK,
        TotalVariation,
    )
    from poise.rules.rule import Role, Rule
    from poise.shrinking import ShrinkResult, shrink
    from poise.study.columns.piecewise_encoder import PiecewiseLinearEncoder
    from poise.study.errors import DataError
    from poise.study.estimators import PathClassifier, PathRegressor
    from poise.study.result import Study
    from poise.study.run import run_study
    from poise.survival.concordance import concordance_index
    from poise.survival.curves import BaselineHazard
    from poise.survival.loss import CoxPartialLikelihood

__all__ = [
    "L0",
    "L1",
    "L2",
    "MCP",
    "SCAD",
    "Anchored",
    "BaselineHazard",
    "Box",
    "CoxPartialLikelihood",
    "DataError",
    "ElasticNet",
    "ForceHistory",
    "GroupLasso",
    "JointGroupLasso",
    "LogSum",
    "MaxNorm",
    "MutualCoherence",
    "NofM",
    "NonNegative",
    "NuclearNorm",
    "Orthogonal",
    "PathClassifier",
    "PathRegressor",
    "PenalizedOptimizer",
    "Penalty",
    "PenaltyLogger",
    "PiecewiseLinearEncoder",
    "PolynomialSparsity",
    "RayCluster",
    "RegularizationPath",
    "RestoreZeros",
    "Role",
    "Rule",
    "ShrinkResult",
    "Simplex",
    "Slope",
    "Smoothness",
    "SparseGroupLasso",
    "Study",
    "Summary",
    "TargetSparsity",
    "TopK",
    "TotalVariation",
    "Training",
    "adopt_regularizers",
    "compact",
    "compare_models",
    "concordance_index",
    "dead_units",
    "fit_path",
    "forces",
    "get_penalized_optimizer",
    "input_sparsity",
    "run_study",
    "shrink",
    "summary",
    "unit_sparsity",
]

_PENALTIES = (
    *("L0", "L1", "L2", "MCP", "SCAD", "Anchored", "Box", "ElasticNet", "GroupLasso", "JointGroupLasso"),
    *("LogSum", "MaxNorm", "MutualCoherence", "NofM", "NonNegative", "NuclearNorm", "Orthogonal", "Penalty"),
    *("PolynomialSparsity", "Simplex", "Slope", "Smoothness", "SparseGroupLasso", "TopK", "TotalVariation"),
)
_MODULES = {
    **dict.fromkeys(_PENALTIES, "poise.penalties"),
    "CoxPartialLikelihood": "poise.survival.loss",
    "BaselineHazard": "poise.survival.curves",
    "concordance_index": "poise.survival.concordance",
    **dict.fromkeys(("Role", "Rule"), "poise.rules.rule"),
    "PenalizedOptimizer": "poise.optimizer.penalized",
    "get_penalized_optimizer": "poise.optimizer.lookup",
    **dict.fromkeys(("Summary", "summary"), "poise.diagnostics.inventory"),
    "forces": "poise.diagnostics.force_balance",
    **dict.fromkeys(("ForceHistory", "PenaltyLogger", "RestoreZeros", "TargetSparsity"), "poise.callbacks"),
    "adopt_regularizers": "poise.adoption",
    **dict.fromkeys(("compact", "compare_models", "dead_units", "input_sparsity", "unit_sparsity"), "poise.compaction"),
    **dict.fromkeys(("ShrinkResult", "shrink"), "poise.shrinking"),
    "fit_path": "poise.path.fit",
    "RegularizationPath": "poise.path.result",
    "Training": "poise.path.training",
    "RayCluster": "poise.path.executors.ray_cluster",
    **dict.fromkeys(("PathClassifier", "PathRegressor"), "poise.study.estimators"),
    "PiecewiseLinearEncoder": "poise.study.columns.piecewise_encoder",
    "run_study": "poise.study.run",
    "Study": "poise.study.result",
    "DataError": "poise.study.errors",
}
"""By public name the module that defines it, which is imported on first use (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name in ("optax", "torch"):  # they choose the backend of Keras
        return importlib.import_module(f"poise.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'poise' has no attribute {name!r}")
    register_classes()
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# `import poise` is enough to load a saved model.
watch_keras()
