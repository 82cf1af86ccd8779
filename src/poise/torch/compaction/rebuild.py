"""The smaller module: a copy whose layers are resized."""

from typing import Any

import numpy as np
import torch
from torch import nn

from poise.compaction.handlers import WeightPart
from poise.torch.compaction.analysis import ModuleAnalysis
from poise.torch.compaction.tracing import run
from poise.torch.compaction.verification import check_outputs, run_on_more_rows


def compact(model: nn.Module, example_inputs: Any, *, tolerance: float = 0.0, multiple: int = 1) -> Any:
    """Create a smaller module with the same outputs by removing dead units.

    A unit is dead if all weights that read it are exactly zero, or if its value is the same for all data; the biases of
    the layers that read it then absorb that value. A unit that cannot be removed without changing an output stays, and
    `poise.torch.dead_units` lists the reasons. The outputs of both modules agree to rounding in eval mode. On the
    example inputs, this is checked.

    The forward code is traced with `torch.fx` on the example inputs, in eval mode. Branches that the example inputs do
    not reach, or that run only in training mode, are not traced. The forward code is not changed. Units that feed code
    with hard-coded sizes, such as `x.view(-1, 400)`, are therefore kept; with `torch.flatten(x, 1)` they can be
    removed.

    Args:
        model: Trained `torch.nn.Module`. It is not changed.
        example_inputs: Tensor that the module can be called on, or a tuple of tensors for several arguments. A few rows
            are enough.
        tolerance: Float >= 0. Weights of at most this absolute value count as zero; the outputs then differ by about
            as much, and are not checked. Default: 0.0.
        multiple: Int >= 1. Keep some dead units where needed, so that each layer has a multiple of this number of
            units, or all of its original units. Layers whose width is not such a multiple can be slow on some hardware.
            Default: 1.

    Returns:
        A copy of the module with smaller layers, of the same classes, which does not depend on poise. Devices, dtypes,
        `requires_grad`, shared weights and training mode are those of the original. Weights that change are new
        parameters, so create the optimizer for the smaller module after this call.

    Raises:
        TypeError: If `model` is not a `torch.nn.Module`, or `example_inputs` are not tensors.
        ValueError: If the module cannot be copied, run on the example inputs, or traced; if it changes a tensor in
            place and uses another view of it later; or if `tolerance` or `multiple` is out of its range.
        RuntimeError: If the outputs of the smaller module differ on the example inputs, which is an internal error.

    References:
        Fang et al. 2023, "DepGraph: towards any structural pruning" (units that are removed together).

    Examples:
        >>> import torch, poise.torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> with torch.no_grad():
        ...     _ = model[0].weight[2:].zero_()  # the last two units have no incoming weights
        >>> poise.torch.compact(model, torch.zeros(1, 3))[0]
        Linear(in_features=3, out_features=2, bias=True)
    """
    analysis = ModuleAnalysis(model, example_inputs, tolerance, multiple)
    smaller = analysis.graph.module
    pairs = [(analysis.inputs, analysis.outputs), *run_on_more_rows(smaller, analysis.inputs)]
    _Resizer(analysis).resize_layers()
    for inputs, outputs in pairs:
        check_outputs(outputs, run(smaller, inputs), has_same_values=tolerance == 0)
    _restore_state(smaller, model)
    return smaller


class _Resizer:
    """Resizes the layers of the traced copy."""

    def __init__(self, analysis: ModuleAnalysis) -> None:
        self._analysis = analysis
        self._resized: dict[int, torch.Tensor] = {}
        """By the id of a weight, its counterpart, the same for all layers that share it."""

    def resize_layers(self) -> None:
        """Set the sizes and the weights of all layers."""
        graph = self._analysis.graph
        layers = [layer for layer in graph.layers if isinstance(layer, nn.Module)]
        changes = [(layer, self._find_weights(layer)) for layer in layers]
        for layer, weights in changes:
            call = graph.calls_of(layer)[0]
            for name, value in [*call.handler.resize_config(call, {}, self._analysis.count).items(), *weights.items()]:
                holder, _, attribute = name.rpartition(".")
                setattr(layer.get_submodule(holder), attribute, value)

    def _find_weights(self, layer: nn.Module) -> dict[str, torch.Tensor]:
        """Return, by name, the weights of a layer that change."""
        call = self._analysis.graph.calls_of(layer)[0]
        parts = call.handler.weight_parts(call)
        added = self._analysis.bias_additions(call)
        weights: dict[str, torch.Tensor] = {}
        for part in parts:
            weight, addition = part.of(layer), added.get(part.name)
            if weight is None and addition is not None and addition.any():
                weights[part.name] = _like(parts[0].of(layer), addition)
            elif weight is not None:
                weights[part.name] = self._resize(part, weight, addition)
        return weights

    def _resize(self, part: WeightPart, weight: torch.Tensor, addition: np.ndarray | None) -> torch.Tensor:
        """Return a weight without the removed units, with the removed constants added."""
        if id(weight) not in self._resized:
            value = self._analysis.select(part, self._analysis.graph.exact(weight))
            has_changed = value.shape != weight.shape or (addition is not None and addition.any())
            value = value if addition is None else value + addition
            self._resized[id(weight)] = _like(weight, value) if has_changed else weight
        return self._resized[id(weight)]


def _like(weight: torch.Tensor, value: np.ndarray) -> torch.Tensor:
    """Return a parameter or buffer with this value that is like another one."""
    tensor = torch.tensor(value, dtype=weight.dtype).to(weight.device)
    return nn.Parameter(tensor, requires_grad=weight.requires_grad) if isinstance(weight, nn.Parameter) else tensor


def _restore_state(smaller: nn.Module, model: nn.Module) -> None:
    """Give all modules the training mode of the original, and its values to buffers that are not resized."""
    originals = dict(model.named_modules())
    for name, module in smaller.named_modules():
        module.training = originals[name].training
        buffers = dict(originals[name].named_buffers(recurse=False))
        for key, buffer in module.named_buffers(recurse=False):
            if key in buffers and buffer.shape == buffers[key].shape:
                buffer.copy_(buffers[key])
