"""Nested lists, tuples and dicts in JSON, each told from the others."""

from collections.abc import Callable
from typing import Any


def packed(structure, pack_leaf: Callable) -> Any:
    """The structure as JSON holds it, with pack_leaf(leaf) for every leaf."""
    if structure is None:
        return None
    if isinstance(structure, dict):
        return {"dict": [[key, packed(part, pack_leaf)] for key, part in structure.items()]}
    if isinstance(structure, (list, tuple)):
        kind = "list" if isinstance(structure, list) else "tuple"
        return {kind: [packed(part, pack_leaf) for part in structure]}
    return {"leaf": pack_leaf(structure)}


def unpacked(found, unpack_leaf: Callable) -> Any:
    """The structure that `packed` wrote down, with unpack_leaf(leaf) for every leaf."""
    if found is None:
        return None
    if "dict" in found:
        return {key: unpacked(part, unpack_leaf) for key, part in found["dict"]}
    if "list" in found:
        return [unpacked(part, unpack_leaf) for part in found["list"]]
    if "tuple" in found:
        return tuple(unpacked(part, unpack_leaf) for part in found["tuple"])
    return unpack_leaf(found["leaf"])
