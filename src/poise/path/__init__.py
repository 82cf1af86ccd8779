"""Every strength and every fold at once (poise.fit_path)."""

from poise.path.executors.ray_cluster import RayCluster
from poise.path.fit import fit_path
from poise.path.result import RegularizationPath
from poise.path.training import Training

__all__ = ["RayCluster", "RegularizationPath", "Training", "fit_path"]
