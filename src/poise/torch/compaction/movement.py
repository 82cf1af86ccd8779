"""Functions that only move, repeat or leave out entries, such as view, permute, chunk and slices."""

import operator

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from poise.compaction.calls import Call
from poise.compaction.handlers import LayerHandler, register
from poise.torch.compaction.graph import run_call
from poise.torch.compaction.handlers import spellings
from poise.torch.compaction.nodes import flatten

FUNCTIONS = (
    *("view", "reshape", "flatten", "unflatten", "ravel", "permute", "transpose", "swapaxes", "swapdims", "movedim"),
    *("moveaxis", "squeeze", "unsqueeze", "t", "expand", "broadcast_to", "repeat", "tile", "repeat_interleave"),
    *("narrow", "select", "chunk", "split", "tensor_split", "unbind", "roll", "flip", "rot90"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
)


@register(
    *(nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
    *(operator.getitem, getattr, "unfold", *spellings(*FUNCTIONS)),  # the function unfold does something else
)
class Movement(LayerHandler):
    """Every entry of an output is an entry of the input. Running the function on numbers shows which.

    The units of an output lie along the axis that joins the fewest of them. The units that end up at one index of that
    axis are joined.
    """

    def supports(self, call: Call) -> bool:
        return len(call.inputs) == 1 and call.inputs[0].axis is not None and len(call.outputs) > 0

    def link_units(self, call: Call) -> None:
        tensor = call.inputs[0]
        units = call.take_units(0, tensor.axis)
        shape = [-1 if axis == tensor.axis else 1 for axis in range(len(tensor.shape))]
        indices = np.broadcast_to(np.arange(len(units)).reshape(shape), tensor.shape)
        call.arguments.sources = []
        for output, sources in zip(call.outputs, move(call, indices), strict=True):
            axis = find_axis(sources)
            if axis is None:
                call.graph.units.pin(units[np.unique(sources)], f"{call.description} does not keep them along one axis")
                call.arguments.sources.append(np.unique(sources)[:, None])
                continue
            rows = along(sources, axis)
            for row in rows[1:]:
                call.graph.units.join(units[rows[0]], units[row])
            output.carry(axis, units[rows[0]])
            call.arguments.sources.append(rows)

    def find_constants(self, call: Call) -> None:
        constants = call.input_constants(0)
        for output, rows in zip(call.outputs, call.arguments.sources, strict=True):
            if output.axis is not None:
                values = constants[rows]
                output.constants = np.where((values == values[0]).all(axis=0), values[0], np.nan)

    def find_needed(self, call: Call) -> None:
        needed = np.zeros(len(call.input_units[0]), bool)
        for output, rows in zip(call.outputs, call.arguments.sources, strict=True):
            needed[rows if output.axis is None else rows[:, output.needed]] = True
        call.mark_needed(0, needed)


def move(call: Call, entries: np.ndarray) -> list[np.ndarray]:
    """Return what a call makes of an array in the place of its input."""
    tensor = torch.from_numpy(np.array(entries, order="C")).to(call.arguments.device)
    result = run_call(call, lambda _: tensor)
    return [leaf.cpu().numpy() for leaf in flatten(result) if isinstance(leaf, torch.Tensor)]


def along(entries: np.ndarray, axis: int) -> np.ndarray:
    """Return the different rows of an array along an axis, of the shape (rows, size of the axis)."""
    rows = np.moveaxis(entries, axis, -1).reshape(-1, entries.shape[axis])
    return rows[:1] if (rows == rows[0]).all() else np.unique(rows, axis=0)


def find_axis(sources: np.ndarray) -> int | None:
    """Return the axis along which the most units can be removed separately, or None if no axis separates any.

    Args:
        sources: Number of the unit that every entry comes from.
    """
    counts = [_count_separable(sources, axis) for axis in range(sources.ndim)]
    best = max(counts, default=0)
    return len(counts) - 1 - counts[::-1].index(best) if best > 1 else None


def _count_separable(sources: np.ndarray, axis: int) -> int:
    """Return into how many sets the units fall if those at one index of an axis are joined."""
    rows = np.moveaxis(sources, axis, -1).reshape(-1, sources.shape[axis])
    if rows.size == 0:
        return 0
    if (rows == rows[0]).all():
        return len(np.unique(rows[0]))
    size, units = rows.shape[1], int(rows.max()) + 1
    pairs = np.unique(rows * size + np.arange(size))
    links = coo_array(
        (np.ones(len(pairs), bool), (pairs // size, units + pairs % size)), shape=(units + size, units + size)
    )
    _, root = connected_components(links, directed=False)
    return len(np.unique(root[units:]))
