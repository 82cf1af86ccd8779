"""Sizes of what a penalty acts on, in the trained weights of lanes."""

import numpy as np

from poise.optimizer.targets import Target
from poise.penalties.axes import Axes


def group_sizes(target: Target, members: list[np.ndarray]) -> np.ndarray:
    """Return ‖w_g‖ of every group of a target's non-smooth penalty, or |w| if it has none: (..., groups or *shape).

    Args:
        target: target of the penalties.
        members: values of its variables, (..., *shape) each.
    """
    groups = next((penalty for _, penalty in target.penalties if hasattr(penalty, "layout_of")), None)
    if groups is None:
        return np.abs(members[0])
    squares, labels = [], []
    slices = groups.with_factors(None).layout_of(target.shape).slices
    for w, (axes, slice_labels) in zip(members, slices, strict=True):
        squares.append(np.square(axes.columns(w).astype("float64")).sum(axis=-2))
        labels.append(slice_labels)
    all_labels = np.concatenate(labels)
    order = np.argsort(all_labels, kind="stable")[np.count_nonzero(all_labels < 0) :]
    starts = np.flatnonzero(np.diff(all_labels[order], prepend=-1))  # every group has a slice
    by_group = np.add.reduceat(np.concatenate(squares, axis=-1)[..., order], starts, axis=-1)
    return np.sqrt(by_group).astype("float32")


def count_live_units(target: Target, members: list[np.ndarray], size: np.ndarray, outputs: Axes | None) -> np.ndarray:
    """Return the live groups of a joint penalty or the live outputs of a kernel, (replicas, strengths).

    Args:
        target, members: as for `group_sizes`, the leading axes being (replicas, strengths).
        size: what `group_sizes` returns.
        outputs: where the outputs of its variable lie. None: the last axis.
    """
    if target.is_joint:
        return (size > 0).sum(axis=-1)
    (w,) = members
    if w.ndim < 4:
        return np.zeros(w.shape[:2], int)
    outputs = outputs or Axes.along(w.shape[2:], -1)
    return (outputs.columns(w) != 0).any(axis=-2).sum(axis=-1)


def is_empty(target: Target, members: list[np.ndarray], size: np.ndarray) -> np.ndarray:
    """Return whether all of a target is zero, of a joint one all that is in a group: (replicas, strengths)."""
    entries = size if target.is_joint else members[0]
    return (entries == 0).all(axis=tuple(range(2, entries.ndim)))
