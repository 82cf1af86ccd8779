"""Survival analysis: the Cox partial likelihood as a loss, the baseline hazard, and the concordance index."""
