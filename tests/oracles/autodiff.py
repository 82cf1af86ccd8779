"""Differentiate, compile, batch as each backend does it: the tests' one place with backend branches."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()
PRECISE = "float64" if BACKEND == "tensorflow" else "float32"
"""The widest float that Keras computes in: off TensorFlow its type promotion takes float64 for float32."""


def gradient(function: Callable[[Any], Any], w: np.ndarray, dtype: str = PRECISE) -> np.ndarray:
    """∇function(w) by the backend's own autodiff; function takes a tensor, returns a scalar."""
    tensor = ops.convert_to_tensor(w, dtype=dtype)
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(function)(tensor), dtype=np.float64)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensor)
            value = function(tensor)
        actual = tape.gradient(value, tensor, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return np.asarray(actual, dtype=np.float64)
    import torch

    leaf = tensor.detach().clone().requires_grad_(True)
    value = function(leaf)
    if not value.requires_grad:  # constant wherever it is differentiable
        return np.zeros(w.shape)
    (actual,) = torch.autograd.grad(value, leaf)
    return actual.detach().cpu().numpy().astype(np.float64)


def penalty_gradient(layer: keras.layers.Layer) -> np.ndarray:
    """∂(sum of layer.losses)/∂kernel by autodiff through a built layer."""
    if BACKEND == "jax":
        import jax

        inputs = np.zeros((1, layer.kernel.shape[0]), dtype=layer.compute_dtype)

        def losses(trainable: list) -> Any:
            _, _, values = layer.stateless_call(trainable, [], inputs, return_losses=True)
            return sum(values)

        gradients = jax.grad(losses)([variable.value for variable in layer.trainable_variables])
        return np.asarray(gradients[0], dtype=np.float64)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value: Any = sum(layer.losses)
        return np.asarray(tape.gradient(value, layer.kernel.value), dtype=np.float64)
    import torch

    total: Any = sum(layer.losses)
    (result,) = torch.autograd.grad(total, layer.kernel.value)
    return result.detach().cpu().numpy().astype(np.float64)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function traced and compiled: jax.jit, tf.function; PyTorch has nothing to trace."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


def batched(function: Callable[[Any], Any], strengths: Sequence[float]) -> np.ndarray:
    """function(strength) for many strengths: jax.vmap, a tf.function that maps, torch tensors one by one."""
    tensor = ops.convert_to_tensor(np.asarray(strengths), dtype=PRECISE)
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.vmap(function)(tensor), dtype=np.float64)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return np.asarray(tf.function(lambda s: tf.map_fn(function, s))(tensor), dtype=np.float64)
    import torch

    return torch.stack([function(strength) for strength in tensor]).cpu().numpy().astype(np.float64)
