"""Which units of a model are dead.

Forward: what is constant (a unit without incoming weights is its activated bias, a sum of constants is one). Backward:
what is needed, from the outputs of the model on; a constant is needed only where it cannot be folded into a bias. A
unit goes if nothing that is joined with it is needed. One pass each is the fixed point, since a graph has no circles:
what dies by another's death is met later in the same pass. (A recurrent layer goes round by itself.)
"""

import numbers
from typing import Any

import keras
import numpy as np

from poise.compaction import elementwise, linear, normalization, placement, products, sequences
from poise.compaction.graph import Call, Graph, Tensor
from poise.compaction.handlers import WALL, Kind, describe, kind_of

FAMILIES = (linear, normalization, elementwise, placement, products, sequences)
"""The modules that register their kinds when they are imported."""

ENTRYWISE = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
"""Regularizers that sum over entries, and give 0 for one that is 0."""

INPUT = "an input of the model"
OUTPUT = "an output of the model"


class Findings:
    """What is known of the units of a model.

    Args:
        model: a built functional or sequential model.
        tolerance: weights whose size is at most this count as zero.
        drop_inputs: whether features of the inputs can go.
        multiple: dead units stay where a layer would else make a number of units that is no multiple of this.

    Raises:
        TypeError, ValueError: if the model cannot be compacted (see `Graph`), the tolerance is no number ≥ 0, or
            `multiple` no whole number ≥ 1.
    """

    def __init__(self, model, tolerance: float = 0.0, drop_inputs: bool = False, multiple: int = 1):
        check_multiple(multiple)
        self.graph = Graph(model, checked_tolerance(tolerance))
        self._link(drop_inputs)
        self.joined = self.graph.units.settle()
        for call in self.graph.calls:
            call.kind.constants(call)
        for tensor in self.graph.outputs:
            tensor.needed[:] = True
        for call in reversed(self.graph.calls):
            self._need_for_activity(call)
            call.kind.needs(call)
            for number in call.others:
                call.inputs[number].needed[:] = True
        self._stays = self._kept()
        if multiple > 1:
            self._fill_up(multiple)

    def stays(self, units: np.ndarray) -> np.ndarray:
        """Which of some units stay."""
        return self._stays[self.joined.root[units]]

    def count(self, units: np.ndarray) -> int:
        return int(self.stays(units).sum())

    def why_pinned(self, units: np.ndarray) -> str:
        """The first reason why any of some units has to stay; "" if there is none."""
        reasons = self.joined.why[self.joined.root[units]]
        return next((reason for reason in reasons if reason), "")

    def _link(self, drop_inputs: bool):
        graph = self.graph
        for tensor in graph.inputs:
            last = tensor.shape[-1] if len(tensor.shape) > 1 else None
            tensor.carry(len(tensor.shape) - 1 if last else None, graph.units.fresh(last or 0))
            if not drop_inputs:
                graph.units.pin(tensor.units, INPUT)
        for call in graph.calls:
            kind = kind_of(call.layer)
            call.kind = kind if self._is_followed(kind, call) else WALL
            call.kind.link(call)
            self._keep_others(call)
            first = graph.calls_of(call.layer)[0]
            if call is not first and kind.is_sized:
                self._tie(call, first)
        for first, *others in graph.entered.values():
            for other in others:
                for here, there in zip(first, other, strict=True):
                    if here.axis == there.axis and len(here.units) == len(there.units):
                        graph.units.join(here.units, there.units)
                    else:
                        graph.units.pin(here.units, "a model is called on it and on tensors of other shapes")
                        graph.units.pin(there.units, "a model is called on it and on tensors of other shapes")
        for tensor in graph.outputs:
            graph.units.pin(tensor.units, OUTPUT)

    def _is_followed(self, kind: Kind, call: Call) -> bool:
        if call.is_training and kind.differs_in_training(call):
            return False
        within = call.layer._flatten_layers(include_self=False) if isinstance(call.layer, keras.layers.Layer) else []
        return not any(_activity_regularizer(one) for one in within) and kind.follows(call)

    def _need_for_activity(self, call: Call):
        """What a layer's activity regularizer reads has to stay, since its value is a part of the loss."""
        regularizer = _activity_regularizer(call.layer)
        for tensor in call.outputs if regularizer else []:
            # A sum over entries to which a zero adds nothing does without it.
            tensor.needed |= (tensor.constants != 0) | (type(regularizer) not in ENTRYWISE)

    def _keep_others(self, call: Call):
        """What a layer reads beside its units, such as a mask, stays whole; so must all its weights be known."""
        for number in call.others:
            self.graph.units.pin(call.inputs[number].units, f"{describe(call.layer)} reads it beside its units")
        parts = call.kind.parts(call)
        known = {id(part.of(call.layer)) for part in parts}
        unknown = [weight for weight in getattr(call.layer, "weights", ()) if id(weight) not in known]
        if parts and unknown:
            raise ValueError(
                f"The layer {describe(call.layer)} has weights that are not known to compact: {unknown[0].path!r}. If "
                "its activation is a layer with weights, put that behind it as a layer of its own."
            )

    def _tie(self, call: Call, first: Call):
        """The weights of a layer are the same in two calls, and so are their units."""
        units = self.graph.units
        if call.form != first.form:
            for one in (call, first):
                for own in [*one.given.values(), *(tensor.units for tensor in (*one.outputs, *one.within.values()))]:
                    units.pin(own, f"{describe(call.layer)} is also called in a way that is not known to compact")
            return
        for number in call.given:
            units.join(call.given[number], first.given[number])
        made, other = ([*one.outputs, *one.within.values()] for one in (call, first))
        for own, same in zip(made, other, strict=True):
            units.join(own.units, same.units)

    def _kept(self) -> np.ndarray:
        """Per set of joined units whether it stays: what is needed or pinned, and of every tensor one unit at least."""
        stays = self.joined.is_pinned.copy()
        tensors = self._tensors()
        for tensor in tensors:
            stays[self.joined.root[tensor.units[tensor.needed]]] = True
        for tensor in tensors:
            roots = self.joined.root[tensor.units]
            if len(roots) and not stays[roots].any():
                stays[roots[0]] = True
        return stays

    def _fill_up(self, multiple: int):
        """Keeps so many dead units that every layer makes a multiple of units, or all of its own."""
        made = [tensor for call in self.graph.calls if call.kind.makes_units for tensor in call.outputs]
        before = -1
        while before != self._stays.sum():  # what one layer keeps, another one may have to keep with it
            before = self._stays.sum()
            for tensor in made:
                dead = self.joined.root[tensor.units[~self.stays(tensor.units)]]
                self._stays[dead[: -self.count(tensor.units) % multiple]] = True

    def _tensors(self) -> list[Tensor]:
        inside = [tensor for call in self.graph.calls for tensor in call.within.values()]
        return [*self.graph.inputs, *(tensor for call in self.graph.calls for tensor in call.outputs), *inside]


def _activity_regularizer(layer) -> Any:
    return getattr(layer, "activity_regularizer", None)


def checked_tolerance(tolerance) -> float:
    if isinstance(tolerance, bool) or not isinstance(tolerance, numbers.Real) or not 0 <= float(tolerance) < np.inf:
        raise ValueError(f"tolerance={tolerance!r}: give a number ≥ 0; weights of at most that size count as zero.")
    return float(tolerance)


def check_multiple(multiple):
    if isinstance(multiple, bool) or not isinstance(multiple, numbers.Integral) or multiple < 1:
        raise ValueError(f"multiple={multiple!r}: give a whole number ≥ 1, such as 8.")
