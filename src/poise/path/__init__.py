"""Every strength and every fold at once (poise.fit_path). The names below are imported on first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poise.path.executors.ray_cluster import RayCluster
    from poise.path.fit import fit_path
    from poise.path.result import RegularizationPath
    from poise.path.training import Training

__all__ = ["RayCluster", "RegularizationPath", "Training", "fit_path"]

_MODULES = {
    "RayCluster": "poise.path.executors.ray_cluster",
    "RegularizationPath": "poise.path.result",
    "Training": "poise.path.training",
    "fit_path": "poise.path.fit",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'poise.path' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
