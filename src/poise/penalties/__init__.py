"""Penalties R(w), as formulas of the weights on every backend.

To add a penalty, write one class in this package and add one line below.
"""

from poise.penalties.base import Penalty
from poise.penalties.concave import L0, MCP, SCAD, LogSum
from poise.penalties.groups import GroupLasso, SparseGroupLasso
from poise.penalties.joint import JointGroupLasso
from poise.penalties.matrices import MutualCoherence, NuclearNorm, Orthogonal
from poise.penalties.norms import L1, L2, ElasticNet
from poise.penalties.shapes import Anchored, Smoothness

__all__ = [
    "L0",
    "L1",
    "L2",
    "MCP",
    "SCAD",
    "Anchored",
    "ElasticNet",
    "GroupLasso",
    "JointGroupLasso",
    "LogSum",
    "MutualCoherence",
    "NuclearNorm",
    "Orthogonal",
    "Penalty",
    "Smoothness",
    "SparseGroupLasso",
]
