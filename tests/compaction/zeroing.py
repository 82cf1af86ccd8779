"""Models with random weights, units of them zeroed by hand, and the outputs before and after side by side."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

VOCABULARY = 9

Array = np.ndarray


class Weight(NamedTuple):
    """The weight by which a layer kind reads its inputs or makes its units, and the axis along which it does."""

    attribute: str
    axis: int


# The first kind that a layer is an instance of is meant; Keras derives DepthwiseConv from neither of these.
READS = {
    layers.Dense: Weight("kernel", 0),
    layers.Conv1DTranspose: Weight("kernel", -1),
    layers.Conv2DTranspose: Weight("kernel", -1),
    layers.Conv3DTranspose: Weight("kernel", -1),
    layers.Conv1D: Weight("kernel", -2),
    layers.Conv2D: Weight("kernel", -2),
    layers.Conv3D: Weight("kernel", -2),
    layers.SeparableConv1D: Weight("depthwise_kernel", -2),
    layers.SeparableConv2D: Weight("depthwise_kernel", -2),
    layers.EinsumDense: Weight("kernel", 0),
    layers.LSTM: Weight("cell.kernel", 0),
    layers.GRU: Weight("cell.kernel", 0),
    layers.SimpleRNN: Weight("cell.kernel", 0),
}
MAKES = READS | {
    layers.Dense: Weight("kernel", -1),
    layers.Conv1DTranspose: Weight("kernel", -2),
    layers.Conv2DTranspose: Weight("kernel", -2),
    layers.Conv3DTranspose: Weight("kernel", -2),
    layers.Conv1D: Weight("kernel", -1),
    layers.Conv2D: Weight("kernel", -1),
    layers.Conv3D: Weight("kernel", -1),
    layers.SeparableConv1D: Weight("pointwise_kernel", -1),
    layers.SeparableConv2D: Weight("pointwise_kernel", -1),
    layers.EinsumDense: Weight("kernel", -1),
    layers.LSTM: Weight("cell.kernel", -1),
    layers.GRU: Weight("cell.kernel", -1),
    layers.SimpleRNN: Weight("cell.kernel", -1),
    layers.Embedding: Weight("embeddings", -1),
    layers.BatchNormalization: Weight("gamma", -1),
}


def randomized(model: keras.Model, seed: int = 0) -> keras.Model:
    """The model with random weights, none of them zero; variances are positive."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" in keras.backend.standardize_dtype(variable.dtype):
            variable.assign(_drawn(random, variable))
    return model


def _drawn(random: np.random.Generator, variable: keras.Variable) -> Array:
    if variable.name.endswith("variance"):
        return random.uniform(0.5, 2.0, size=variable.shape)
    normal = random.normal(size=variable.shape)
    away_from_zero = np.sign(normal) * (0.2 + np.abs(normal))
    depthwise = variable.name.startswith("depthwise")
    read_by_a_unit = math.prod(variable.shape[: -2 if depthwise else -1])
    return away_from_zero / math.sqrt(max(1, read_by_a_unit))


def unread(layer: layers.Layer, inputs: Sequence[int]) -> None:
    """The layer reads these positions of its input with zeros."""
    weight = _of(READS, layer)
    zero_slice(_variable(layer, weight.attribute), weight.axis, inputs)


def constant(layer: layers.Layer, units: Sequence[int]) -> None:
    """These units become constants that are not zero: their biases stay."""
    weight = _of(MAKES, layer)
    variable = _variable(layer, weight.attribute)
    if isinstance(layer, layers.Embedding):
        value = array(variable)
        value[:, list(units)] = 0.7
        variable.assign(value)
        return
    gates = gates_of(layer)
    width = variable.shape[weight.axis] // gates
    columns = [gate * width + unit for gate in range(gates) for unit in units]
    zero_slice(variable, weight.axis, columns)
    if gates_of(layer) > 1 or isinstance(layer, layers.SimpleRNN):
        zero_slice(layer.cell.recurrent_kernel, -1, columns)


def silent(layer: layers.Layer, units: Sequence[int]) -> None:
    """These units become zero (or what the layer's activation makes of zero)."""
    if isinstance(layer, layers.Embedding):
        zero_slice(layer.embeddings, -1, units)
        return
    constant(layer, units)
    cell = getattr(layer, "cell", layer)
    bias = cell.beta if isinstance(layer, layers.BatchNormalization) else cell.bias
    if bias is not None:
        gates = gates_of(layer)
        width = bias.shape[-1] // gates
        zero_slice(bias, -1, [gate * width + unit for gate in range(gates) for unit in units])


def width(layer: layers.Layer) -> int:
    """How many units the layer makes."""
    weight = _of(MAKES, layer)
    return _variable(layer, weight.attribute).shape[weight.axis] // gates_of(layer)


def gates_of(layer: layers.Layer) -> int:
    return {layers.LSTM: 4, layers.GRU: 3}.get(type(layer), 1)


def _of(table: dict[type, Weight], layer: layers.Layer) -> Weight:
    return next(weight for kind, weight in table.items() if isinstance(layer, kind))


def _variable(layer: layers.Layer, attribute: str) -> keras.Variable:
    for name in attribute.split("."):
        layer = getattr(layer, name)
    return layer


def zero_slice(variable: keras.Variable, axis: int, positions: Sequence[int]) -> None:
    """Zeros at these positions along one axis of a weight."""
    value = array(variable)
    np.moveaxis(value, axis, 0)[list(positions)] = 0.0
    variable.assign(value)


def cut(variable: keras.Variable, rows: Sequence[int], columns: Sequence[int]) -> None:
    """Zeros in a matrix where these rows and these columns meet."""
    value = array(variable)
    value[np.ix_(list(rows), list(columns))] = 0.0
    variable.assign(value)


def array(variable: keras.Variable) -> Array:
    return keras.ops.convert_to_numpy(variable).copy()


def inputs_of(model: keras.Model, seed: int = 0, rows: int = 3) -> list[Array]:
    """Random rows for every input: whole numbers below VOCABULARY where it asks for them; 5 steps where it is open."""
    random = np.random.default_rng(seed)
    drawn = []
    for tensor in model.inputs:
        shape = [rows, *(5 if size is None else size for size in tensor.shape[1:])]
        whole = "int" in keras.backend.standardize_dtype(tensor.dtype)
        values = random.integers(VOCABULARY, size=shape) if whole else random.normal(size=shape).astype("float32")
        drawn.append(values)
    return drawn


def outputs(model: keras.Model, inputs: Sequence[Array]) -> list[Array]:
    arguments = [ops.convert_to_tensor(values) for values in inputs]
    result = model(arguments[0] if len(arguments) == 1 else arguments, training=False)
    return [np.array(ops.convert_to_numpy(y)) for y in keras.tree.flatten(result)]


def assert_same(
    before: keras.Model, after: keras.Model, inputs: Sequence[Array] | None = None, relative: float = 1e-5
) -> None:
    """No output differs by more than `relative` of the largest output (by default on random inputs)."""
    inputs = inputs_of(before) if inputs is None else inputs
    expected, actual = outputs(before, inputs), outputs(after, inputs)
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.isfinite(theirs).all()
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=relative * float(np.abs(theirs).max()) + 1e-30)


def widths(model: keras.Model, names: Iterable[str]) -> list[int]:
    return [width(model.get_layer(name)) for name in names]


def reached(start: Any, end: Any, units: Sequence[int], axis: int = -1) -> list[int]:
    """The positions along `axis` of `end` that change with these units of `start`, both tensors of one graph."""
    tail = keras.Model(start, end)
    random = np.random.default_rng(0)
    values = random.normal(size=(8, *start.shape[1:])).astype("float32")
    moved = values.copy()
    np.moveaxis(moved, axis, 0)[list(units)] += 0.5 + random.random()
    (each,), (other,) = outputs(tail, [values]), outputs(tail, [moved])
    changes = np.moveaxis(each != other, axis, 0).reshape(each.shape[axis], -1).any(axis=1)
    return np.flatnonzero(changes).tolist()
