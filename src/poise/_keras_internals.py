"""Keras' private names. No other module of poise touches them (tests/test_layering.py).

tests/test_keras_internals.py checks each one. Two private methods are overridden where their classes are:
`PenalizedOptimizer._track_variable` and `SavedState._obj_type`.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras.src.backend.common import dtypes
from keras.src.models.functional import Functional
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.utils import module_utils

__all__ = [
    "STEP_METHODS",
    "Functional",
    "KerasSaveable",
    "can_be_read",
    "compile_settings",
    "distribution_strategy",
    "functional_inside",
    "has_gate",
    "input_structure",
    "is_set_up",
    "is_traced_by_jax",
    "is_traced_for_cpu",
    "keep_float64",
    "learning_rate_or_schedule",
    "loss_weights",
    "model_of_h5_file",
    "moving_averages",
    "nadam_momentum_product",
    "nodes_by_depth",
    "operation_of",
    "optimizer_slot",
    "output_structure",
    "set_moving_averages",
    "set_trained_variables",
    "step_count",
    "sublayers",
    "track_in_checkpoint",
    "trained_variables",
    "variable_index",
    "variable_indices",
    "without_tensorflow",
]


# ---------------------------------------------------------------- models and their graphs


def functional_inside(model: keras.Sequential) -> Functional | None:
    """Return the functional model that a sequential model runs; None if Keras could not trace its layers."""
    return model._functional


def nodes_by_depth(model: Functional) -> dict[int, list[Any]]:
    """Return the nodes of a functional model's graph by their distance from the outputs."""
    return model._nodes_by_depth


def input_structure(model: Functional) -> Any:
    """Return the inputs of a functional model in their structure, such as a dict."""
    return model._inputs_struct


def output_structure(model: Functional) -> Any:
    """Return the outputs of a functional model in their structure, such as a dict."""
    return model._outputs_struct


def operation_of(tensor: keras.KerasTensor) -> Any:
    """Return the layer or operation that produces a symbolic tensor, `InputLayer` included."""
    return tensor._keras_history.operation


def is_set_up(model: Any) -> bool:
    """Whether Keras has set up a model so far that `sublayers` can list its layers."""
    return hasattr(model, "_layers")


def compile_settings(model: Any) -> dict[str, Any]:
    """Return the arguments of `compile`, in the dict that Keras saves with a model; empty if it is not compiled."""
    return getattr(getattr(model, "_compile_config", None), "config", {})


def loss_weights(model: Any) -> Any:
    """Return the `loss_weights` that a model was compiled with."""
    return compile_settings(model)["loss_weights"]


# ---------------------------------------------------------------- tensors


def is_traced_by_jax(tensor: Any) -> bool:
    """Return whether a tensor stands for a value of a program that JAX is about to compile."""
    is_tracer = any(base.__name__ == "Tracer" for base in type(tensor).__mro__)
    return is_tracer and keras.backend.backend() == "jax"


def is_traced_for_cpu(tensor: Any) -> bool:
    """Return whether a tensor stands for a value of a program of JAX, on a machine without an accelerator."""
    return is_traced_by_jax(tensor) and sys.modules["jax"].default_backend() == "cpu"


def can_be_read(tensor: Any) -> bool:
    """Return whether a tensor has a value now: not while a program is traced or compiled."""
    backend = keras.backend.backend()
    if backend == "torch":
        torch = sys.modules["torch"]
        is_plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
        return is_plain and not torch.compiler.is_compiling() and tensor.device.type != "meta"
    if backend == "tensorflow":
        return hasattr(tensor, "numpy")
    return not is_traced_by_jax(tensor)


@contextlib.contextmanager
def keep_float64() -> Iterator[None]:
    """Compute with float64 where tensors have it: on PyTorch and JAX, Keras rounds some results to float32."""
    before = dtypes.BIT64_TO_BIT32_DTYPE["float64"]
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    try:
        yield
    finally:
        dtypes.BIT64_TO_BIT32_DTYPE["float64"] = before


# ---------------------------------------------------------------- layers


def sublayers(layer: Any, include_self: bool = True, recursive: bool = True) -> list[Any]:
    """Return the layers inside a layer or model, in depth-first order."""
    return list(layer._flatten_layers(include_self=include_self, recursive=recursive))


def has_gate(attention: keras.layers.MultiHeadAttention) -> bool:
    """Whether an attention multiplies its heads by a gate, which is computed from the query."""
    return attention._use_gate


# ---------------------------------------------------------------- optimizers

STEP_METHODS = (
    *("apply", "update_step", "assign", "assign_add", "assign_sub", "scale_loss"),
    *("_backend_apply_gradients", "_backend_update_step", "_clip_gradients", "_apply_weight_decay"),
    *("_parallel_update_step", "_distributed_tf_update_step", "_overwrite_variables_directly_with_gradients"),
)
"""Methods whose override changes the step that an optimizer takes."""


def trained_variables(optimizer: Any) -> list[Any]:
    """Return the variables that an optimizer was built for."""
    return optimizer._trainable_variables


def set_trained_variables(optimizer: Any, variables: Sequence[Any]) -> None:
    """Do what the base class does on build, without a second set of gradient accumulators.

    The attributes are set past Keras' tracking, for which the variables of a model do not belong to an optimizer.
    """
    indices = {optimizer._var_key(variable): index for index, variable in enumerate(variables)}
    object.__setattr__(optimizer, "_trainable_variables", list(variables))
    object.__setattr__(optimizer, "_trainable_variables_indices", indices)


def variable_indices(optimizer: Any, variables: Sequence[Any]) -> list[int | None]:
    """Return the index of each variable in the optimizer; None if the optimizer was not built for the variable."""
    return [optimizer._trainable_variables_indices.get(optimizer._var_key(variable)) for variable in variables]


def variable_index(optimizer: Any, variable: Any) -> int:
    """Return the index of a variable in the optimizer."""
    return optimizer._get_variable_index(variable)


def moving_averages(optimizer: Any) -> list[Any]:
    """Return the variables that hold the averages of the weights (`use_ema=True`); empty without them."""
    return getattr(optimizer, "_model_variables_moving_average", [])


def set_moving_averages(optimizer: Any, averages: Sequence[Any]) -> None:
    """Set the variables that hold the averages, past Keras' tracking."""
    object.__setattr__(optimizer, "_model_variables_moving_average", list(averages))


def step_count(optimizer: Any) -> Any:
    """Return the variable that counts steps; with gradient accumulation `iterations` counts updates instead."""
    return optimizer._iterations


def learning_rate_or_schedule(optimizer: Any) -> Any:
    """Return the variable that holds the learning rate, or the schedule that gives it."""
    return optimizer._learning_rate


def optimizer_slot(optimizer: Any, name: str, index: int) -> Any:
    """Return the optimizer's variable `name`, such as "velocities", of the trained variable number `index`."""
    return getattr(optimizer, f"_{name}")[index]


def nadam_momentum_product(optimizer: Any) -> Any:
    """Return the variable of Nadam that holds Π_t β₁(1 − ½·0.96ᵗ)."""
    return optimizer._u_product


def distribution_strategy(optimizer: Any) -> Any:
    """Return the tf.distribute strategy of an optimizer; None on other backends."""
    return getattr(optimizer, "_distribution_strategy", None)


def track_in_checkpoint(optimizer: Any, variables: Mapping[str, Any]) -> None:
    """Add variables by name to TensorFlow's checkpoints and saved models; do nothing on other backends."""
    if hasattr(optimizer, "_track_trackable"):
        for name, variable in variables.items():
            optimizer._track_trackable(variable, name)


# ---------------------------------------------------------------- files and serialization


def model_of_h5_file() -> Any:
    """Return the model that Keras is loading from an .h5 file; None if it is not.

    Keras then builds the optimizer for an empty list, because it takes the variables of the model without those of its
    layers.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "keras.src.legacy.saving.legacy_h5_format":
            return frame.f_locals.get("model")
        frame = frame.f_back
    return None


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Let Keras serialize objects without importing TensorFlow, unless it is imported already.

    Keras checks for every value whether it is a TensorFlow object, and imports TensorFlow for that, which takes
    seconds. Before that import, no value can be one. A model with layers that need TensorFlow, such as `StringLookup`,
    has imported it. Code that may create such layers must not run inside.
    """
    lazy = module_utils.tensorflow
    is_unknown = "tensorflow" not in sys.modules and vars(lazy).get("_available", False) is None
    if is_unknown:
        lazy._available = False
    try:
        yield
    finally:
        if is_unknown:
            lazy._available = None
