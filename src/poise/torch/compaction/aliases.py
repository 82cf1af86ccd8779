"""Operations that change a tensor in place, and the nodes whose values they change."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

from poise.torch.compaction.nodes import IN_PLACE_OPERATORS
from poise.torch.compaction.tracing import Trace


def find_rebound(traced: Trace) -> dict[fx.Node, list[fx.Node]]:
    """Return, by node that changes a tensor in place, the earlier nodes whose value is its result from then on.

    Raises:
        ValueError: If a later node reads the changed tensor through a view of another shape.
    """
    nodes = list(traced.graph.nodes)
    position = {node: number for number, node in enumerate(nodes)}
    rebound: dict[fx.Node, list[fx.Node]] = {}
    for node in nodes:
        changed = _changed_tensor(node, traced)
        if changed is None:
            continue
        for other in nodes[: position[node]]:
            tensors = list(_tensors_in(traced.results[other]))
            if not any(_shares_memory(tensor, changed) for tensor in tensors):
                continue
            if len(tensors) == 1 and _is_same_view(tensors[0], changed):
                rebound.setdefault(node, []).append(other)
            elif any(position[user] > position[node] for user in other.users):
                raise ValueError(
                    f"The operation {node.name!r} changes a tensor in place, and {other.name!r} is another view of the "
                    "same tensor that is used later, which poise.torch.compact cannot follow. Use an operation that is "
                    "not in place."
                )
    return rebound


def _changed_tensor(node: fx.Node, traced: Trace) -> torch.Tensor | None:
    """Return the tensor that a node changes in place, or None."""
    tensor = node.args[0] if node.args else None
    if not isinstance(tensor, fx.Node) or not _is_in_place(node, traced.module):
        return None
    value = traced.results[tensor]
    return value if isinstance(value, torch.Tensor) else None


def _is_in_place(node: fx.Node, module: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    if node.target in IN_PLACE_OPERATORS:
        return True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors_in(part)


def _shares_memory(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    return tensor.untyped_storage().data_ptr() == other.untyped_storage().data_ptr() and tensor.numel() > 0


def _is_same_view(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) == (other.data_ptr(), other.shape, other.stride())
