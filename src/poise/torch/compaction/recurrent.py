"""Recurrent layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from poise.compaction.calls import Call
from poise.compaction.handlers import Counter, LayerHandler, Selector, WeightPart, register
from poise.compaction.sequences import find_read_states, find_silent

CANDIDATE = {nn.RNN: 0, nn.LSTM: 2, nn.GRU: 2}
"""The number of the gate that is the candidate for the next state."""


@dataclass(frozen=True)
class _Cell:
    """One layer of a recurrent module in one direction.

    Attributes:
        layer: Number of the layer.
        suffix: End of the names of its weights.
    """

    layer: int
    suffix: str


@register(nn.RNN, nn.LSTM, nn.GRU)
class TorchRecurrent(LayerHandler):
    """A unit carries state from step to step, so the only constant that it can have is 0, its initial state.

    A module has one size for all of its layers and directions, so the units with the same index are joined.
    """

    is_sized = True
    makes_units = True

    def supports(self, call: Call) -> bool:
        return len(call.inputs) == 1 and len(call.outputs) in (2, 3) and call.layer.proj_size == 0

    def link_units(self, call: Call) -> None:
        call.take_units(0, len(call.inputs[0].shape) - 1)
        units = call.graph.units.create(call.layer.hidden_size)
        for number, output in enumerate(call.outputs):
            output.carry(len(output.shape) - 1, units if number else np.tile(units, self._directions(call)))

    def find_constants(self, call: Call) -> None:
        constants = call.input_constants(0)
        is_silent = np.ones(call.layer.hidden_size, bool)
        for cells in self._layers(call):
            masks = [self._silent(call, cell, constants) for cell in cells]
            is_silent = np.logical_and.reduce([is_silent, *masks])
            constants = np.where(np.concatenate(masks), 0.0, np.nan)
        call.outputs[0].constants = constants
        for state in call.outputs[1:]:
            state.constants = np.where(is_silent, 0.0, np.nan)

    def find_needed(self, call: Call) -> None:
        inputs = [call.input_constants(0)]  # of every layer
        layers = list(self._layers(call))
        for cells in layers:
            masks = [self._silent(call, cell, inputs[-1]) for cell in cells]
            inputs.append(np.where(np.concatenate(masks), 0.0, np.nan))
        final = np.any([state.needed for state in call.outputs[1:]], axis=0)
        needed, in_any = call.outputs[0].needed.copy(), np.zeros(call.layer.hidden_size, bool)
        inputs[0] = self._absorbable(call, call.foldable_constants(0))
        for number, cells in reversed([*enumerate(layers)]):
            is_read = np.zeros(len(inputs[number]), bool)
            parts = zip(cells, np.split(needed, len(cells)), np.split(inputs[number + 1], len(cells)), strict=True)
            for cell, needed_of_cell, constants in parts:
                kernel, recurrent = self._gates(call, cell)
                of_cell = find_read_states(needed_of_cell | final, recurrent, constants)
                is_read |= (kernel[:, :, of_cell] != 0).any(axis=(1, 2))
                in_any |= of_cell
            needed = is_read & np.isnan(inputs[number])
        call.mark_needed(0, needed)
        for number, output in enumerate(call.outputs):
            output.needed |= in_any if number else np.tile(in_any, self._directions(call))

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        return {"input_size": count(call.input_units[0]), "hidden_size": count(call.outputs[1].units)}

    def weight_parts(self, call: Call) -> list[WeightPart]:
        made, parts = call.outputs[1].units, []
        for cell in self._cells(call):
            gates = np.tile(made, getattr(call.layer, f"weight_ih{cell.suffix}").shape[0] // len(made))
            read = np.tile(made, self._directions(call)) if cell.layer else call.input_units[0]
            parts += [
                WeightPart(f"weight_ih{cell.suffix}", (1, read), (0, gates)),
                WeightPart(f"weight_hh{cell.suffix}", (1, made), (0, gates)),
            ]
            if call.layer.bias:
                parts += [WeightPart(f"{name}{cell.suffix}", None, (0, gates)) for name in ("bias_ih", "bias_hh")]
        return parts

    def bias_additions(self, call: Call, stays: Selector) -> dict[str, np.ndarray]:
        removed = np.nan_to_num(self._absorbable(call, call.removed_constants(0, stays)))
        first = [cell.suffix for cell in self._cells(call) if cell.layer == 0]
        weights = {suffix: call.value(getattr(call.layer, f"weight_ih{suffix}")) for suffix in first}
        return {f"bias_ih{suffix}": weight @ removed for suffix, weight in weights.items()} if call.layer.bias else {}

    def _directions(self, call: Call) -> int:
        return 2 if call.layer.bidirectional else 1

    def _cells(self, call: Call) -> Iterator[_Cell]:
        for number in range(call.layer.num_layers):
            for reverse in ("", "_reverse")[: self._directions(call)]:
                yield _Cell(number, f"_l{number}{reverse}")

    def _layers(self, call: Call) -> Iterator[list[_Cell]]:
        """Yield the cells of each layer, one per direction."""
        cells, directions = list(self._cells(call)), self._directions(call)
        yield from (cells[first : first + directions] for first in range(0, len(cells), directions))

    def _silent(self, call: Call, cell: _Cell, constants: np.ndarray) -> np.ndarray:
        """Return which units of a cell keep their initial state 0."""
        kernel, recurrent = self._gates(call, cell)
        gate = CANDIDATE[type(call.layer)]
        fed = (kernel[constants != 0][:, gate] != 0).any(axis=0)
        if call.layer.bias:
            names = (f"bias_ih{cell.suffix}", f"bias_hh{cell.suffix}")
            biases = [call.value(getattr(call.layer, name)).reshape(kernel.shape[1:])[gate] for name in names]
            fed |= np.any(biases, axis=0) if isinstance(call.layer, nn.GRU) else np.sum(biases, axis=0) != 0
        return find_silent(fed, recurrent[:, gate])

    def _gates(self, call: Call, cell: _Cell) -> tuple[np.ndarray, np.ndarray]:
        """Return the kernel and the recurrent kernel as (read, gates, units)."""
        size, names = call.layer.hidden_size, (f"weight_ih{cell.suffix}", f"weight_hh{cell.suffix}")
        values = [call.value(getattr(call.layer, name)) for name in names]
        kernel, recurrent = (value.T.reshape(value.shape[1], -1, size) for value in values)
        return kernel, recurrent

    def _absorbable(self, call: Call, constants: np.ndarray) -> np.ndarray:
        """Return those constants that the biases can absorb, NaN for the others."""
        return constants if call.layer.bias else np.where(constants == 0, 0.0, np.nan)
