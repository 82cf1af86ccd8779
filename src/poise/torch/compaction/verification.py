"""The check that two modules give the same outputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from poise.torch.compaction.nodes import flatten
from poise.torch.compaction.tracing import run

ROUNDING = 1e3
"""The outputs may differ by this many units of rounding, relative to the largest output."""
LARGEST_LIMIT = 0.05
"""The largest relative difference that passes, for dtypes of low precision."""


def check_outputs(expected: Any, actual: Any, has_same_values: bool = True) -> None:
    """Raise RuntimeError if outputs differ by more than rounding.

    Args:
        expected: Tensor, or nested tuples, lists and dicts of tensors.
        actual: The same from the smaller module.
        has_same_values: Whether to compare more than shapes. Default: True.
    """
    pairs = zip(_tensors_in(expected), _tensors_in(actual), strict=True)
    for first, second in pairs:
        if first.shape != second.shape:
            difference = f"have the shape {tuple(second.shape)} instead of {tuple(first.shape)}"
        elif has_same_values and first.is_floating_point() and not _is_close(first, second):
            difference = f"differ by {float((first - second).abs().max()):.2g}"
        else:
            continue
        raise RuntimeError(
            f"Internal error: the outputs of the smaller module {difference} on example_inputs. The forward code may "
            "compute with the number of rows or units. Please report this, with the code of the module."
        )


def run_on_more_rows(module: nn.Module, inputs: Sequence[torch.Tensor]) -> list[tuple[Sequence[torch.Tensor], Any]]:
    """Run a module on its inputs with one more row, to find computations that depend on the size of the batch.

    Returns:
        A list of one pair (inputs, outputs). It is empty if the module does not take such inputs.
    """
    if any(tensor.ndim == 0 or len(tensor) == 0 for tensor in inputs):
        return []
    more = [torch.cat([tensor, tensor[:1]]) for tensor in inputs]
    try:
        return [(more, run(module, more))]
    except Exception:
        return []


def _is_close(first: torch.Tensor, second: torch.Tensor) -> bool:
    limit = min(ROUNDING * torch.finfo(first.dtype).eps, LARGEST_LIMIT)
    finite = first[torch.isfinite(first)]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(first, second, rtol=0.0, atol=limit * scale, equal_nan=True)


def _tensors_in(outputs: Any) -> list[torch.Tensor]:
    return [leaf for leaf in flatten(outputs) if isinstance(leaf, torch.Tensor)]
