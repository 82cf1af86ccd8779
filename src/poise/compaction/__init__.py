"""Zeros become a smaller network (poise.compact), and groups of weights that make such zeros (poise.unit_sparsity)."""

from poise.compaction.rebuild import compact
from poise.compaction.report import compare_models, dead_units
from poise.compaction.unit_groups import unit_sparsity

__all__ = ["compact", "compare_models", "dead_units", "unit_sparsity"]
