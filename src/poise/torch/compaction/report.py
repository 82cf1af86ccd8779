"""The table of dead units of a module."""

from typing import Any

import pandas as pd
from torch import nn

from poise.compaction.report import tabulate_units
from poise.torch.compaction.analysis import ModuleAnalysis


def dead_units(model: nn.Module, example_inputs: Any, *, tolerance: float = 0.0, multiple: int = 1) -> pd.DataFrame:
    """List the units that `compact` would remove, layer by layer, with the reasons.

    Args:
        model: Trained `torch.nn.Module`. It is not changed.
        example_inputs: Tensor that the module can be called on, or a tuple of tensors for several arguments.
        tolerance: Float >= 0. Weights of at most this absolute value count as zero. Default: 0.0.
        multiple: Int >= 1. Keep some dead units where needed, so that each layer has a multiple of this number of
            units, or all of its original units. Default: 1.

    Returns:
        A DataFrame with one row per layer that makes units. Columns: `layer`, `units` (number of units), `dead` (number
        of units that are removed) and `why` (why they are dead, or why units stay).

    Raises:
        TypeError: If `model` is not a `torch.nn.Module`, or `example_inputs` are not tensors.
        ValueError: If the module cannot be compacted, or an argument is out of its range (see `compact`).

    Examples:
        >>> import torch, poise.torch
        >>> from poise.torch.compaction import dead_units
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
        >>> with torch.no_grad():
        ...     _ = model[0].weight[0].zero_()
        >>> dead_units(model, torch.zeros(1, 3))["dead"].tolist()
        [1, 0]
    """
    return tabulate_units(ModuleAnalysis(model, example_inputs, tolerance, multiple))
