"""The units of a model that are dead.

Forward pass: constants. A unit without incoming weights is its activated bias, and a sum of constants is constant.
Backward pass, from the outputs of the model: needed units. A constant is needed only where no bias can absorb it. A
unit is removed if no unit that is joined with it is needed. One pass in each direction reaches the fixed point, since a
graph has no cycles: a unit that dies because another one does is visited later in the same pass. (A recurrent layer
iterates on its own.)
"""

import numbers
from typing import Any

import keras
import numpy as np

from poise._keras_internals import sublayers
from poise.compaction import elementwise, linear, normalization, placement, products, sequences
from poise.compaction.graph import Call, Graph, Tensor
from poise.compaction.handlers import OPAQUE, LayerHandler, describe, handler_of

HANDLER_MODULES = (linear, normalization, elementwise, placement, products, sequences)
"""The modules that register their handlers when they are imported."""

ENTRYWISE_REGULARIZERS = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
"""Regularizers that sum over entries, where an entry of 0 adds 0."""

INPUT = "an input of the model"
OUTPUT = "an output of the model"


class UnitAnalysis:
    """The constant and the needed units of a model, and which units stay.

    Args:
        model: Built functional or sequential model.
        tolerance: Weights of at most this absolute value count as zero. Default: 0.
        drop_inputs: Whether features of the inputs can be removed. Default: False.
        multiple: Keep dead units where a layer would otherwise make a number of units that is not a multiple of this.
            Default: 1.

    Raises:
        TypeError: If the model has no graph (see `Graph`).
        ValueError: If the model cannot be compacted, `tolerance` is not a number >= 0, or `multiple` is not an
            int >= 1.
    """

    def __init__(self, model: Any, tolerance: float = 0.0, drop_inputs: bool = False, multiple: int = 1) -> None:
        check_multiple(multiple)
        self.graph = Graph(model, check_tolerance(tolerance))
        self._link_calls(drop_inputs)
        self.unit_sets = self.graph.units.form_sets()
        for call in self.graph.calls:
            self._check_weights(call)
            call.handler.find_constants(call)
        self._find_needed(with_losses=True)
        self._stays = self._find_kept()
        if multiple > 1:
            self._round_up(multiple)

    def stays(self, units: np.ndarray) -> np.ndarray:
        """Return, per unit, whether it stays."""
        return self._stays[self.unit_sets.root[units]]

    def count(self, units: np.ndarray) -> int:
        """Return how many of these units stay."""
        return int(self.stays(units).sum())

    def why_pinned(self, units: np.ndarray) -> str:
        """Return the first reason why any of these units has to stay, "" if there is none."""
        reasons = self.unit_sets.why[self.unit_sets.root[units]]
        return next((reason for reason in reasons if reason), "")

    def find_read_inputs(self, values: dict[int, np.ndarray]) -> list[np.ndarray]:
        """Return, per input tensor, which of its features the outputs depend on.

        Args:
            values: Values that replace the weights of the model, by the id of the variable.
        """
        self.graph.set_values(values)
        for tensor in self.graph.tensors:
            tensor.reset()
        for call in self.graph.calls:
            call.handler.find_constants(call)
        self._find_needed(with_losses=False)
        return [tensor.needed for tensor in self.graph.inputs]

    def _link_calls(self, drop_inputs: bool) -> None:
        graph = self.graph
        for tensor in graph.inputs:
            last = tensor.shape[-1] if len(tensor.shape) > 1 else None
            tensor.carry(len(tensor.shape) - 1 if last else None, graph.units.create(last or 0))
            if not drop_inputs:
                graph.units.pin(tensor.units, INPUT)
        for call in graph.calls:
            handler = handler_of(call.layer)
            call.handler = handler if _is_supported(handler, call) else OPAQUE
            call.handler.link_units(call)
            for number in call.side_inputs:
                units = call.inputs[number].units
                graph.units.pin(units, f"{describe(call.layer)} uses these units as a mask or in another argument")
                graph.units.mark_untraceable(units)
            first = graph.calls_of(call.layer)[0]
            if call is not first and handler.is_sized:
                self._tie(call, first)
        for first, *others in graph.entered.values():
            for other in others:
                for here, there in zip(first, other, strict=True):
                    if here.axis == there.axis and len(here.units) == len(there.units):
                        graph.units.join(here.units, there.units)
                    else:
                        graph.units.pin(here.units, "a nested model is called on inputs of different shapes")
                        graph.units.pin(there.units, "a nested model is called on inputs of different shapes")
        for tensor in graph.outputs:
            graph.units.pin(tensor.units, OUTPUT)

    def _find_needed(self, with_losses: bool) -> None:
        """Mark what the outputs need, and what the losses of activity regularizers need."""
        for tensor in self.graph.outputs:
            tensor.needed[:] = True
        for call in reversed(self.graph.calls):
            if with_losses:
                _mark_regularized(call)
            call.handler.find_needed(call)
            for number in call.side_inputs:
                call.inputs[number].needed[:] = True

    def _check_weights(self, call: Call) -> None:
        """Raise ValueError if a layer that can be resized has weights that its handler does not know."""
        parts = call.handler.weight_parts(call)
        known = {id(part.of(call.layer)) for part in parts}
        unknown = [weight for weight in getattr(call.layer, "weights", ()) if id(weight) not in known]
        if parts and unknown:
            raise ValueError(
                f"poise.compact does not support the weight {unknown[0].path!r} of the layer {describe(call.layer)}. "
                "If it belongs to the activation, make the activation a separate layer after this one."
            )

    def _tie(self, call: Call, first: Call) -> None:
        """Join the units of two calls of a layer, which share its weights."""
        units = self.graph.units
        if call.form != first.form:
            for mismatch in (call, first):
                made = [tensor.units for tensor in (*mismatch.outputs, *mismatch.within.values())]
                for pinned in [*mismatch.input_units.values(), *made]:
                    units.pin(pinned, f"{describe(call.layer)} is called more than once, in different ways")
            return
        for number in call.input_units:
            units.join(call.input_units[number], first.input_units[number])
        pairs = zip((*call.outputs, *call.within.values()), (*first.outputs, *first.within.values()), strict=True)
        for tensor, first_tensor in pairs:
            units.join(tensor.units, first_tensor.units)

    def _find_kept(self) -> np.ndarray:
        """Return, per set of units, whether it stays: if needed or pinned, and at least one unit of every tensor."""
        stays = self.unit_sets.is_pinned.copy()
        tensors = self.graph.tensors
        for tensor in tensors:
            stays[self.unit_sets.root[tensor.units[tensor.needed]]] = True
        for tensor in tensors:
            roots = self.unit_sets.root[tensor.units]
            if len(roots) and not stays[roots].any():
                stays[roots[0]] = True
        return stays

    def _round_up(self, multiple: int) -> None:
        """Keep dead units until every layer makes a multiple of units, or all of its units."""
        made = [tensor for call in self.graph.calls if call.handler.makes_units for tensor in call.outputs]
        before = -1
        while before != self._stays.sum():  # a unit that one layer keeps may be joined with units of another
            before = self._stays.sum()
            for tensor in made:
                dead = self.unit_sets.root[tensor.units[~self.stays(tensor.units)]]
                self._stays[dead[: -self.count(tensor.units) % multiple]] = True


def _is_supported(handler: LayerHandler, call: Call) -> bool:
    if call.is_training and handler.differs_in_training(call):
        return False
    parts = sublayers(call.layer, include_self=False) if isinstance(call.layer, keras.layers.Layer) else []
    return not any(_activity_regularizer(layer) for layer in parts) and handler.supports(call)


def _mark_regularized(call: Call) -> None:
    """Mark what a layer's activity regularizer reads as needed, since its value is a part of the loss."""
    regularizer = _activity_regularizer(call.layer)
    tensors: list[Tensor] = call.outputs if regularizer else []
    for tensor in tensors:
        # A zero adds nothing to a sum over entries.
        tensor.needed |= (tensor.constants != 0) | (type(regularizer) not in ENTRYWISE_REGULARIZERS)


def _activity_regularizer(layer: Any) -> Any:
    return getattr(layer, "activity_regularizer", None)


def check_tolerance(tolerance: float) -> float:
    """Return the tolerance as a float, or raise ValueError."""
    if isinstance(tolerance, bool) or not isinstance(tolerance, numbers.Real) or not 0 <= float(tolerance) < np.inf:
        raise ValueError(f"tolerance must be a finite number >= 0, got {tolerance!r}.")
    return float(tolerance)


def check_multiple(multiple: int) -> None:
    """Raise ValueError if `multiple` is not an int >= 1."""
    if isinstance(multiple, bool) or not isinstance(multiple, numbers.Integral) or multiple < 1:
        raise ValueError(f"multiple must be an int >= 1, got {multiple!r}.")
