"""The gradient of a model's prediction loss on given data: the one place with a branch per backend.

The loss of all rows is no sum over batches: a mean divides by the number of entries that a mask leaves, or by the sum
of the sample weights; the Dice loss and a root mean square are nonlinear functions of all rows. So the predictions of
all rows are computed batch by batch, the loss is evaluated once on all of them, and its gradient by the predictions is
pulled back batch by batch: ∇_w L(f(x₁; w), …, f(x_B; w)) = Σ_b (∂f(x_b; w)/∂w)ᵀ ∂L/∂f_b.
"""

import concurrent.futures
import contextlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops, tree

from poise.diagnostics.fit_data import FitData, count_rows

HALF = ("float16", "bfloat16")


def prediction_gradient(model, variables, data: FitData) -> tuple[list[np.ndarray], str]:
    """The gradient of `model.compute_loss` on one batch of all rows, in inference mode. Changes no state.

    Args:
        model: a Keras model; its loss is differentiated as it is.
        variables: the variables to differentiate by.
        data: the rows.

    Returns:
        One float64 array per variable, of its shape; and why all rows went through the model at once although `data`
        has several parts, or "" if they did not.

    Raises:
        ValueError: if the model has no loss.
    """
    return _outside_of_replicas(lambda: _prediction_gradient(model, variables, data))


def _prediction_gradient(model, variables, data):
    why = _why_at_once(model) if len(data.parts) > 1 else ""
    # Nothing that is computed in this scope is assigned, and what Keras creates in it (metrics) has a value afterwards.
    with keras.StatelessScope(), _kept_modes(model):
        if len(data.parts) > 1 and not why:
            gradient, why = _gradient_by_parts(model, variables, data)
            if gradient is not None:
                return gradient, ""
        x, y, sample_weight = tree.map_structure(_to_tensor, (data.whole_x(), data.y, data.sample_weight))

        def loss_of(_, x, y, sample_weight):
            return _loss(model, x, y, model(x, training=False), sample_weight)

        gradient, _ = _differentiated(model, variables, loss_of)([], x, y, sample_weight)
        return [_to_float64(part, variable) for part, variable in zip(gradient, variables, strict=True)], why


def _why_at_once(model):
    """Why the loss is not known to be a function of the predictions of inference; "" if it is one."""
    if "compute_loss" in vars(model) or type(model).compute_loss is not keras.Model.compute_loss:
        return "the model has its own compute_loss, which may read more than the predictions"
    if type(model).losses is not layers.Layer.losses:
        return "the model has its own losses"
    return ""


def _gradient_by_parts(model, variables, data):
    """(the gradient, ""), or (None, why the parts cannot be taken one by one)."""
    forward = _Forward(model)
    predict = _evaluated(model, forward)
    predictions = []
    for part, new in data.parts:
        leaves, masks = predict(tree.map_structure(_to_tensor, part))
        if forward.adds_losses:
            return None, "layers of the model add losses (add_loss or an activity regularizer)"
        rows = count_rows(part)
        if any(len(leaf.shape) == 0 or leaf.shape[0] != rows for leaf in leaves):
            return None, "an output of the model does not have one entry per row"
        predictions.append(
            ([leaf[rows - new :] for leaf in leaves], [mask if mask is None else mask[rows - new :] for mask in masks])
        )

    def join(tensors) -> Any:
        shapes = {tuple(tensor.shape[1:]) for tensor in tensors if tensor is not None}
        if len(shapes) > 1:
            raise ValueError(
                f"The batches have predictions of different shapes per row ({' and '.join(map(str, sorted(shapes)))}), "
                "so that the loss of all rows cannot be computed at once. Pad the batches to one shape, or pass one "
                "batch."
            )
        return None if tensors[0] is None else ops.concatenate(tensors, axis=0)

    # The losses cast predictions to float32 anyway, and a mean over many rows has gradients that float16 cannot hold.
    leaves = [join(tensors) for tensors in zip(*(leaves for leaves, _ in predictions), strict=True)]
    masks = [join(tensors) for tensors in zip(*(masks for _, masks in predictions), strict=True)]
    dtypes = [keras.backend.standardize_dtype(leaf.dtype) for leaf in leaves]
    leaves = [ops.cast(leaf, "float32") if dtype in HALF else leaf for leaf, dtype in zip(leaves, dtypes, strict=True)]
    floats = [number for number, dtype in enumerate(dtypes) if "float" in dtype]

    def loss_of(tensors, leaves, masks, y, sample_weight):
        by_number = dict(zip(floats, tensors, strict=True))
        leaves = [
            _Masked(mask)(by_number.get(number, leaf)) if mask is not None else by_number.get(number, leaf)
            for number, (leaf, mask) in enumerate(zip(leaves, masks, strict=True))
        ]
        y_pred = tree.pack_sequence_as(forward.structure, leaves)
        return _loss(model, None, y, y_pred, sample_weight)

    y, sample_weight = tree.map_structure(_to_tensor, (data.y, data.sample_weight))
    outside, pulls = _differentiated(model, variables, loss_of)(
        [leaves[number] for number in floats], leaves, masks, y, sample_weight
    )
    pulls = [
        ops.zeros_like(leaves[number]) if pull is None else pull for number, pull in zip(floats, pulls, strict=True)
    ]
    scale = _scale(pulls) if any(dtypes[number] in HALF for number in floats) else 1.0
    pulls = [pull * scale for pull in pulls]

    def pulled_back(_, x, pulls):
        leaves, _ = forward(x)
        pairs = zip((leaves[number] for number in floats), pulls, strict=True)
        return sum(ops.sum(ops.cast(leaf, pull.dtype) * pull) for leaf, pull in pairs)

    gradients_of = _differentiated(model, variables, pulled_back)
    totals = [_to_float64(part, variable) for part, variable in zip(outside, variables, strict=True)]
    start = 0
    for part, new in data.parts:
        stop = start + new
        pulls_here = [_after_zeros(pull[start:stop], count_rows(part) - new) for pull in pulls]
        found, _ = gradients_of([], tree.map_structure(_to_tensor, part), pulls_here)
        for total, gradient, variable in zip(totals, found, variables, strict=True):
            total += _to_float64(gradient, variable) / scale
        start = stop
    return totals, ""


class _Forward:
    """The predictions of a model, as a list of tensors and a list of their masks.

    Attributes:
        structure: that of the model's outputs, known after a call.
        adds_losses: whether layers added losses in the last call, beside the regularizers of weights.
    """

    def __init__(self, model):
        self._model = model
        self.structure: Any = None
        self.adds_losses = False

    def __call__(self, x):
        y_pred = self._model(x, training=False)
        regularized = [v for v in self._model.trainable_weights if getattr(v, "regularizer", None) is not None]
        self.adds_losses = len(self._model.losses) > len(regularized)
        self.structure = tree.map_structure(lambda _: 0, y_pred)
        leaves = tree.flatten(y_pred)
        return leaves, [_mask_of(leaf) for leaf in leaves]


def _loss(model, x, y, y_pred, sample_weight):
    """The loss as a scalar; one that is not reduced (reduction=None) is summed, as TensorFlow does."""
    has_stock_loss = not _why_at_once(model)
    if has_stock_loss and getattr(model, "loss", None) is None and not model.losses:
        raise ValueError(
            f"The model {model.name!r} has no loss whose gradient could be computed: its train_step is not looked at. "
            "Pass the loss to model.compile(loss=...), or override compute_loss."
        )
    if "training" in inspect.signature(model.compute_loss).parameters:
        loss = model.compute_loss(x, y, y_pred, sample_weight, training=False)
    else:
        loss = model.compute_loss(x, y, y_pred, sample_weight)
    return ops.sum(loss)


def _differentiated(model, variables, function: Callable) -> Callable:
    """(tensors, *data) → the gradients of function(tensors, *data) by the variables and by the tensors, or None."""
    chosen = {id(variable) for variable in variables}
    rest = [variable for variable in model.variables if id(variable) not in chosen]

    def function_at(values, others, tensors, data):
        # In a scope Keras' regularizers see mapped variables only, so that those of no rule are mapped as well.
        mapping = [*zip(variables, values, strict=True), *zip(rest, others, strict=True)]
        with keras.StatelessScope(mapping, collect_losses=True):
            return function(tensors, *data)

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        gradients = jax.jit(jax.grad(function_at, argnums=(0, 2)))
        return lambda tensors, *data: gradients(_values(variables), _values(rest), tensors, data)
    if backend == "tensorflow":
        import tensorflow as tf

        def gradients_in_tensorflow(tensors, *data):
            values = [tf.convert_to_tensor(value) for value in _values(variables)]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([values, tensors])
                result = function_at(values, _values(rest), tensors, data)
            found = tape.gradient(result, [*values, *tensors])
            found = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in found]
            return found[: len(values)], found[len(values) :]

        return gradients_in_tensorflow

    import torch

    def gradients_in_torch(tensors, *data):
        # The parameters themselves, which a wrapped torch module reads; a frozen one does not record gradients.
        values = [value if value.requires_grad else value.detach().requires_grad_() for value in _values(variables)]
        with torch.enable_grad(), _same_randomness():
            tensors = [tensor.detach().requires_grad_() for tensor in tensors]
            result = function_at(values, _values(rest), tensors, data)
            if not result.requires_grad or not [*values, *tensors]:
                return [None] * len(values), [None] * len(tensors)
            found = torch.autograd.grad(result, [*values, *tensors], allow_unused=True)
        return found[: len(values)], found[len(values) :]

    return gradients_in_torch


def _evaluated(model, function: Callable) -> Callable:
    """The function of tensors, evaluated without recording gradients or assigning variables."""
    variables = model.variables

    def function_at(values, data):
        with keras.StatelessScope(zip(variables, values, strict=True), collect_losses=True):
            return function(data)

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        compiled = jax.jit(function_at)
        return lambda data: compiled(_values(variables), data)
    if backend == "torch":
        import torch

        def evaluated_in_torch(data):
            with torch.no_grad(), _same_randomness():
                return function_at(_values(variables), data)

        return evaluated_in_torch
    return lambda data: function_at(_values(variables), data)


def _same_randomness():
    """Within it PyTorch's global generators may be used; afterwards, and so at the next part, they are as before."""
    import torch

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    return torch.random.fork_rng(devices)


def _values(variables):
    return [variable.value for variable in variables]


def _to_tensor(array):
    return None if array is None else ops.convert_to_tensor(array)


def _after_zeros(tensor, rows):
    return ops.pad(tensor, [(rows, 0)] + [(0, 0)] * (len(tensor.shape) - 1)) if rows else tensor


def _to_float64(gradient, variable):
    if gradient is None:
        return np.zeros(variable.shape)
    return ops.convert_to_numpy(gradient).astype("float64")


def _scale(tensors):
    """The power of two that brings the largest entry near 1, where half precision has its full accuracy."""
    largest = max(float(ops.convert_to_numpy(ops.max(ops.abs(tensor)))) for tensor in tensors)
    return 2.0 ** -math.floor(math.log2(largest)) if 0.0 < largest < math.inf else 1.0


def _mask_of(tensor):
    """The mask that Keras attached to a tensor, read as a layer that supports masking is given it."""
    reader = _MaskReader()
    reader(tensor)
    return reader.mask


class _MaskReader(layers.Layer):
    def __init__(self):
        super().__init__(autocast=False)
        self.supports_masking = True
        self.mask: Any = None

    def call(self, inputs, mask=None):
        self.mask = mask
        return inputs


class _Masked(layers.Layer):
    """Attaches a mask to a tensor."""

    def __init__(self, mask):
        super().__init__(autocast=False)
        self.supports_masking = True
        self._mask = mask

    def call(self, inputs):
        return inputs

    def compute_mask(self, inputs, previous_mask=None):
        return self._mask


@contextlib.contextmanager
def _kept_modes(model):
    """Within it wrapped torch modules may be switched to inference; afterwards they are in the mode they had."""
    on_torch = keras.backend.backend() == "torch"
    modules = [module for layer in model._flatten_layers() for module in layer.modules()] if on_torch else []
    modes = [module.training for module in modules]
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _outside_of_replicas(function):
    """The function's result; under tf.distribute from a thread of its own, where Keras does not divide the loss."""
    if keras.backend.backend() != "tensorflow":
        return function()
    import tensorflow as tf

    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return function()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return threads.submit(function).result()
