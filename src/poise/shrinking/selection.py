"""Which units to remove: the least important ones for their cost, so that layers keep convenient widths."""

import numpy as np

from poise.shrinking.costs import Costs
from poise.shrinking.unit_sets import RemovableUnits


def choose_units(
    units: RemovableUnits, importance: np.ndarray, costs: Costs, target: float, multiple: int
) -> np.ndarray:
    """Choose the sets of units that matter least for their cost, so that the rest costs at most a target.

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
    score = add_within_layers(units, importance) / np.maximum(costs.marginal(), 1e-12)
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
    chosen = choose_first(low)
    layers, full = number_layers(units), set()
    for number in reversed(order[:low]):  # one costly set, such as a head, may leave room for others
        if layers[number] not in full:
            fewer = chosen.copy()
            fewer[number] = False
            fewer = round_widths(units, fewer, score, multiple)
            if costs.total(~fewer) <= target:
                chosen = fewer
            else:
                full.add(layers[number])
    return chosen


def add_within_layers(units: RemovableUnits, importance: np.ndarray) -> np.ndarray:
    """Return (sets,) how much more the loss depends on each set once the less important sets of its layer are removed.

    The importance of a set is the square of a change of the loss. The units of a layer often do the same work, so their
    changes are added before they are squared: sets with the importance I₁ ≤ I₂ ≤ ... count (√I₁ + ... + √Iₖ)² together.
    Otherwise a layer of many cheap units would lose nearly all of them before other layers lose any.
    """
    layers = number_layers(units)
    added = importance.astype("float64")
    for layer in range(layers.max() + 1):
        sets = np.flatnonzero(layers == layer)
        sets = sets[np.argsort(importance[sets], kind="stable")]
        roots = np.sqrt(importance[sets])
        added[sets] = roots * (2 * np.cumsum(roots) - roots)
    return added


def number_layers(units: RemovableUnits) -> np.ndarray:
    """Return (sets,) the number of the first layer that makes the units of a set, or -1 for sets that stay."""
    layers = np.full(len(units.is_removable), -1)
    for number, sets in enumerate([*units.widths, *units.heads]):
        layers[sets[units.is_removable[sets] & (layers[sets] < 0)]] = number
    return layers


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
