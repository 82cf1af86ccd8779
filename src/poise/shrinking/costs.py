"""What units cost: FLOPs per sample, or parameters."""

import math
from dataclasses import dataclass

import numpy as np

from poise.compaction.handlers import WeightPart
from poise.shrinking.unit_sets import RemovableUnits

FLOPS, PARAMETERS = "FLOPs", "parameters"


@dataclass(frozen=True, eq=False)
class Term:
    """A part of the cost, proportional to the share of units that are kept on one or both sides of a weight.

    Attributes:
        cost: Cost with all units.
        sides: The sets of the units, one array per axis of the weight that lies along units.
    """

    cost: float
    sides: tuple[np.ndarray, ...]

    def of(self, stays: np.ndarray) -> float:
        """Return the cost if only these sets stay, (sets,)."""
        return self.cost * math.prod(float(stays[sets].mean()) for sets in self.sides)


class Costs:
    """The cost of a model as a function of the sets of units that stay.

    The number of parameters is exact. FLOPs are exact for layers with one kernel; those of a layer with several kernels
    are attributed to its kernels in proportion to their sizes.

    Args:
        units: Units of the model.
        quantity: `"FLOPs"` or `"parameters"`.
    """

    def __init__(self, units: RemovableUnits, quantity: str) -> None:
        self._count = len(units.is_removable)
        self._terms = _flop_terms(units) if quantity == FLOPS else _parameter_terms(units)

    def total(self, stays: np.ndarray) -> float:
        """Return the cost if only these sets stay, (sets,)."""
        return sum(term.of(stays) for term in self._terms)

    def marginal(self) -> np.ndarray:
        """Return (sets,) how much the cost falls if only this set is removed."""
        falls = np.zeros(self._count)
        for term in self._terms:
            for sets in term.sides:
                np.add.at(falls, sets, term.cost / len(sets))
        return falls


def _parameter_terms(units: RemovableUnits) -> list[Term]:
    terms = []
    for variable, part in units.parts:
        terms.append(Term(float(math.prod(variable.shape)), _sides(units, part)))
    others = units.model.count_params() - sum(term.cost for term in terms)
    return [*terms, Term(float(others), ())]


def _flop_terms(units: RemovableUnits) -> list[Term]:
    terms = []
    for call in units.analysis.graph.calls:
        products = 2.0 * call.handler.count_products(call)
        parts = [part for part in call.handler.weight_parts(call) if part.of(call.layer) is not None]
        kernels = [part for part in parts if part.reads is not None] or parts
        sizes = [math.prod(part.of(call.layer).shape) for part in kernels]
        for part, size in zip(kernels, sizes, strict=True):
            terms.append(Term(products * size / sum(sizes), _sides(units, part)))
        if not kernels:
            terms.append(Term(products, ()))
    return terms


def _sides(units: RemovableUnits, part: WeightPart) -> tuple[np.ndarray, ...]:
    return tuple(along[1] for along in (units.sets_of(part.reads), units.sets_of(part.makes)) if along is not None)
