"""The attention and transformer layers of PyTorch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import nn

from poise.compaction.calls import Call, Tensor
from poise.compaction.handlers import Counter, LayerHandler, Selector, WeightPart, register
from poise.torch.compaction.handlers import activate, is_elementwise

BLOCKS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


@register(*BLOCKS, nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer, nn.MultiheadAttention)
class Transformer(LayerHandler):
    """Removes units of the feed-forward parts. All inputs and outputs stay.

    `MultiheadAttention` derives the size of its heads from the number of its inputs, so its heads stay too.
    """

    is_sized = True
    makes_units = True

    def supports(self, call: Call) -> bool:
        inside = [block for _, block in call.layer.named_modules() if isinstance(block, BLOCKS)]
        return all(type(block) in BLOCKS for block in inside)

    def link_units(self, call: Call) -> None:
        units = call.graph.units
        for number, tensor in enumerate(call.inputs):
            units.pin(tensor.units, f"{call.description} uses all of them")
            call.input_units[number] = tensor.units
        for output in call.outputs:
            output.carry(len(output.shape) - 1, units.create(output.shape[-1]))
            units.pin(output.units, f"{call.description} makes as many units as it reads")
        for name, block in self._blocks(call):
            call.within[f"{name}feed-forward"] = hidden = Tensor(())
            hidden.carry(None, units.create(block.linear1.out_features))
            if not is_elementwise(block.activation):
                units.pin(hidden.units, f"the activation of {call.name!r} may mix units (like softmax)")

    def find_constants(self, call: Call) -> None:
        for name, block in self._blocks(call):
            hidden, first = call.within[f"{name}feed-forward"], block.linear1
            values = np.zeros(first.out_features) if first.bias is None else call.value(first.bias)
            values = np.where((call.value(first.weight) == 0).all(axis=1), values, np.nan)
            if is_elementwise(block.activation):
                hidden.constants = activate(block.activation, values, first.weight)

    def find_needed(self, call: Call) -> None:
        super().find_needed(call)
        for name, block in self._blocks(call):
            hidden = call.within[f"{name}feed-forward"]
            is_read = (call.value(block.linear2.weight) != 0).any(axis=0)
            hidden.needed |= is_read & np.isnan(self._absorbable(block, hidden.constants))

    def weight_parts(self, call: Call) -> list[WeightPart]:
        parts = []
        for name, _ in self._blocks(call):
            units = call.within[f"{name}feed-forward"].units
            parts += [
                WeightPart(f"{name}linear1.weight", None, (0, units)),
                WeightPart(f"{name}linear1.bias", None, (0, units)),
                WeightPart(f"{name}linear2.weight", (1, units), None),
                WeightPart(f"{name}linear2.bias", None, None),
            ]
        return parts

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        sizes = {}
        for name, _ in self._blocks(call):
            hidden = count(call.within[f"{name}feed-forward"].units)
            sizes |= {f"{name}linear1.out_features": hidden, f"{name}linear2.in_features": hidden}
        return sizes

    def bias_additions(self, call: Call, stays: Selector) -> dict[str, np.ndarray]:
        added = {}
        for name, block in self._blocks(call):
            hidden = call.within[f"{name}feed-forward"]
            constants = np.nan_to_num(self._absorbable(block, hidden.constants))
            removed = np.where(stays(hidden.units), 0.0, constants)
            added[f"{name}linear2.bias"] = call.value(block.linear2.weight) @ removed
        return added

    def _blocks(self, call: Call) -> Iterator[tuple[str, Any]]:
        """Yield the blocks inside of the layer, and what the names of their weights start with."""
        for name, block in call.layer.named_modules():
            if isinstance(block, BLOCKS):
                yield f"{name}." if name else "", block

    def _absorbable(self, block: Any, constants: np.ndarray) -> np.ndarray:
        """Return those constants that the bias can absorb; without a bias only 0."""
        return constants if block.linear2.bias is not None else np.where(constants == 0, 0.0, np.nan)
