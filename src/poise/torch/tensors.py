"""Tensors on devices, in float64, and sharded over processes, for formulas that run on `keras.ops`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import keras
import torch
from torch import Tensor

from poise._keras_internals import keep_float64

HAS_ACCELERATOR = torch.cuda.is_available() or torch.backends.mps.is_available()


def local(tensor: Tensor) -> Tensor:
    """Return a tensor, or of a sharded one the part on this process."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def full(tensor: Tensor) -> Tensor:
    """Return a tensor, gathered from all processes if it is sharded."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def sharded_like(whole: Tensor, tensor: Tensor) -> Tensor:
    """Return a tensor that every process has as a whole, sharded if the other one is. The inverse of `full`."""
    if not hasattr(tensor, "full_tensor"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = tensor
    return distribute_tensor(whole, sharded.device_mesh, sharded.placements, src_data_rank=None)


def on_device(tensor: Tensor) -> AbstractContextManager[None]:
    """Run `keras.ops` on the device of a tensor, and in float64 if it has this dtype.

    Keras would move the tensor to its default device, and round to float32.
    """
    has_defaults = not HAS_ACCELERATOR and tensor.device.type == "cpu" and tensor.dtype != torch.float64
    return nullcontext() if has_defaults else _on_device(tensor)


@contextmanager
def _on_device(tensor: Tensor) -> Iterator[None]:
    with ExitStack() as stack:
        if HAS_ACCELERATOR or tensor.device.type != "cpu":
            stack.enter_context(keras.device(str(tensor.device)))
        if tensor.dtype == torch.float64:
            stack.enter_context(keep_float64())
        yield
