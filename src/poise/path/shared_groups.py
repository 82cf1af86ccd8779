"""Groups of weights of several kernels that read the same inputs, such as a hidden layer and a skip connection."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from poise.compaction.inputs import input_kernels
from poise.optimizer.targets import Target
from poise.penalties.axes import Axes

Labels = dict[int, np.ndarray]


def find_shared_groups(model: Any, targets: Sequence[Target]) -> Labels:
    """Return which groups of several kernels read the same inputs.

    Args:
        model: The model.
        targets: The targets of its penalties.

    Returns:
        A dict from the index of a target to an int array (groups,). Groups that read a common input have the same
        number. Empty if fewer than two kernels that read inputs have groups.
    """
    kernels = input_kernels(model) or []
    trained = {id(variable): number for number, variable in enumerate(model.trainable_variables)}
    target_of = {target.index: target for target in targets if not target.is_joint}
    pairs: list[np.ndarray] = []
    counts: dict[int, int] = {}
    for kernel in kernels:
        target = target_of.get(trained.get(id(model.weights[kernel.position]), -1))
        segments = None if target is None or kernel.axis != 0 else _group_of_rows(target)
        if target is not None and segments is not None:
            first = sum(counts.values())
            counts[target.index] = int(segments.max()) + 1  # every group has rows
            is_inside = segments >= 0
            pairs.append(np.stack([first + segments[is_inside], kernel.inputs[is_inside]]))
    if len(counts) < 2:
        return {}
    groups, inputs = np.concatenate(pairs, axis=1)
    shape = sum(counts.values()), int(inputs.max()) + 1
    reads = coo_array((np.ones(len(groups)), (groups, inputs + shape[0])), shape=(sum(shape), sum(shape)))
    labels = connected_components(reads, directed=False)[1][: shape[0]]
    parts = np.split(labels, np.cumsum([*counts.values()])[:-1])
    return dict(zip(counts, parts, strict=True))


def _group_of_rows(target: Target) -> np.ndarray | None:
    """Return (rows,) the group of every row of a kernel, −1 for none; None if its groups are not rows."""
    rough = [penalty for _, penalty in target.penalties if not penalty.smooth]
    if len(rough) != 1 or len(target.shape) != 2 or not hasattr(rough[0], "layout_of"):
        return None
    layout: Any = rough[0]
    layout = layout.layout_of(target.shape)
    if layout.axes != Axes.along(target.shape, 0):
        return None
    return np.arange(target.shape[0]) if layout.segments is None else np.asarray(layout.segments)
