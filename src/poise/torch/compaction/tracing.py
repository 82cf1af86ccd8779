"""The forward code of a copy of a module as a torch.fx graph, with the result of every node on example inputs."""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

from poise.torch.compaction.running_tracer import RunningTracer


@dataclass(frozen=True)
class Trace:
    """A copy of a module in eval mode, and what its forward code does.

    Attributes:
        module: Copy of the module.
        graph: Nodes of the forward code.
        results: Result of every node on the example inputs.
        decisions: Nodes whose numbers the forward code used in control flow.
        inputs: Example inputs.
        outputs: What the module returns for the example inputs.
    """

    module: nn.Module
    graph: fx.Graph
    results: dict[fx.Node, Any]
    decisions: list[fx.Node]
    inputs: tuple[torch.Tensor, ...]
    outputs: Any


def trace(model: nn.Module, example_inputs: Any) -> Trace:
    """Trace a copy of a module in eval mode.

    Args:
        model: Any module. It is not changed.
        example_inputs: Tensor, or tuple of tensors.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If the module cannot be copied, traced, or run on the example inputs.
    """
    check_module(model)
    inputs = check_inputs(example_inputs)
    module = _copy(model).eval()
    try:
        outputs = run(module, inputs)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot be run on example_inputs: {first_line(error)}. Pass one tensor, or a tuple "
            "with the tensors that its forward takes."
        ) from error
    tracer = RunningTracer()
    graph = run(lambda *tensors: _trace_forward(tracer, module, tensors), inputs)
    return Trace(module, graph, tracer.results, tracer.decisions, inputs, outputs)


def run(function: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> Any:
    """Return the outputs for copies of the inputs, without gradients, and with random numbers that repeat."""
    devices = sorted({tensor.get_device() for tensor in inputs if tensor.is_cuda})
    with torch.no_grad(), torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(0)
        for number in devices:
            torch.cuda.default_generators[number].manual_seed(0)
        return function(*[tensor.detach().clone() for tensor in inputs])


def check_module(model: Any) -> None:
    """Raise TypeError or ValueError if a model is not a module whose layers can be resized."""
    if isinstance(model, keras.Model):
        raise TypeError(f"{model.name!r} is a Keras model. Use poise.compact.")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise TypeError(f"model must be the module inside of the {type(model).__name__}, model.module.")
    if type(model).__name__ == "OptimizedModule":
        raise TypeError("model must be the module that was passed to torch.compile, not what it returned.")
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"model must be a torch.nn.Module that is not scripted, got {type(model).__name__}.")
    for name, module in model.named_modules():
        if isinstance(module, keras.layers.Layer):
            raise ValueError(f"torch.fx cannot trace the Keras layer {name!r}. Use a layer of torch.nn in its place.")
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"The parameter {name!r} has no shape yet. Call the model on data first.")


def check_inputs(example_inputs: Any) -> tuple[torch.Tensor, ...]:
    """Return the example inputs as a tuple, or raise TypeError."""
    inputs = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
    if not inputs or not all(isinstance(tensor, torch.Tensor) for tensor in inputs):
        kinds = ", ".join(type(value).__name__ for value in inputs) or "nothing"
        raise TypeError(
            f"example_inputs must be a tensor or a tuple of tensors, got {kinds}. Pass the positional arguments with "
            "which the module is called."
        )
    return inputs


def first_line(error: Exception) -> str:
    """Return the first line of the message of an error, without a full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied with copy.deepcopy: {first_line(error)}. If it has weights that "
            "are computed from others, make them permanent first, such as with torch.nn.utils.prune.remove or "
            "torch.nn.utils.remove_weight_norm."
        ) from error


def _trace_forward(tracer: RunningTracer, module: nn.Module, inputs: Sequence[torch.Tensor]) -> fx.Graph:
    """Return the graph of the forward code, with the defaults of all arguments without an example."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fx warns about every default that it cannot check
            return tracer.trace_on(module, inputs)
    except Exception as error:
        names = [name for name in tracer.path if name]
        place = repr(names[-1]) if names else type(module).__name__
        raise ValueError(
            f"torch.fx cannot trace the forward of {place}: {first_line(error)}. poise.torch.compact needs forward "
            "code whose control flow does not depend on the values of tensors. Rewrite that code, or compact the "
            "submodules one by one."
        ) from error
