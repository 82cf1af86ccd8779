"""Every strength and every fold at once (poise.path)."""

from poise.path.executors.ray_cluster import Cluster
from poise.path.fit import path
from poise.path.result import Path
from poise.path.training import Training

__all__ = ["Cluster", "Path", "Training", "path"]
