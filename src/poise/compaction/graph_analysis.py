"""The units of a graph that are dead.

Forward pass: constants. A unit without incoming weights is its activated bias, and a sum of constants is constant.
Backward pass, from the outputs of the model: needed units. A constant is needed only where no bias can absorb it. A
unit is removed if no unit that is joined with it is needed. One pass in each direction reaches the fixed point, since a
graph has no cycles: a unit that dies because another one does is visited later in the same pass. (A recurrent layer
iterates on its own.)
"""

from abc import ABC, abstractmethod

import numpy as np

from poise.compaction.calls import Call, CallGraph
from poise.compaction.handlers import OPAQUE, LayerHandler, WeightPart

INPUT = "an input of the model"
OUTPUT = "an output of the model"


class GraphAnalysis(ABC):
    """The constant and the needed units of a graph, and which units stay. A subclass knows the layers of one framework.

    Args:
        graph: Calls of the model.
        drop_inputs: Whether features of the inputs can be removed. Default: False.
        multiple: Keep dead units where a layer would otherwise make a number of units that is not a multiple of this.
            Default: 1.

    Raises:
        ValueError: If a layer cannot be resized.
    """

    def __init__(self, graph: CallGraph, drop_inputs: bool = False, multiple: int = 1) -> None:
        self.graph = graph
        self._multiple = multiple
        self.link_inputs(drop_inputs)
        self._link_calls()
        for call in graph.calls:
            call.handler.find_constants(call)
        self.mark_outputs()
        self.spread_needed()
        self.form_sets()

    @abstractmethod
    def link_inputs(self, drop_inputs: bool) -> None:
        """Create the units of the inputs of the model."""

    @abstractmethod
    def handler_of(self, call: Call) -> LayerHandler:
        """Return the handler that is registered for the layer of a call."""

    @abstractmethod
    def is_supported(self, handler: LayerHandler, call: Call) -> bool:
        """Whether a handler knows this call; otherwise the layer is opaque."""

    @abstractmethod
    def link_shared(self) -> None:
        """Join the units that belong together for another reason than the calls of a layer, and check the layers."""

    def mark_outputs(self) -> None:
        """Mark what is needed outside of the graph."""
        for tensor in self.graph.outputs:
            tensor.needed[:] = True

    def spread_needed(self) -> None:
        """Mark what the needed units need, from the last call to the first."""
        for call in reversed(self.graph.calls):
            call.handler.find_needed(call)
            for number in call.side_inputs:
                call.inputs[number].needed[:] = True

    def form_sets(self) -> None:
        """Find out which units stay, with all that is joined and pinned so far."""
        self.unit_sets = self.graph.units.form_sets()
        self._stays = self._find_kept()
        if self._multiple > 1:
            self._round_up()

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

    def bias_additions(self, call: Call) -> dict[str, np.ndarray]:
        """Return, by the name of a bias, what it absorbs, without the entries that are removed."""
        added = call.handler.bias_additions(call, self.stays)
        return {
            part.name: self.select(part, added[part.name])
            for part in call.handler.weight_parts(call)
            if part.name in added
        }

    def select(self, part: WeightPart, value: np.ndarray) -> np.ndarray:
        """Return the slices of a weight that are kept."""
        for along in (part.reads, part.makes):
            if along is not None:
                value = np.compress(self.stays(along[1]), value, axis=along[0])
        return value

    def _link_calls(self) -> None:
        graph = self.graph
        for call in graph.calls:
            handler = self.handler_of(call)
            call.handler = handler if self.is_supported(handler, call) else OPAQUE
            call.handler.link_units(call)
            for number in call.side_inputs:
                units = call.inputs[number].units
                graph.units.pin(units, f"{call.description} uses these units as a mask or in another argument")
                graph.units.mark_untraceable(units)
            first = graph.calls_of(call.layer)[0]
            if call is not first and handler.is_sized:
                self._tie(call, first)
        self.link_shared()
        for tensor in graph.outputs:
            graph.units.pin(tensor.units, OUTPUT)

    def _tie(self, call: Call, first: Call) -> None:
        """Join the units of two calls of a layer, which share its weights."""
        units = self.graph.units
        if call.form != first.form:
            for mismatch in (call, first):
                made = [tensor.units for tensor in (*mismatch.outputs, *mismatch.within.values())]
                for pinned in [*mismatch.input_units.values(), *made]:
                    units.pin(pinned, f"{call.description} is called more than once, in different ways")
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

    def _round_up(self) -> None:
        """Keep dead units until every layer makes a multiple of units, or all of its units."""
        made = [tensor for call in self.graph.calls if call.handler.makes_units for tensor in call.outputs]
        before = -1
        while before != self._stays.sum():  # a unit that one layer keeps may be joined with units of another
            before = self._stays.sum()
            for tensor in made:
                dead = self.unit_sets.root[tensor.units[~self.stays(tensor.units)]]
                self._stays[dead[: -self.count(tensor.units) % self._multiple]] = True
