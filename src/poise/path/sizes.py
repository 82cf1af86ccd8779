"""How large what a penalty acts on is, in the weights that the lanes leave behind."""

import numpy as np

from poise.optimizer.targets import Target
from poise.penalties.axes import Axes


def sizes(target: Target, members: list[np.ndarray]) -> np.ndarray:
    """‖w_g‖ of every group of a target's non-smooth penalty, or |w| where it has none: (..., groups or *shape).

    Args:
        target: the target.
        members: the values of its variables, (..., *shape) each.
    """
    groups = next((penalty for _, penalty in target.penalties if hasattr(penalty, "layout_of")), None)
    if groups is None:
        return np.abs(members[0])
    squares, labels = [], []
    for w, (axes, own) in zip(members, groups.with_factors(None).layout_of(target.shape).slices, strict=True):
        squares.append(np.square(axes.columns(w).astype("float64")).sum(axis=-2))
        labels.append(own)
    in_order = np.concatenate(labels)
    order = np.argsort(in_order, kind="stable")[np.count_nonzero(in_order < 0) :]
    starts = np.flatnonzero(np.diff(in_order[order], prepend=-1))  # no group is without a slice
    by_group = np.add.reduceat(np.concatenate(squares, axis=-1)[..., order], starts, axis=-1)
    return np.sqrt(by_group).astype("float32")


def live_units(target: Target, members: list[np.ndarray], size: np.ndarray, outputs: Axes | None) -> np.ndarray:
    """(replicas, strengths): live groups of a joint penalty, live outputs of the kernel of another target.

    Args:
        target, members: as for `sizes`, the leading axes being (replicas, strengths).
        size: what that gives.
        outputs: where the outputs of its variable lie; None for the last axis.
    """
    if target.is_joint:
        return (size > 0).sum(axis=-1)
    (w,) = members
    if w.ndim < 4:
        return np.zeros(w.shape[:2], int)
    outputs = outputs or Axes.along(w.shape[2:], -1)
    return (outputs.columns(w) != 0).any(axis=-2).sum(axis=-1)


def is_empty(target: Target, members: list[np.ndarray], size: np.ndarray) -> np.ndarray:
    """(replicas, strengths): whether all of a target is zero, of a joint one all that is in a group."""
    left = size if target.is_joint else members[0]
    return (left == 0).all(axis=tuple(range(2, left.ndim)))
