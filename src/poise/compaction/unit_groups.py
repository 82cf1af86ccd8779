"""A rule whose groups are all weights of a unit, so that whole units become dead (poise.unit_sparsity)."""

from typing import Any

import numpy as np

from poise.compaction.analysis import UnitAnalysis
from poise.compaction.handlers import WeightPart
from poise.penalties import JointGroupLasso
from poise.penalties.base import Schedule
from poise.penalties.joint import Member
from poise.rules.members import names_of_members
from poise.rules.rule import Rule

NAME = "unit_sparsity"


def unit_sparsity(model: Any, strength: float | Schedule = 1.0, factors: Any = None) -> Rule:
    """Create a rule under which whole units of a model become exactly zero, so that `poise.compact` removes them.

    A group holds all weights that produce a unit: a column of a Dense kernel or a filter, its bias, the scale and shift
    of the following batch normalization, and the same weights in every branch of a residual sum; or a head of an
    attention layer. A weight that does not produce a removable unit is in the group of the unit that it multiplies: the
    rows of the last kernel, for example, belong to the units of the last hidden layer. Every weight is in at most one
    group, so the proximal step is exact. Units that cannot be removed are not penalized: outputs of the model, and
    units that a LayerNormalization or an unknown layer reads.

    A unit whose group is zero has the value f(0) of its activation f. It stays if f(0) is not 0 (as for a sigmoid) and
    a following convolution pads with zeros.

    Args:
        model: Built functional or sequential `keras.Model`.
        strength: Float >= 0 or a `keras.optimizers.schedules.LearningRateSchedule`. Default: 1.0.
        factors: Factors of the groups, an array of the shape (groups,) or one float for all. With 1.0, the layers of a
            convolutional network shrink more evenly, which saves more time at the same accuracy. Default: None, which
            uses the square root of the number of entries in the group.

    Returns:
        A `poise.Rule` named "unit_sparsity" with a `poise.JointGroupLasso`.

    Raises:
        TypeError: If `model` is not a Keras model, or has no graph of layers.
        ValueError: If the model cannot be compacted (see `poise.compact`), or no unit of it can be removed.

    References:
        Fang et al. 2023, "DepGraph: towards any structural pruning" (groups); Yuan and Lin 2006, "Model selection and
        estimation in regression with grouped variables" (penalty).

    Examples:
        >>> import poise, keras
        >>> hidden, head = keras.layers.Dense(4, name="hidden"), keras.layers.Dense(1, name="head")
        >>> model = keras.Sequential([keras.Input((3,)), hidden, head], name="net")
        >>> rule = poise.unit_sparsity(model, 0.01)
        >>> [*rule.penalty.members]
        ['net/hidden/kernel', 'net/hidden/bias', 'net/head/kernel']
    """
    groups = find_weight_groups(UnitAnalysis(model))
    if not groups:
        raise ValueError(
            f"No unit of the model {model.name!r} can be removed, so there is no group to penalize. "
            "poise.dead_units(model) shows why."
        )
    sets = np.unique(np.concatenate([sets for _, _, sets in groups.values()]))
    return Rule([*groups], JointGroupLasso(strength, number_groups(groups, sets[sets >= 0]), factors), name=NAME)


def find_weight_groups(analysis: UnitAnalysis) -> dict[str, Member]:
    """Return the slices of the trainable weights that belong to removable sets of units.

    Returns:
        Per path of a variable a triple (shape, axis, sets): for each index along the axis the number of the set to
        which the slice belongs, −1 if it belongs to units that stay.
    """
    is_free = ~analysis.unit_sets.is_pinned
    trained = analysis.graph.model.trainable_variables
    names = dict(zip(map(id, trained), names_of_members(trained), strict=True))
    groups = {}
    for layer in analysis.graph.layers:
        call = analysis.graph.calls_of(layer)[0]
        for part in call.handler.weight_parts(call):
            variable = part.of(layer)
            along = _find_owner(part, analysis.unit_sets.root, is_free)
            if variable is not None and id(variable) in names and along is not None:
                groups[names[id(variable)]] = (tuple(variable.shape), *along)
    return groups


def number_groups(groups: dict[str, Member], sets: np.ndarray) -> dict[str, Member]:
    """Return the members of a `JointGroupLasso` with one group per listed set, in the order of the list."""
    numbers = np.full(max(sets.max(), *(roots.max() for _, _, roots in groups.values())) + 2, -1)
    numbers[sets] = np.arange(len(sets))
    members = {path: (shape, axis, numbers[roots]) for path, (shape, axis, roots) in groups.items()}  # [-1] is -1
    return {path: member for path, member in members.items() if (member[2] >= 0).any()}


def _find_owner(part: WeightPart, root: np.ndarray, is_free: np.ndarray) -> tuple[int, np.ndarray] | None:
    """Return (axis, sets of units, −1 for units that stay) along which a weight belongs to removable units, or None."""
    for along in (part.makes, part.reads):
        if along is not None:
            roots = root[along[1]]
            if is_free[roots].any():
                return along[0], np.where(is_free[roots], roots, -1)
    return None
