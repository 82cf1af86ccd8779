"""Forward code that works only with the original sizes, such as `x.view(-1, 400)` or `x[:, :8]`.

The code is run again with the sizes that the tensors would have without the removed units. Sizes that the code reads,
such as `x.shape[1] // 2`, are computed from these. A function that moves entries has to move them as before, and the
numbers that other functions receive or that control flow uses must be the same as before. Otherwise, the units stay.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import fx

from poise.compaction.calls import Call, Tensor
from poise.compaction.graph_analysis import GraphAnalysis
from poise.torch.compaction.graph import ModuleGraph
from poise.torch.compaction.movement import Movement
from poise.torch.compaction.nodes import apply_node, flatten, is_selection, map_leaves

SHAPE_ATTRIBUTES = ("shape", "ndim")
Pins = list[tuple[np.ndarray, str]]


def find_fixed_sizes(graph: ModuleGraph, analysis: GraphAnalysis) -> Pins:
    """Return units that have to stay because of the sizes in the forward code, with the reasons."""
    return _SizeCheck(graph, analysis).pins


class _SizeCheck:
    """Runs the forward code on sizes.

    Attributes:
        pins: Units that have to stay, with the reasons.
    """

    def __init__(self, graph: ModuleGraph, analysis: GraphAnalysis) -> None:
        self.pins: Pins = []
        self._analysis = analysis
        self._graph = graph
        self._sizes: dict[fx.Node, Any] = {}
        """By node, its result, with an empty tensor of the new size for every tensor."""
        for node, value in self._graph.values.items():
            self._sizes[node] = map_leaves(self._resize, value)
        for node in self._graph.values:
            self._check(node)
        for node in self._graph.decisions:
            if self._sizes[node] != self._graph.values[node]:
                self._pin_sources([node], node)

    def _check(self, node: fx.Node) -> None:
        if node.op in ("placeholder", "get_attr"):
            return
        call = self._graph.call_of.get(node)
        if call is not None and isinstance(call.handler, Movement):
            self._check_movement(call)
        elif self._is_number(node):
            self._compute_number(node)
        elif not is_selection(node) or call is not None:
            self._check_numbers(node)

    def _check_movement(self, call: Call) -> None:
        """Check that the entries that stay are moved as before."""
        tensor, node = call.inputs[0], call.arguments.node
        has_removed = not all(self._analysis.stays(each.units).all() for each in (tensor, *call.outputs))
        if not has_removed and not self._changed_numbers(node):
            return
        entries = torch.arange(int(np.prod(tensor.shape))).reshape(tensor.shape)
        before = self._move(node, call, entries, self._graph.values)
        expected = [self._without_removed(each, moved) for each, moved in zip(call.outputs, before, strict=True)]
        try:
            actual = self._move(node, call, self._without_removed(tensor, entries), self._sizes)
        except Exception:
            actual = []
        if len(actual) != len(expected) or not all(map(torch.equal, actual, expected)):
            for each in (tensor, *call.outputs):
                self.pins.append((each.units, f"{call.description} works only with the original number of units"))
            self._pin_sources(self._changed_numbers(node), node)

    def _move(self, node: fx.Node, call: Call, entries: torch.Tensor, values: dict[fx.Node, Any]) -> list[torch.Tensor]:
        """Return what a node makes of entries in the place of its tensor, with the numbers among these values."""

        def convert(leaf: Any) -> Any:
            value = values[leaf] if isinstance(leaf, fx.Node) else leaf
            return map_leaves(lambda part: entries if isinstance(part, Tensor | torch.Tensor) else part, value)

        result = apply_node(node, call.layer, map_leaves(convert, node.args), map_leaves(convert, node.kwargs))
        return [leaf for leaf in flatten(result) if isinstance(leaf, torch.Tensor)]

    def _is_number(self, node: fx.Node) -> bool:
        """Whether a node computes numbers that depend on sizes only."""
        is_tensor = [isinstance(leaf, Tensor) for leaf in flatten(self._graph.values[node])]
        return node not in self._graph.call_of and not any(is_tensor)

    def _compute_number(self, node: fx.Node) -> None:
        """Set the result of a node that computes numbers, with the new sizes."""
        is_unrelated = node.target is getattr and node.args[1] not in SHAPE_ATTRIBUTES  # such as a dtype
        if is_unrelated or (not self._changed_numbers(node) and not self._has_resized(node)):
            return

        def convert(leaf: Any) -> Any:
            return self._sizes[leaf] if isinstance(leaf, fx.Node) else leaf

        try:
            self._sizes[node] = apply_node(node, None, map_leaves(convert, node.args), map_leaves(convert, node.kwargs))
        except Exception:
            self._pin_sources([node], node)

    def _check_numbers(self, node: fx.Node) -> None:
        """Check that a node that computes tensors receives the same numbers as before."""
        changed = self._changed_numbers(node)
        if changed:
            self._pin_sources(changed, node)

    def _changed_numbers(self, node: fx.Node) -> list[fx.Node]:
        """Return the nodes among the arguments of a node that compute other numbers than before."""
        candidates = [other for other in node.all_input_nodes if self._is_number(other)]
        return [other for other in candidates if self._sizes[other] != self._graph.values[other]]

    def _has_resized(self, node: fx.Node) -> bool:
        """Whether a tensor among the arguments of a node has another size than before."""
        return any(not self._analysis.stays(tensor.units).all() for tensor in self._tensors_of(node.all_input_nodes))

    def _pin_sources(self, nodes: Iterable[fx.Node], user: fx.Node) -> None:
        """Pin the units of all tensors whose sizes these nodes are computed from."""
        pending, seen = [*nodes], set()
        while pending:
            node = pending.pop()
            if node in seen or not self._is_number(node):
                continue
            seen.add(node)
            pending += node.all_input_nodes
            for tensor in self._tensors_of(node.all_input_nodes):
                self.pins.append((tensor.units, f"{user.name!r} in the forward code depends on their number"))

    def _tensors_of(self, nodes: Iterable[fx.Node]) -> Iterator[Tensor]:
        for node in nodes:
            yield from (leaf for leaf in flatten(self._graph.values[node]) if isinstance(leaf, Tensor))

    def _resize(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        shape = list(leaf.shape)
        if leaf.axis is not None:
            shape[leaf.axis] = self._analysis.count(leaf.units)
        return torch.empty(shape, dtype=getattr(torch, leaf.dtype), device="meta")

    def _without_removed(self, tensor: Tensor, entries: torch.Tensor) -> torch.Tensor:
        """Return the entries of the units that stay."""
        if tensor.axis is None:
            return entries
        kept = torch.from_numpy(np.flatnonzero(self._analysis.stays(tensor.units)))
        return entries.index_select(tensor.axis, kept)
