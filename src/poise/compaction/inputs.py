"""Which inputs of a model its lanes still read: those whose weights in every first kernel are not all zero."""

import keras
import numpy as np

PASSING = (
    keras.layers.Dropout,
    keras.layers.GaussianNoise,
    keras.layers.GaussianDropout,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.Identity,
    keras.layers.BatchNormalization,
    keras.layers.Normalization,
    keras.layers.Rescaling,
)
"""Layers whose output j depends on their input j alone, unless their activation is one of `MIXING`."""
MIXING = (keras.activations.softmax, keras.activations.log_softmax, keras.activations.sparsemax)
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
RECURRENT = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)


def first_kernels(model) -> list[tuple[int, int, int]] | None:
    """The kernels that meet the inputs: for each the number of its first input, its position in `model.weights`, and
    the axis along which the inputs lie.

    Inputs are the last axis of every input tensor, counted through over all tensors. None where an input reaches a
    layer of which that cannot be told (an embedding, a reshape, a layer of the user's), or the model has no graph.
    """
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    position = {id(weight): number for number, weight in enumerate(model.weights)}
    found, first = [], 0
    for tensor in inputs:
        waiting = [tensor]
        while waiting:
            reached = waiting.pop()
            readers = [layer for layer in model.layers if _reads(layer, reached)]
            if not readers or any(reached is output for output in keras.tree.flatten(model.outputs)):
                return None
            for layer in readers:
                if isinstance(layer, PASSING) and getattr(layer, "activation", None) not in MIXING:
                    waiting.append(layer.output)
                elif isinstance(layer, keras.layers.Dense):
                    found.append((first, position[id(layer.kernel)], 0))
                elif isinstance(layer, CONVOLUTIONS) and layer.data_format == "channels_last" and layer.groups == 1:
                    found.append((first, position[id(layer.kernel)], len(layer.kernel.shape) - 2))
                elif isinstance(layer, RECURRENT):
                    found.append((first, position[id(layer.cell.kernel)], 0))
                else:
                    return None
        first += tensor.shape[-1] or 0
    return found


def live_inputs(model, kernels, weights) -> np.ndarray:
    """(..., inputs): whether each input has a weight that is not zero.

    Args:
        model: the model.
        kernels: what `first_kernels` gives.
        weights: in the order of `model.weights`, each with the same leading axes.
    """
    count = sum(tensor.shape[-1] for tensor in model.inputs)
    lead = weights[kernels[0][1]].shape[: weights[kernels[0][1]].ndim - len(model.weights[kernels[0][1]].shape)]
    live = np.zeros((*lead, count), bool)
    for first, position, axis in kernels:
        kernel = weights[position]
        others = tuple(a for a in range(len(lead), kernel.ndim) if a != len(lead) + axis)
        read = (kernel != 0).any(axis=others)
        live[..., first : first + read.shape[-1]] |= read
    return live


def _reads(layer, tensor) -> bool:
    try:
        return any(tensor is given for given in keras.tree.flatten(layer.input))
    except (AttributeError, ValueError):
        return False
