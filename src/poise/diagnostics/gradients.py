"""The gradient of a model's prediction loss on data; the only module with a branch per backend.

The loss of all rows is not a sum over batches: a mean divides by the number of unmasked entries or by the sum of the
sample weights, and the Dice loss and a root mean square are nonlinear functions of all rows. Therefore the predictions
are computed batch by batch, the loss is evaluated once on all of them, and its gradient with respect to the predictions
is pulled back batch by batch: ∇_w L(f(x₁; w), …, f(x_B; w)) = Σ_b (∂f(x_b; w)/∂w)ᵀ ∂L/∂f_b.
"""

import concurrent.futures
import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops, tree

from poise._keras_internals import sublayers
from poise.diagnostics.fit_data import FitData, count_rows

HALF_PRECISION = ("float16", "bfloat16")


def prediction_gradient(model: Any, variables: Sequence[Any], data: FitData) -> tuple[list[np.ndarray], str]:
    """Compute the gradient of `model.compute_loss` on one batch of all rows, in inference mode, without side effects.

    Args:
        model: Keras model, whose loss is differentiated as it is.
        variables: Variables to differentiate with respect to.
        data: Rows.

    Returns:
        One float64 array per variable, of its shape; and the reason why all rows went through the model at once
        although `data` has several parts, "" if they did not.

    Raises:
        ValueError: If the model has no loss.
    """
    return _run_outside_of_replicas(lambda: _prediction_gradient(model, variables, data))


def _prediction_gradient(model: Any, variables: Sequence[Any], data: FitData) -> tuple[list[np.ndarray], str]:
    why = _why_at_once(model) if len(data.parts) > 1 else ""
    # Assignments in this scope have no effect outside, and metrics that Keras creates in it have values afterwards.
    with keras.StatelessScope(), _restore_modes(model):
        if len(data.parts) > 1 and not why:
            gradient, why = _gradient_by_parts(model, variables, data)
            if gradient is not None:
                return gradient, ""
        x, y, sample_weight = tree.map_structure(_to_tensor, (data.whole_x(), data.y, data.sample_weight))

        def loss_of(_: Any, x: Any, y: Any, sample_weight: Any) -> Any:
            return _loss(model, x, y, model(x, training=False), sample_weight)

        gradient, _ = _differentiate(model, variables, loss_of)([], x, y, sample_weight)
        return [_to_float64(part, variable) for part, variable in zip(gradient, variables, strict=True)], why


def _why_at_once(model: Any) -> str:
    """Return why the loss may not be a function of the predictions in inference, "" if it is one."""
    if "compute_loss" in vars(model) or type(model).compute_loss is not keras.Model.compute_loss:
        return "the model has a custom compute_loss, which may read more than the predictions"
    if type(model).losses is not layers.Layer.losses:
        return "the model has custom losses"
    return ""


def _gradient_by_parts(model: Any, variables: Sequence[Any], data: FitData) -> tuple[list[np.ndarray] | None, str]:
    """Return (the gradient, ""), or (None, the reason why the loss cannot be computed part by part)."""
    forward = _Forward(model)
    predict = _evaluate(model, forward)
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

    def join(tensors: Sequence[Any]) -> Any:
        shapes = {tuple(tensor.shape[1:]) for tensor in tensors if tensor is not None}
        if len(shapes) > 1:
            raise ValueError(
                f"The batches have predictions of different shapes per row ({' and '.join(map(str, sorted(shapes)))}), "
                "so the loss of all rows cannot be computed at once. Pad the batches to one shape, or pass one batch."
            )
        return None if tensors[0] is None else ops.concatenate(tensors, axis=0)

    # Losses cast predictions to float32 anyway, and the gradients of a mean over many rows underflow in float16.
    leaves = [join(tensors) for tensors in zip(*(leaves for leaves, _ in predictions), strict=True)]
    masks = [join(tensors) for tensors in zip(*(masks for _, masks in predictions), strict=True)]
    dtypes = [keras.backend.standardize_dtype(leaf.dtype) for leaf in leaves]
    leaves = [
        ops.cast(leaf, "float32") if dtype in HALF_PRECISION else leaf
        for leaf, dtype in zip(leaves, dtypes, strict=True)
    ]
    floats = [number for number, dtype in enumerate(dtypes) if "float" in dtype]

    def loss_of(tensors: Any, leaves: Any, masks: Any, y: Any, sample_weight: Any) -> Any:
        by_number = dict(zip(floats, tensors, strict=True))
        leaves = [
            _Masked(mask)(by_number.get(number, leaf)) if mask is not None else by_number.get(number, leaf)
            for number, (leaf, mask) in enumerate(zip(leaves, masks, strict=True))
        ]
        y_pred = tree.pack_sequence_as(forward.structure, leaves)
        return _loss(model, None, y, y_pred, sample_weight)

    y, sample_weight = tree.map_structure(_to_tensor, (data.y, data.sample_weight))
    direct, pulls = _differentiate(model, variables, loss_of)(
        [leaves[number] for number in floats], leaves, masks, y, sample_weight
    )
    pulls = [
        ops.zeros_like(leaves[number]) if pull is None else pull for number, pull in zip(floats, pulls, strict=True)
    ]
    scale = _scale(pulls) if any(dtypes[number] in HALF_PRECISION for number in floats) else 1.0
    pulls = [pull * scale for pull in pulls]

    def pull_back(_: Any, x: Any, pulls: Any) -> Any:
        leaves, _ = forward(x)
        pairs = zip((leaves[number] for number in floats), pulls, strict=True)
        return sum(ops.sum(ops.cast(leaf, pull.dtype) * pull) for leaf, pull in pairs)

    gradients_of = _differentiate(model, variables, pull_back)
    totals = [_to_float64(part, variable) for part, variable in zip(direct, variables, strict=True)]
    start = 0
    for part, new in data.parts:
        stop = start + new
        pulls_here = [_pad_before(pull[start:stop], count_rows(part) - new) for pull in pulls]
        gradients, _ = gradients_of([], tree.map_structure(_to_tensor, part), pulls_here)
        for total, gradient, variable in zip(totals, gradients, variables, strict=True):
            total += _to_float64(gradient, variable) / scale
        start = stop
    return totals, ""


class _Forward:
    """Computes the predictions of a model, as a list of tensors and a list of their masks.

    Attributes:
        structure: Structure of the model's outputs, known after a call.
        adds_losses: Whether layers added losses in the last call, in addition to regularizers of weights.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.structure: Any = None
        self.adds_losses = False

    def __call__(self, x: Any) -> tuple[list[Any], list[Any]]:
        y_pred = self._model(x, training=False)
        regularized = [v for v in self._model.trainable_weights if getattr(v, "regularizer", None) is not None]
        self.adds_losses = len(self._model.losses) > len(regularized)
        self.structure = tree.map_structure(lambda _: 0, y_pred)
        leaves = tree.flatten(y_pred)
        return leaves, [_mask_of(leaf) for leaf in leaves]


def _loss(model: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
    """Return the loss as a scalar. A loss with reduction=None is summed, as in TensorFlow."""
    has_stock_loss = not _why_at_once(model)
    if has_stock_loss and getattr(model, "loss", None) is None and not model.losses:
        raise ValueError(
            f"The model {model.name!r} has no loss to differentiate, and forces do not read a custom train_step. Pass "
            "the loss to model.compile(loss=...), or override compute_loss."
        )
    if "training" in inspect.signature(model.compute_loss).parameters:
        loss = model.compute_loss(x, y, y_pred, sample_weight, training=False)
    else:
        loss = model.compute_loss(x, y, y_pred, sample_weight)
    return ops.sum(loss)


def _differentiate(
    model: Any, variables: Sequence[Any], function: Callable[..., Any]
) -> Callable[..., tuple[Sequence[Any], Sequence[Any]]]:
    """Return (tensors, *data) → gradients of function(tensors, *data) by the variables and by the tensors."""
    differentiated = {id(variable) for variable in variables}
    fixed = [variable for variable in model.variables if id(variable) not in differentiated]

    def function_at(values: Any, fixed_values: Any, tensors: Any, data: Any) -> Any:
        # In a scope, regularizers of Keras read only mapped variables, so all variables are mapped.
        mapping = [*zip(variables, values, strict=True), *zip(fixed, fixed_values, strict=True)]
        with keras.StatelessScope(mapping, collect_losses=True):
            return function(tensors, *data)

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        gradients = jax.jit(jax.grad(function_at, argnums=(0, 2)))
        return lambda tensors, *data: gradients(_values(variables), _values(fixed), tensors, data)
    if backend == "tensorflow":
        import tensorflow as tf

        def gradients_in_tensorflow(tensors: Any, *data: Any) -> tuple[Sequence[Any], Sequence[Any]]:
            values = [tf.convert_to_tensor(value) for value in _values(variables)]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([values, tensors])
                result = function_at(values, _values(fixed), tensors, data)
            gradients = tape.gradient(result, [*values, *tensors])
            gradients = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]
            return gradients[: len(values)], gradients[len(values) :]

        return gradients_in_tensorflow

    import torch

    def gradients_in_torch(tensors: Any, *data: Any) -> tuple[Sequence[Any], Sequence[Any]]:
        # The parameters themselves, because a wrapped torch module reads them. Frozen ones record no gradients.
        values = [value if value.requires_grad else value.detach().requires_grad_() for value in _values(variables)]
        with torch.enable_grad(), _restore_randomness():
            tensors = [tensor.detach().requires_grad_() for tensor in tensors]
            result = function_at(values, _values(fixed), tensors, data)
            if not result.requires_grad or not [*values, *tensors]:
                return [None] * len(values), [None] * len(tensors)
            gradients = torch.autograd.grad(result, [*values, *tensors], allow_unused=True)
        return gradients[: len(values)], gradients[len(values) :]

    return gradients_in_torch


def _evaluate(model: Any, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the function of tensors, evaluated without recording gradients or assigning variables."""
    variables = model.variables

    def function_at(values: Any, data: Any) -> Any:
        with keras.StatelessScope(zip(variables, values, strict=True), collect_losses=True):
            return function(data)

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        compiled = jax.jit(function_at)
        return lambda data: compiled(_values(variables), data)
    if backend == "torch":
        import torch

        def evaluate_in_torch(data: Any) -> Any:
            with torch.no_grad(), _restore_randomness():
                return function_at(_values(variables), data)

        return evaluate_in_torch
    return lambda data: function_at(_values(variables), data)


def _restore_randomness() -> contextlib.AbstractContextManager[Any]:
    """Restore the global random generators of PyTorch on exit, so that every part draws the same numbers."""
    import torch

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    return torch.random.fork_rng(devices)


def _values(variables: Sequence[Any]) -> list[Any]:
    return [variable.value for variable in variables]


def _to_tensor(array: Any) -> Any:
    return None if array is None else ops.convert_to_tensor(array)


def _pad_before(tensor: Any, rows: int) -> Any:
    """Return the tensor with rows of zeros in front."""
    return ops.pad(tensor, [(rows, 0)] + [(0, 0)] * (len(tensor.shape) - 1)) if rows else tensor


def _to_float64(gradient: Any, variable: Any) -> np.ndarray:
    if gradient is None:
        return np.zeros(variable.shape)
    return ops.convert_to_numpy(gradient).astype("float64")


def _scale(tensors: Sequence[Any]) -> float:
    """Return the power of two that scales the largest entry close to 1, where half precision is most accurate."""
    largest = max(float(ops.convert_to_numpy(ops.max(ops.abs(tensor)))) for tensor in tensors)
    return 2.0 ** -math.floor(math.log2(largest)) if 0.0 < largest < math.inf else 1.0


def _mask_of(tensor: Any) -> Any:
    """Return the mask that Keras attached to a tensor, as a layer that supports masking receives it."""
    reader = _MaskReader()
    reader(tensor)
    return reader.mask


class _MaskReader(layers.Layer):
    """Stores the mask of its input."""

    def __init__(self) -> None:
        super().__init__(autocast=False)
        self.supports_masking = True
        self.mask: Any = None

    def call(self, inputs: Any, mask: Any = None) -> Any:
        self.mask = mask
        return inputs


class _Masked(layers.Layer):
    """Attaches a mask to a tensor."""

    def __init__(self, mask: Any) -> None:
        super().__init__(autocast=False)
        self.supports_masking = True
        self._mask = mask

    def call(self, inputs: Any) -> Any:
        return inputs

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return self._mask


@contextlib.contextmanager
def _restore_modes(model: Any) -> Iterator[None]:
    """Restore the training mode of wrapped torch modules on exit."""
    on_torch = keras.backend.backend() == "torch"
    modules = [module for layer in sublayers(model) for module in layer.modules()] if on_torch else []
    modes = [module.training for module in modules]
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _run_outside_of_replicas(function: Callable[[], Any]) -> Any:
    """Call the function; under tf.distribute in another thread, where Keras does not divide the loss."""
    if keras.backend.backend() != "tensorflow":
        return function()
    import tensorflow as tf

    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return function()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return threads.submit(function).result()
