"""The units of a Keras model that are dead."""

from typing import Any

import keras
import numpy as np

from poise._keras_internals import sublayers
from poise.compaction import elementwise, linear, normalization, placement, products, sequences
from poise.compaction.calls import Call, Tensor
from poise.compaction.graph import Graph
from poise.compaction.graph_analysis import INPUT, GraphAnalysis
from poise.compaction.handlers import LayerHandler, handler_of
from poise.validation import validate_count, validate_number

HANDLER_MODULES = (linear, normalization, elementwise, placement, products, sequences)
"""The modules that register their handlers when they are imported."""

ENTRYWISE_REGULARIZERS = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
"""Regularizers that sum over entries, where an entry of 0 adds 0."""


class UnitAnalysis(GraphAnalysis):
    """The constant and the needed units of a Keras model, and which units stay.

    Args:
        model: Built functional or sequential model.
        tolerance: Weights of at most this absolute value count as zero. Default: 0.
        drop_inputs: Whether features of the inputs can be removed. Default: False.
        multiple: Keep dead units where a layer would otherwise make a number of units that is not a multiple of this.
            Default: 1.

    Raises:
        TypeError: If the model has no graph (see `Graph`), `tolerance` is not a number, or `multiple` is not an int.
        ValueError: If the model cannot be compacted, `tolerance` is below 0 or not finite, or `multiple` is below 1.
    """

    graph: Graph

    def __init__(self, model: Any, tolerance: float = 0.0, drop_inputs: bool = False, multiple: int = 1) -> None:
        validate_count("multiple", multiple, 1)
        super().__init__(Graph(model, validate_number("tolerance", tolerance)), drop_inputs, multiple)

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
        super().mark_outputs()
        self.spread_needed()
        return [tensor.needed for tensor in self.graph.inputs]

    def link_inputs(self, drop_inputs: bool) -> None:
        for tensor in self.graph.inputs:
            last = tensor.shape[-1] if len(tensor.shape) > 1 else None
            tensor.carry(len(tensor.shape) - 1 if last else None, self.graph.units.create(last or 0))
            if not drop_inputs:
                self.graph.units.pin(tensor.units, INPUT)

    def handler_of(self, call: Call) -> LayerHandler:
        return handler_of(call.layer)

    def is_supported(self, handler: LayerHandler, call: Call) -> bool:
        if call.is_training and handler.differs_in_training(call):
            return False
        parts = sublayers(call.layer, include_self=False) if isinstance(call.layer, keras.layers.Layer) else []
        return not any(_activity_regularizer(layer) for layer in parts) and handler.supports(call)

    def link_shared(self) -> None:
        """Join the inputs of all calls of a nested model, and check the weights of all layers."""
        units = self.graph.units
        for first, *others in self.graph.entered.values():
            for other in others:
                for here, there in zip(first, other, strict=True):
                    if here.axis == there.axis and len(here.units) == len(there.units):
                        units.join(here.units, there.units)
                    else:
                        units.pin(here.units, "a nested model is called on inputs of different shapes")
                        units.pin(there.units, "a nested model is called on inputs of different shapes")

        for call in self.graph.calls:
            _check_weights(call)

    def mark_outputs(self) -> None:
        """Mark the outputs of the model, and what activity regularizers read, since their values are in the loss."""
        super().mark_outputs()
        for call in self.graph.calls:
            regularizer = _activity_regularizer(call.layer)
            tensors: list[Tensor] = call.outputs if regularizer else []
            for tensor in tensors:
                # A zero adds nothing to a sum over entries.
                tensor.needed |= (tensor.constants != 0) | (type(regularizer) not in ENTRYWISE_REGULARIZERS)


def _check_weights(call: Call) -> None:
    """Raise ValueError if a layer that can be resized has weights that its handler does not know."""
    parts = call.handler.weight_parts(call)
    known = {id(part.of(call.layer)) for part in parts}
    unknown = [weight for weight in getattr(call.layer, "weights", ()) if id(weight) not in known]
    if parts and unknown:
        raise ValueError(
            f"poise.compact does not support the weight {unknown[0].path!r} of the layer {call.description}. "
            "If it belongs to the activation, make the activation a separate layer after this one."
        )


def _activity_regularizer(layer: Any) -> Any:
    return getattr(layer, "activity_regularizer", None)
