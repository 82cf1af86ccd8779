"""The inputs that a model reads, and the kernels that read them, by the same analysis that finds dead units.

An input is one index of the last axis of an input tensor, such as a column of a table or a channel of an image. Inputs
are numbered consecutively across all input tensors. Which of them the outputs depend on follows from
which weights are zero.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from poise.compaction.analysis import UnitAnalysis


@dataclass(frozen=True, eq=False)
class InputKernel:
    """A weight whose slices along one axis belong to inputs of the model.

    Attributes:
        position: Position of the weight in `model.weights`.
        axis: Axis of the weight along which the inputs lie.
        inputs: (size of the axis,) the input that belongs to every slice.
    """

    position: int
    axis: int
    inputs: np.ndarray


def read_inputs(model: Any, weights: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return which inputs a model reads: those that an output depends on.

    Args:
        model: Built Keras model.
        weights: Values in the order of `model.weights`, each of the shape (..., *shape of the weight) with the same
            leading axes, such as (replicas, strengths) of the lanes of a path.

    Returns:
        A bool array (..., inputs), or None if it is not known: the model has no graph of layers, or an input reaches a
        layer that poise does not know, or a layer such as an embedding or a reshape that reads it in another way than
        by its features.
    """
    analysis = _analyze(model)
    if analysis is None:
        return None
    shape = weights[0].shape[: weights[0].ndim - len(model.weights[0].shape)] if weights else ()
    count = sum(len(tensor.units) for tensor in analysis.graph.inputs)
    is_read = np.zeros((*shape, count), bool)
    by_pattern: dict[bytes, np.ndarray] = {}
    for lane in np.ndindex(shape):
        # Many lanes have the same zeros, and only the zeros count.
        pattern = [weight[lane] != 0 for weight in weights]
        key = hashlib.blake2b(b"".join(np.packbits(part).tobytes() for part in pattern)).digest()
        if key not in by_pattern:
            by_pattern[key] = _read_in_pattern(analysis, model, pattern)
        is_read[lane] = by_pattern[key]
    return is_read


def input_kernels(model: Any) -> list[InputKernel] | None:
    """Return the weights by which a model reads its inputs.

    Args:
        model: Built Keras model.

    Returns:
        The kernels in the order in which they are called; setting all slices of an input to zero cuts it off from the
        outputs. None if there are no such kernels, or if inputs are also read in another way (a skip connection, a
        layer that poise does not know).
    """
    analysis = _analyze(model)
    if analysis is None:
        return None
    graph = analysis.graph
    units = np.concatenate([tensor.units for tensor in graph.inputs])
    input_of = {unit: number for number, unit in enumerate(units.tolist())}
    position = {id(weight): number for number, weight in enumerate(model.weights)}
    kernels: dict[int, InputKernel] = {}
    for call in graph.calls:
        for part in call.handler.weight_parts(call):
            if part.reads is None or part.of(call.layer) is None:
                continue
            axis, read = part.reads
            inputs = np.array([input_of.get(unit, -1) for unit in read.tolist()], int)
            number = position[id(part.of(call.layer))]
            if number in kernels and not np.array_equal(kernels[number].inputs, inputs):
                return None
            if (inputs >= 0).any():
                if (inputs < 0).any():
                    return None
                kernels[number] = InputKernel(number, axis, inputs)
    pattern = [np.full(w.shape, number not in kernels) for number, w in enumerate(model.weights)]
    if not kernels or _read_in_pattern(analysis, model, pattern).any():
        return None
    return list(kernels.values())


def _analyze(model: Any) -> UnitAnalysis | None:
    """Return the analysis of a model, or None if it cannot say which inputs are read."""
    try:
        analysis = UnitAnalysis(model, drop_inputs=True)
    except (TypeError, ValueError):
        return None
    tensors = analysis.graph.inputs
    if not tensors or any(tensor.axis is None for tensor in tensors):
        return None
    roots = analysis.unit_sets.root[np.concatenate([tensor.units for tensor in tensors])]
    return None if analysis.unit_sets.is_untraceable[roots].any() else analysis


def _read_in_pattern(analysis: UnitAnalysis, model: Any, pattern: Sequence[np.ndarray]) -> np.ndarray:
    """Return (inputs,) which inputs are read where the weights are zero in this pattern (True: not zero)."""
    random = np.random.default_rng(0)  # other values than zero must not cancel or be equal
    values = {
        id(weight): np.where(is_nonzero, random.uniform(0.5, 1.0, is_nonzero.shape), 0.0)
        for weight, is_nonzero in zip(model.weights, pattern, strict=True)
    }
    return np.concatenate(analysis.find_read_inputs(values))
