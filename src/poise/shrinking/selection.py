"""Which units to remove: the least important ones for their cost, so that layers keep convenient widths."""

import numpy as np

from poise.shrinking.costs import Costs
from poise.shrinking.unit_sets import RemovableUnits


def choose_units(
    units: RemovableUnits, importance: np.ndarray, costs: Costs, target: float, multiple: int
) -> np.ndarray:
    """Choose sets of units to remove, in the order of importance / cost, until the cost is at most a target.

    Args:
        units: Units of the model.
        importance: (sets,) how much the loss depends on each set.
        costs: What the sets cost.
        target: Largest cost that may be left. Where it cannot be reached, everything that is allowed is chosen.
        multiple: Every layer keeps a multiple of this number of units, or all of its units. Heads of attention layers
            are not counted as units.

    Returns:
        (sets,) whether a set is removed.
    """
    score = importance / np.maximum(costs.marginal(), 1e-12)
    order = np.argsort(np.where(units.is_removable, score, np.inf), kind="stable")[: int(units.is_removable.sum())]

    def choose_first(count: int) -> np.ndarray:
        chosen = np.zeros(len(score), bool)
        chosen[order[:count]] = True
        return round_widths(units, chosen, score, multiple)

    low, high = 0, len(order)
    while low < high:  # the smallest count that reaches the target
        middle = (low + high) // 2
        if costs.total(~choose_first(middle)) <= target:
            high = middle
        else:
            low = middle + 1
    return choose_first(low)


def round_widths(units: RemovableUnits, chosen: np.ndarray, score: np.ndarray, multiple: int) -> np.ndarray:
    """Return the choice without the most important sets, so that layers keep a multiple of units and at least one."""
    chosen = chosen.copy()
    before = -1
    while before != chosen.sum():  # a set that one layer keeps may have units in another layer
        before = chosen.sum()
        for sets, factor in [*((sets, multiple) for sets in units.widths), *((sets, 1) for sets in units.heads)]:
            kept = int((~chosen[sets]).sum())
            missing = min(max(-kept % factor, 1 - kept), len(sets) - kept)
            if missing:
                removed = np.unique(sets[chosen[sets]])
                chosen[removed[np.argsort(-score[removed], kind="stable")[:missing]]] = False
    return chosen
