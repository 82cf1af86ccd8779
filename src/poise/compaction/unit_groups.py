"""Groups of weights that vanish together, so that units become dead (poise.unit_sparsity)."""

import numpy as np

from poise.compaction.analysis import Findings
from poise.compaction.handlers import Part
from poise.penalties import JointGroupLasso
from poise.rules.members import names_of_members
from poise.rules.rule import Rule

NAME = "structure"


def unit_sparsity(model, strength=1.0, factors=None) -> Rule:
    """A rule under which whole units of a model become exactly zero, and `poise.compact` removes them.

    A group is all that makes a unit: a column of a Dense kernel, a filter, its bias, the scale and shift of a batch
    normalization behind it, the same in all branches of a sum that it goes through (a residual stream), a head of an
    attention; and where nothing else owns it, the slice by which the next layer reads it (the rows of the last
    kernel). Every weight is in one group at most, so that the proximal step is exact: the slice of a kernel between
    two removable units belongs to the one that it makes. Units that cannot be removed (outputs of the model, what
    feeds a LayerNormalization or an unknown layer) are not penalized.

    A unit whose group is zero gives f(0) for its activation f; where that is not 0 (a sigmoid) and a convolution pads
    with zeros behind it, it stays.

    Args:
        model: a built functional or sequential Keras model.
        strength: s ≥ 0 or a schedule.
        factors: factors per group, or one for all; None for √(number of entries in the group). With 1 the layers of a
            convolutional network shrink more evenly, which saves more time at the same accuracy.

    Returns:
        A `poise.Rule` named "structure" with a `poise.JointGroupLasso`.

    Raises:
        TypeError, ValueError: as `poise.compact`, and if no unit of the model can be removed.

    References:
        Fang et al. 2023, "DepGraph: towards any structural pruning" (what goes together); Yuan and Lin 2006, "Model
        selection and estimation in regression with grouped variables" (the penalty).

    Example:
        >>> import poise, keras
        >>> hidden, head = keras.layers.Dense(4, name="hidden"), keras.layers.Dense(1, name="head")
        >>> model = keras.Sequential([keras.Input((3,)), hidden, head], name="net")
        >>> rule = poise.unit_sparsity(model, 0.01)
        >>> [*rule.penalty.members]
        ['net/hidden/kernel', 'net/hidden/bias', 'net/head/kernel']
    """
    findings = Findings(model)
    is_free = ~findings.joined.is_pinned
    owned = {}
    trained = model.trainable_variables
    names = dict(zip(map(id, trained), names_of_members(trained), strict=True))
    for layer in findings.graph.layers:
        call = findings.graph.calls_of(layer)[0]
        for part in call.kind.parts(call):
            variable = part.of(layer)
            along = _owner(part, findings.joined.root, is_free)
            if variable is not None and id(variable) in names and along is not None:
                owned[names[id(variable)]] = (tuple(variable.shape), *along)
    if not owned:
        raise ValueError(
            f"No unit of the model {model.name!r} can be removed, so that there is nothing to penalize as a whole. "
            "poise.dead_units(model) says why."
        )
    sets = np.unique(np.concatenate([roots for _, _, roots in owned.values()]))
    numbers = np.full(len(is_free), -1)
    numbers[sets[sets >= 0]] = np.arange((sets >= 0).sum())
    members = {
        path: (shape, axis, np.where(roots < 0, -1, numbers[roots])) for path, (shape, axis, roots) in owned.items()
    }
    return Rule([*members], JointGroupLasso(strength, members, factors), name=NAME)


def _owner(part: Part, root: np.ndarray, is_free: np.ndarray) -> tuple[int, np.ndarray] | None:
    """(axis, sets of units, −1 for those that stay) along which a weight belongs to units; None if to none."""
    for along in (part.makes, part.reads):
        if along is not None:
            roots = root[along[1]]
            if is_free[roots].any():
                return along[0], np.where(is_free[roots], roots, -1)
    return None
