"""Every strength and every fold at once (poise.path)."""

from poise.paths.cluster import Cluster
from poise.paths.result import Path
from poise.paths.run import path
from poise.paths.training import Training

__all__ = ["Cluster", "Path", "Training", "path"]
