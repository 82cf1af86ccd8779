"""Penalties R(w), as formulas of the weights on every backend.

To add a penalty, write one class in this package and add one line below.
"""

from poise.penalties.base import Penalty
from poise.penalties.concave import L0, MCP, SCAD, LogSum
from poise.penalties.constraints import Box, NonNegative
from poise.penalties.groups import GroupLasso, SparseGroupLasso
from poise.penalties.joint import JointGroupLasso
from poise.penalties.matrices import MutualCoherence, NuclearNorm, Orthogonal
from poise.penalties.norms import L1, L2, ElasticNet
from poise.penalties.shapes import Anchored, Smoothness
from poise.penalties.sorted_l1 import Slope
from poise.penalties.sparsity import NofM, PolynomialSparsity, TopK
from poise.penalties.total_variation import TotalVariation
from poise.penalties.unit_constraints import MaxNorm, Simplex

__all__ = [
    "L0",
    "L1",
    "L2",
    "MCP",
    "SCAD",
    "Anchored",
    "Box",
    "ElasticNet",
    "GroupLasso",
    "JointGroupLasso",
    "LogSum",
    "MaxNorm",
    "MutualCoherence",
    "NofM",
    "NonNegative",
    "NuclearNorm",
    "Orthogonal",
    "Penalty",
    "PolynomialSparsity",
    "Simplex",
    "Slope",
    "Smoothness",
    "SparseGroupLasso",
    "TopK",
    "TotalVariation",
]
