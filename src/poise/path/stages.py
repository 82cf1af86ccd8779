"""Adaptive stages: penalties divided by the sizes that the stage before found.

Zou 2006, "The adaptive lasso"; Candès, Wakin and Boyd 2008, "Enhancing sparsity by reweighted ℓ1 minimization". A large
group is then penalized less and a small one more, which takes away the bias that makes a plain path keep too much.
Every lane is weighted by its own fold's solution, so that no row that is held out has a say.
"""

import numpy as np

from poise.penalties.base import Separable
from poise.rules.members import unique_names

FLOOR = 0.03
"""ε in a = (1 + ε)/(size/largest + ε): nothing is penalized more than about 1/ε times the largest group."""


def unweighted(optimizer, replicas: int) -> dict:
    """The factors that the penalties have, in the form of `reweighted`: all stages are then one compiled program."""
    own = {
        (target.index, number): _own_factors(penalty, target.shape)
        for target in optimizer.targets
        for number, penalty in target.penalties
        if not penalty.smooth
    }
    return {key: np.broadcast_to(factors, (replicas, 1, *factors.shape)) for key, factors in own.items()}


def reweighted(optimizer, sizes: dict[str, np.ndarray], position: int) -> dict:
    """The factors of the next stage, by (index of a target, number of a rule), (replicas, 1, groups or *shape).

    a_g = (1 + ε)/(‖w_g‖/max_g ‖w_g‖ + ε), times the factor that the penalty has; infinite for what is dropped, which so
    stays out.

    Args:
        optimizer: the lanes' `PenalizedOptimizer`.
        sizes: by the names of its targets, (replicas, strengths, groups or *shape).
        position: of the chosen strength.
    """
    factors = {}
    for target, name in zip(optimizer.targets, names_of(optimizer.targets), strict=True):
        size = sizes[name][:, position].astype("float64")
        across = tuple(range(1, size.ndim))
        largest = size.max(axis=across, keepdims=True)
        shares = size / np.where(largest > 0, largest, 1.0)
        weights = np.where(size > 0, (1.0 + FLOOR) / (shares + FLOOR), np.inf)
        for number, penalty in target.penalties:
            if not penalty.smooth:
                own = np.broadcast_to(_own_factors(penalty, target.shape), weights.shape)
                together = np.multiply(weights, own, where=own > 0, out=np.zeros_like(weights))  # what is free stays so
                factors[target.index, number] = together.astype("float32")[:, None]
    return factors


def names_of(targets) -> list[str]:
    """The names by which the sizes of targets are kept: their paths, with their places where several have the same."""
    return unique_names([target.path for target in targets])


def check_reweightable(optimizer, argument: str):
    """Raises ValueError if a non-smooth penalty has no factors per group or entry, or nothing can hold a zero."""
    rough = [(target, penalty) for target in optimizer.targets for _, penalty in target.penalties if not penalty.smooth]
    if not rough or optimizer.update == "coupled":
        raise ValueError(
            f"{argument} works on what a penalty drops, and here nothing becomes exactly zero. Use a penalty such as "
            "poise.L1 or poise.GroupLasso and Training(update='auto')."
        )
    for target, penalty in rough:
        if not isinstance(penalty, Separable) and not hasattr(penalty, "layout_of"):
            raise ValueError(
                f"{argument} gives every group or entry a factor, and {type(penalty).__name__} on {target.path!r} has "
                "none. Use poise.L1 or poise.GroupLasso."
            )


def held_at_zero(targets, sizes: dict[str, np.ndarray]) -> dict:
    """Factors that hold at zero what a path has dropped, (replicas, strengths, groups or *shape)."""
    return {
        (target.index, number): np.where(sizes[name] > 0, 1.0, np.inf)
        for target, name in zip(targets, names_of(targets), strict=True)
        for number, penalty in target.penalties
        if not penalty.smooth
    }


def _own_factors(penalty, shape):
    """(groups,) or of the shape of a penalty of entries."""
    if hasattr(penalty, "layout_of"):
        return np.asarray(penalty.layout_of(shape).factors, "float32")
    own = 1.0 if penalty.factors is None else penalty.factors
    return np.broadcast_to(np.asarray(own, "float32"), shape)
