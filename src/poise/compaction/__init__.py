"""Zeros become a smaller network (poise.compact), and groups of weights that make such zeros (poise.structure)."""

from poise.compaction.rebuild import compact
from poise.compaction.report import dead_units, savings
from poise.compaction.unit_groups import structure

__all__ = ["compact", "dead_units", "savings", "structure"]
