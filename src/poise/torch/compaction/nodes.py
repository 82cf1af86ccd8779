"""The nodes of torch.fx: how to run them, and their nested arguments."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

IN_PLACE_OPERATORS = (
    *(operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod),
    *(operator.ipow, operator.iand, operator.ior),
)
SIZES = ("size", "dim", "ndimension", "numel", "nelement", "is_floating_point")
"""Methods that depend on the shape or the dtype of a tensor, but not on its values."""
SIZE_ATTRIBUTES = ("shape", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad")


def apply_node(node: fx.Node, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run a node on arguments."""
    with torch.no_grad():
        if node.op == "call_module":
            return layer(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        function: Any = node.target
        return function(*args, **kwargs)


def is_selection(node: fx.Node) -> bool:
    """Whether a node takes an item by its index or key."""
    return node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"


def is_size(node: fx.Node) -> bool:
    """Whether the result of a node depends only on the shapes and dtypes of its arguments."""
    if node.op == "call_method":
        return node.target in SIZES
    return node.op == "call_function" and (
        (node.target is getattr and node.args[1] in SIZE_ATTRIBUTES) or node.target is len
    )


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to everything inside of tuples, lists, dicts and slices."""
    if isinstance(value, tuple | list):
        parts = [map_leaves(function, part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, dict):
        return {key: map_leaves(function, part) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(map_leaves(function, part) for part in (value.start, value.stop, value.step)))
    return function(value)


def flatten(value: Any) -> Iterator[Any]:
    """Yield everything inside of tuples, lists, dicts and slices."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from flatten(part)
    elif isinstance(value, dict):
        yield from flatten(tuple(value.values()))
    elif isinstance(value, slice):
        yield from flatten((value.start, value.stop, value.step))
    else:
        yield value
