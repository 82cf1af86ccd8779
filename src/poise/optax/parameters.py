"""The arrays of a tree of parameters as poise's rules see them: with a path, a shape, a dtype and a role.

A tree of Flax or Haiku parameters shows only names. A tree of Equinox modules shows also the type of the module that
holds an array, which decides its role and where its inputs and outputs lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, GetAttrKey, SequenceKey

from poise.penalties.axes import Axes, Sides, keras_sides
from poise.rules.layer_types import Describe, Shape, matrix, vector
from poise.rules.layers import register_infos
from poise.rules.members import unique_names
from poise.rules.variable_info import (
    BIASES,
    EMBEDDINGS,
    KERNEL,
    SCALES,
    SLOPE,
    UNKNOWN_AXES,
    VariableInfo,
    info_by_name,
)
from poise.rules.wrapped_layers import info_of_leaf

WITH_KNOWN_AXES = ("kernel", "w", "embedding", "embeddings")
"""Names of Flax and Haiku for arrays whose last axis holds the outputs and whose last but one holds the inputs."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """A floating-point array in a tree of parameters.

    Attributes:
        path: The keys that lead to it, joined by "/", such as `"Dense_0/kernel"` or `"layers/0/weight"`.
        shape: Its shape.
        dtype: Its dtype.
    """

    path: str
    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True)
class Parameters:
    """The floating-point arrays of a tree. Everything else in the tree is left as it is.

    Attributes:
        leaves: What rules see of the arrays.
        values: The arrays.
        positions: Their positions among all leaves of the tree.
        structure: The structure of the tree.
    """

    leaves: list[Leaf]
    values: list[Any]
    positions: list[int]
    structure: Any

    @classmethod
    def of(cls, tree: Any) -> "Parameters":
        """Return the floating-point arrays of a tree of parameters."""
        pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
        positions = [position for position, (_, leaf) in enumerate(pairs) if _is_trained(leaf)]
        places = [_Place.of(tree, pairs[position][0]) for position in positions]
        values = [pairs[position][1] for position in positions]
        paths = unique_names(["/".join(place.names) for place in places])
        leaves = [Leaf(path, tuple(w.shape), w.dtype) for path, w in zip(paths, values, strict=True)]
        infos = [place.describe(leaf.shape) for place, leaf in zip(places, leaves, strict=True)]
        register_infos(zip(leaves, infos, strict=True))
        return cls(leaves, values, positions, structure)

    def value_of(self, leaf: Leaf) -> Any:
        """Return the array of a leaf."""
        return self.values[self.leaves.index(leaf)]

    def align(self, tree: Any) -> list[Any]:
        """Return what a tree of the same structure, such as the gradients, has in the places of the arrays."""
        parts = self.structure.flatten_up_to(tree)
        return [parts[position] for position in self.positions]

    def replace(self, tree: Any, parts: Sequence[Any]) -> Any:
        """Return a tree of the same structure with other parts in the places of the arrays."""
        all_parts = self.structure.flatten_up_to(tree)
        for position, part in zip(self.positions, parts, strict=True):
            all_parts[position] = part
        return self.structure.unflatten(all_parts)


@dataclass(frozen=True)
class _Place:
    """Where an array is in a tree: the names of the keys that lead to it, and the node that holds it, if known."""

    names: list[str]
    holder: Any

    @classmethod
    def of(cls, tree: Any, keys: Sequence[Any]) -> "_Place":
        nodes = [tree]
        for key in keys[:-1]:
            nodes.append(_child(nodes[-1], key))
        holder = nodes[-1]
        names = [jax.tree_util.keystr((key,), simple=True) for key in keys]
        # Flax has boxes around its arrays, which its optimizer takes off.
        if len(keys) > 1 and names[-1] == "value" and type(holder).__module__.startswith("flax."):
            names, holder = names[:-1], nodes[-2]
        return cls(names or ["params"], holder)

    def describe(self, shape: Shape) -> VariableInfo:
        """Return what the array is, by the Equinox module that holds it, or else by its name."""
        kinds = [kind for kind in type(self.holder).__mro__ if kind.__module__.split(".")[0] == "equinox"]
        for kind in kinds:
            describe = EQUINOX.get(kind.__name__, {}).get(self.names[-1])
            if describe is not None:
                return describe(self.holder, shape)
        if kinds:
            info = info_by_name(self.names[-1], shape)
            return info if len(shape) < 2 else VariableInfo(info.role, Sides(unknown=UNKNOWN_AXES))
        info = info_of_leaf(self.names, shape)
        is_known = len(shape) < 3 or self.names[-1] in WITH_KNOWN_AXES
        return info if is_known else VariableInfo(info.role, Sides(unknown=UNKNOWN_AXES))


def _is_trained(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def _child(node: Any, key: Any) -> Any:
    """Return the child of a node, or None if its type hides it."""
    if isinstance(key, GetAttrKey):
        return getattr(node, key.name, None)
    if isinstance(key, DictKey | SequenceKey):
        try:
            return node[key.key if isinstance(key, DictKey) else key.idx]
        except (KeyError, IndexError, TypeError):
            return None
    return None


def _convolution(layer: Any, shape: Shape) -> VariableInfo:
    """(outputs, inputs / groups, ...), also in transposed convolutions."""
    outputs = -layer.num_spatial_dims - 2
    inputs = Axes.along(shape, outputs + 1)
    if layer.groups > 1:
        inputs = Axes.across(shape, outputs, layer.groups, outputs + 1)
    return VariableInfo(KERNEL, Sides(inputs, Axes.along(shape, outputs)))


def _gated(gates: int) -> Describe:
    """(gates · units, inputs): a unit has a row of each gate."""

    def describe(layer: Any, shape: Shape) -> VariableInfo:
        units = Axes.blocks(shape, -2, gates)
        return VariableInfo(KERNEL, Sides(Axes.along(shape, -1), units, columns=Axes.along(shape, -2)))

    return describe


def _cell(gates: int) -> dict[str, Describe]:
    bias = vector(BIASES, gates)
    return {"weight_ih": _gated(gates), "weight_hh": _gated(gates), "bias": bias, "bias_n": vector(BIASES)}


CONVOLUTION: dict[str, Describe] = {"weight": _convolution, "bias": vector(BIASES)}
NORMALIZATION: dict[str, Describe] = {"weight": vector(SCALES), "bias": vector(BIASES)}
EQUINOX: dict[str, dict[str, Describe]] = {
    "Linear": {"weight": matrix(KERNEL, inputs=-1, outputs=-2), "bias": vector(BIASES)},
    "Conv": CONVOLUTION,
    "ConvTranspose": CONVOLUTION,
    "Embedding": {"weight": matrix(EMBEDDINGS)},
    "GRUCell": _cell(3),
    "LSTMCell": _cell(4),
    **dict.fromkeys(["LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm"], NORMALIZATION),
    "WeightNorm": {"g": vector(SCALES)},
    "PReLU": {"negative_slope": lambda layer, shape: VariableInfo(SLOPE, keras_sides(shape))},
}
"""Maps the name of an Equinox module to the kind of each of its arrays. Subclasses inherit the row."""
