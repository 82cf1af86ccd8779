"""The sets of units that can be removed from a Keras model, and the weights that belong to them."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import keras
import numpy as np

from poise.compaction import compact
from poise.compaction.analysis import UnitAnalysis
from poise.compaction.calls import Call, Tensor
from poise.compaction.handlers import WeightPart
from poise.compaction.unit_groups import find_weight_groups, number_groups
from poise.penalties import JointGroupLasso
from poise.rules.members import names_of_members
from poise.rules.rule import Rule

NAME = "removed_units"
"""The name of the rule that penalizes units that are about to be removed."""


class RemovableUnits:
    """The sets of units of a model that can be removed one by one.

    Args:
        model: Built functional or sequential model. `remove` changes its weights for a moment, and restores them.

    Attributes:
        analysis: The analysis of its graph.
        is_removable: (sets,) whether a set can be removed, and has a weight that is trained.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.analysis = UnitAnalysis(model)
        self._groups = find_weight_groups(self.analysis)
        self.is_removable = np.zeros(len(self.analysis.unit_sets.why), bool)
        for _, _, sets in self._groups.values():
            self.is_removable[sets[sets >= 0]] = True

    def sets_of(self, along: tuple[int, np.ndarray] | None) -> tuple[int, np.ndarray] | None:
        """Return (axis, number of the set per index) for (axis, units)."""
        return None if along is None else (along[0], self.analysis.unit_sets.root[along[1]])

    @cached_property
    def parts(self) -> list[tuple[Any, WeightPart]]:
        """The variables that lie along units, with their parts."""
        parts = []
        for layer in self.analysis.graph.layers:
            call = self.analysis.graph.calls_of(layer)[0]
            pairs = ((part.of(layer), part) for part in call.handler.weight_parts(call))
            parts += [(variable, part) for variable, part in pairs if variable is not None]
        return parts

    @cached_property
    def widths(self) -> list[np.ndarray]:
        """The sets of the units that each layer makes, one array per layer."""
        return self._list_removable(lambda call: call.outputs)

    @cached_property
    def heads(self) -> list[np.ndarray]:
        """The sets of the heads, one array per attention layer."""
        return self._list_removable(lambda call: call.within.values())

    def sum_entries(self, entries: dict[int, np.ndarray]) -> np.ndarray:
        """Sum over all weights of each set: those that make its units, and those that read them.

        Args:
            entries: By the id of a variable, one number per entry. Variables without numbers count as zero.

        Returns:
            (sets,) the sums.
        """
        totals = np.zeros(len(self.is_removable))
        for variable, part in self.parts:
            for axis, sets in self._both_sides(part):
                if id(variable) in entries:
                    values = entries[id(variable)]
                    others = tuple(other for other in range(values.ndim) if other != axis)
                    np.add.at(totals, sets, values.sum(axis=others))
        return totals

    def count_entries(self) -> np.ndarray:
        """Return (sets,) how many weights make or read the units of each set."""
        return self.sum_entries({id(variable): np.ones(variable.shape) for variable, _ in self.parts})

    def make_rule(self, chosen: np.ndarray, factors: np.ndarray) -> Rule:
        """Return the rule that penalizes the chosen sets, with strength 1 and these factors, both (sets,)."""
        sets = np.flatnonzero(chosen)
        members = number_groups(self._groups, sets)
        return Rule([*members], JointGroupLasso(1.0, members, factors[sets]), name=NAME)

    def share_of_zeros(self, chosen: np.ndarray) -> float:
        """Return the share of the chosen sets of which all weights that `make_rule` penalizes are zero."""
        paths = names_of_members(self.model.trainable_variables)
        variables = dict(zip(paths, self.model.trainable_variables, strict=True))
        is_zero = chosen.copy()
        for path, (_, axis, sets) in self._groups.items():
            value = keras.ops.convert_to_numpy(variables[path])
            others = tuple(other for other in range(value.ndim) if other != axis)
            is_zero[sets[(value != 0).any(axis=others) & (sets >= 0)]] = False
        return float(is_zero.sum() / chosen.sum())

    def remove(self, chosen: np.ndarray) -> keras.Model:
        """Return a smaller model without the chosen sets, (sets,), as if their weights were zero.

        A unit without incoming weights outputs f(0), a constant that the biases of the following layers absorb. Where
        they cannot, the weights that read the unit count as zero as well.
        """
        before = [np.array(keras.ops.convert_to_numpy(weight)) for weight in self.model.weights]
        try:
            self._clear(chosen, readers=False)
            left = self._find_left() & chosen
            if left.any():
                self._clear(left, readers=True)
            return compact(self.model)
        finally:
            self.model.set_weights(before)

    def _find_left(self) -> np.ndarray:
        """Return (sets,) whether `poise.compact` would keep a set, with the weights as they are now."""
        root = self.analysis.unit_sets.root
        left = np.zeros(len(self.is_removable), bool)
        left[root[UnitAnalysis(self.model).stays(np.arange(len(root)))]] = True
        return left

    def _clear(self, chosen: np.ndarray, readers: bool) -> None:
        """Set the weights that make, or read, the chosen sets to zero."""
        for variable, part in self.parts:
            along = self.sets_of(part.reads if readers else part.makes)
            if along is not None and chosen[along[1]].any():
                value = np.array(keras.ops.convert_to_numpy(variable))
                np.moveaxis(value, along[0], 0)[chosen[along[1]]] = 0
                variable.assign(value)

    def _list_removable(self, tensors_of: Callable[[Call], Iterable[Tensor]]) -> list[np.ndarray]:
        """Return the sets along each of these tensors, if one of them can be removed."""
        calls = [self.analysis.graph.calls_of(layer)[0] for layer in self.analysis.graph.layers]
        tensors = [tensor for call in calls if call.handler.makes_units for tensor in tensors_of(call)]
        groups = [self.analysis.unit_sets.root[tensor.units] for tensor in tensors]
        return [sets for sets in groups if self.is_removable[sets].any()]

    def _both_sides(self, part: WeightPart) -> Iterator[tuple[int, np.ndarray]]:
        sides = (self.sets_of(along) for along in (part.makes, part.reads))
        yield from (side for side in sides if side is not None)
