"""Adaptive stages: the penalty of each group is divided by its size in the previous stage.

A large group is then penalized less and a small one more, which removes the bias that makes a plain path keep too much.
The factors of a lane come from the solution of its own fold, which was not trained on the held-out rows. The held-out
rows influence them only through the strength (`poise.path.tables.reweighting_position`), which is chosen by the losses
of all folds.

References:
    Zou 2006, "The adaptive lasso"; Candès, Wakin and Boyd 2008, "Enhancing sparsity by reweighted ℓ1 minimization".
"""

from collections.abc import Mapping, Sequence

import numpy as np

from poise.optimizer.targets import Target
from poise.penalties import Penalty
from poise.penalties.base import Separable
from poise.rules.members import unique_names

FLOOR = 0.03
"""ε in a = (1 + ε)/(size/largest + ε): at most about 1/ε ≈ 33 for groups that are not zero."""

Factors = dict[tuple[int, int], np.ndarray]


def current_factors(targets: Sequence[Target], replicas: int) -> Factors:
    """Return the factors that the penalties have, as `adaptive_factors` returns them: all stages share one program."""
    by_penalty = {
        (target.index, number): _penalty_factors(penalty, target.shape)
        for target in targets
        for number, penalty in target.penalties
        if _has_factors(penalty)
    }
    return {key: np.broadcast_to(factors, (replicas, 1, *factors.shape)) for key, factors in by_penalty.items()}


def hold_at_zero(factors: Factors, targets: Sequence[Target], held: Mapping[str, np.ndarray]) -> Factors:
    """Return the factors with groups that a stage holds at zero.

    Args:
        factors: What `current_factors` or `adaptive_factors` returned.
        targets: Targets of the penalties.
        held: A dict from the name of a target to a bool array (replicas, groups): whether a group is held at zero.
    """
    names = dict(zip([target.index for target in targets], target_names(targets), strict=True))
    return {
        key: np.where(held[names[key[0]]][:, None], np.float32(np.inf), value) if names[key[0]] in held else value
        for key, value in factors.items()
    }


def adaptive_factors(
    targets: Sequence[Target],
    sizes: dict[str, np.ndarray],
    position: int,
    shared: Mapping[int, np.ndarray] | None = None,
) -> Factors:
    """Return the factors of the next stage, by (index of a target, number of a rule).

    a_g = (1 + ε)/(‖w_g‖/max_g ‖w_g‖ + ε), times the factor that the penalty already has. It is infinite for groups that
    have been dropped, so they remain dropped. Groups of several kernels that read the same inputs count as one group
    w_g, so that an input is dropped only if all of them are zero.

    Args:
        targets: targets of the penalties.
        sizes: by the names of the targets, (replicas, strengths, groups or *shape).
        position: position of the strength whose sizes to use.
        shared: what `find_shared_groups` returned. Default: None, for no such groups.

    Returns:
        Arrays (replicas, 1, groups or *shape).
    """
    chosen = {
        target.index: sizes[name][:, position].astype("float64")
        for target, name in zip(targets, target_names(targets), strict=True)
    }
    largest = {index: size.max(axis=tuple(range(1, size.ndim)), keepdims=True) for index, size in chosen.items()}
    if shared:
        joined = _join_sizes(chosen, shared)
        chosen |= {index: joined[:, labels] for index, labels in shared.items()}
        largest |= dict.fromkeys(shared, joined.max(axis=1, keepdims=True))
    factors = {}
    for target in targets:
        size, most = chosen[target.index], largest[target.index]
        shares = size / np.where(most > 0, most, 1.0)
        weights = np.where(size > 0, (1.0 + FLOOR) / (shares + FLOOR), np.inf)
        for number, penalty in target.penalties:
            if _has_factors(penalty):
                before = np.broadcast_to(_penalty_factors(penalty, target.shape), weights.shape)
                # A factor of 0 leaves a group free, whatever its size.
                product = np.multiply(weights, before, where=before > 0, out=np.zeros_like(weights))
                factors[target.index, number] = product.astype("float32")[:, None]
    return factors


def _join_sizes(sizes: Mapping[int, np.ndarray], shared: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return (replicas, labels) the norms of the groups of several kernels together."""
    replicas = len(next(iter(sizes.values())))
    squares = np.zeros((1 + max(int(labels.max()) for labels in shared.values()), replicas))
    for index, labels in shared.items():
        np.add.at(squares, labels, np.square(sizes[index]).T)
    return np.sqrt(squares.T)


def repeat_factors(factors: Mapping[tuple[int, int], np.ndarray] | None, count: int) -> Factors | None:
    """Return the same factors for a number of strengths; None if there are none."""
    if factors is None:
        return None
    return {key: np.broadcast_to(value, (len(value), count, *value.shape[2:])) for key, value in factors.items()}


def zero_holding_factors(targets: Sequence[Target], sizes: dict[str, np.ndarray]) -> Factors:
    """Return factors that hold dropped groups at zero, (replicas, strengths, groups or *shape)."""
    return {
        (target.index, number): np.where(sizes[name] > 0, 1.0, np.inf)
        for target, name in zip(targets, target_names(targets), strict=True)
        for number, penalty in target.penalties
        if _has_factors(penalty)
    }


def target_names(targets: Sequence[Target]) -> list[str]:
    """Return the names of targets: their paths, numbered where several have the same."""
    return unique_names([target.path for target in targets])


def check_reweightable(targets: Sequence[Target], update: str, argument: str) -> None:
    """Check that every non-smooth penalty has a factor per group or entry, and that it can hold zeros.

    Args:
        targets: targets of the penalties.
        update: how the penalties act.
        argument: name of the argument that needs it.

    Raises:
        ValueError: If not.
    """
    rough = [(target, penalty) for target in targets for _, penalty in target.penalties if _has_factors(penalty)]
    if not rough or update == "coupled":
        raise ValueError(
            f"{argument} needs exact zeros, and here no weight becomes exactly zero. Use a penalty such as poise.L1 or "
            "poise.GroupLasso and Training(update='auto')."
        )
    for target, penalty in rough:
        if not isinstance(penalty, Separable) and not hasattr(penalty, "layout_of"):
            raise ValueError(
                f"{argument} gives every group or entry a factor, and {type(penalty).__name__} on {target.path!r} does "
                "not take factors. Use poise.L1 or poise.GroupLasso."
            )


def _has_factors(penalty: Penalty) -> bool:
    """Return whether the factors of a penalty decide which of its weights become zero."""
    return not penalty.smooth and not penalty.is_constraint


def _penalty_factors(penalty: Penalty, shape: tuple[int, ...]) -> np.ndarray:
    """Return the factors of a penalty: (groups,), or of the shape of a penalty of entries."""
    if hasattr(penalty, "layout_of"):
        return np.asarray(penalty.layout_of(shape).factors, "float32")
    factors = 1.0 if penalty.factors is None else penalty.factors
    return np.broadcast_to(np.asarray(factors, "float32"), shape)
