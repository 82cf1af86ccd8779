"""The units of a traced module that are dead."""

from typing import Any

import numpy as np
import torch

from poise.compaction.calls import Call
from poise.compaction.graph_analysis import GraphAnalysis
from poise.compaction.handlers import LayerHandler, WeightPart
from poise.torch.compaction import (
    elementwise,
    linear,
    merging,
    movement,
    normalization,
    pooling,
    recurrent,
    transformers,
)
from poise.torch.compaction.fixed_sizes import find_fixed_sizes
from poise.torch.compaction.graph import ModuleGraph
from poise.torch.compaction.handlers import handler_of, is_resizable
from poise.torch.compaction.tracing import trace
from poise.validation import validate_count, validate_number

HANDLER_MODULES = (linear, normalization, elementwise, pooling, movement, merging, recurrent, transformers)
"""The modules that register their handlers when they are imported."""


class ModuleAnalysis(GraphAnalysis):
    """The constant and the needed units of a module, and which units stay.

    Args:
        model: Any module that torch.fx can trace.
        example_inputs: Tensor, or tuple of tensors.
        tolerance: Weights of at most this absolute value count as zero. Default: 0.
        multiple: Keep dead units where a layer would otherwise make a number of units that is not a multiple of this.
            Default: 1.

    Attributes:
        inputs: Example inputs.
        outputs: What the module returns for the example inputs.

    Raises:
        TypeError: If an argument has another type (see `trace`).
        ValueError: If the module cannot be traced, `tolerance` is below 0 or not finite, or `multiple` is below 1.
    """

    graph: ModuleGraph

    def __init__(self, model: Any, example_inputs: Any, tolerance: float = 0.0, multiple: int = 1) -> None:
        validate_count("multiple", multiple, 1)
        tolerance = validate_number("tolerance", tolerance)
        traced = trace(model, example_inputs)
        self.inputs, self.outputs = traced.inputs, traced.outputs
        super().__init__(ModuleGraph(traced, tolerance), multiple=multiple)
        self._pin_fixed_sizes()

    def link_inputs(self, drop_inputs: bool) -> None:
        """Leave the inputs without units; where a layer reads one, it creates units that stay."""

    def handler_of(self, call: Call) -> LayerHandler:
        return handler_of(call.layer)

    def is_supported(self, handler: LayerHandler, call: Call) -> bool:
        return is_resizable(call.layer) and handler.supports(call)

    def link_shared(self) -> None:
        """Join the units of layers that share a parameter, and pin those of parameters that are used in another way."""
        users = self._users()
        by_axis: dict[tuple[int, int], list[np.ndarray]] = {}
        for layer in self.graph.layers:
            call = self.graph.calls_of(layer)[0]
            for part in call.handler.weight_parts(call):
                weight = part.of(layer)
                if weight is None or len(users[id(weight)]) == 1:
                    continue
                is_known = self._is_known(users[id(weight)], weight)
                if "bias" in part.name:
                    self.graph.shared.add(id(layer))
                for axis in range(weight.ndim):
                    units = _units_along(part, axis)
                    by_axis.setdefault((id(weight), axis), []).append(units)
                    if not is_known:
                        self.graph.units.pin(units, f"{call.description} shares its {part.name!r} with other code")
        for first, *others in by_axis.values():
            for other in others:
                if len(first) == len(other):
                    self.graph.units.join(first, other)
                else:  # along this axis, only one of them has units
                    for units in (first, other):
                        self.graph.units.pin(units, "layers use a shared weight in different ways")

    def _pin_fixed_sizes(self) -> None:
        """Pin units until the forward code works with the sizes that result."""
        pinned = -1
        while self.unit_sets.is_pinned.sum() > pinned:
            pinned = self.unit_sets.is_pinned.sum()
            for units, reason in find_fixed_sizes(self.graph, self):
                self.graph.units.pin(units, reason)
            self.form_sets()

    def _users(self) -> dict[int, list[Any]]:
        """Return, by the id of a weight, the modules that hold it, and None if the forward code uses it directly."""
        users: dict[int, list[Any]] = {}
        for module in self.graph.module.modules():
            held = [*module.named_parameters(recurse=False, remove_duplicate=False)]
            for _, weight in [*held, *module.named_buffers(recurse=False, remove_duplicate=False)]:
                users.setdefault(id(weight), []).append(module)
        for attribute in self.graph.attributes:
            users.setdefault(id(attribute), []).append(None)
        return users

    def _is_known(self, users: list[Any], weight: torch.Tensor) -> bool:
        """Whether all users of a weight are layers whose handler knows it."""
        called = {id(layer) for layer in self.graph.layers}
        for user in users:
            if user is None or id(user) not in called:
                return False
            call = self.graph.calls_of(user)[0]
            if not any(part.of(user) is weight for part in call.handler.weight_parts(call)):
                return False
        return True


def _units_along(part: WeightPart, axis: int) -> np.ndarray:
    """Return the units along an axis of a weight, none if there are none."""
    return next((units for at, units in filter(None, (part.reads, part.makes)) if at == axis), np.zeros(0, int))
