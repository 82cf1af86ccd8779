"""How the lanes of a path settle after their epochs: by which steps, and by how many."""

from collections.abc import Sequence

import keras
import numpy as np

from poise._keras_internals import sublayers
from poise.path.data.batches import WHOLE
from poise.path.models import inner_optimizer
from poise.path.training import Training
from poise.rules.rule import Rule

OPTIMIZER_STEPS = 2000
"""Largest number of steps of the optimizer by default."""
QUASI_NEWTON_STEPS = 400
"""Largest number of quasi-Newton steps by default. They reach a lower objective, in a third of the time."""
MEMORY = 8
"""Pairs of differences that a quasi-Newton step uses (Liu and Nocedal 1989 recommend 3 to 20)."""
VECTORS = 2 * MEMORY + 5
"""Vectors of the size of the weights that a lane needs: the pairs, the weights and their trial, the gradient, the
subgradient and the direction."""
LARGEST = 20_000_000
"""Largest number of entries in these vectors."""
PRECISE = ("float32", "float64")


def default_steps(model: keras.Model, rules: Sequence[Rule], training: Training, rows: int | None) -> int:
    """Return the largest number of settling steps for penalties with exact zeros.

    Args:
        model, rules, training, rows: as for `takes_quasi_newton_steps`.
    """
    return QUASI_NEWTON_STEPS if takes_quasi_newton_steps(model, rules, training, rows) else OPTIMIZER_STEPS


def takes_quasi_newton_steps(model: keras.Model, rules: Sequence[Rule], training: Training, rows: int | None) -> bool:
    """Return whether lanes settle by quasi-Newton steps; otherwise by the full-batch steps of their optimizer.

    A quasi-Newton step needs a deterministic objective whose stationary points the update has as well:

    - There are epochs before settling. Without them, the settling steps are the training, and the optimizer takes them.
    - The rows are in memory, and few enough for one batch.
    - The forward pass has no state, draws no random numbers, and computes in float32 or float64.
    - Every penalty is smooth or a sum over entries, such as L1, and the update is `"auto"` or `"proximal"`. The
      optimizer settles `Anchored` penalties, whose start differs between lanes. It also settles penalties of groups:
      there, quasi-Newton steps end at the same objective with fewer zeros, because they shrink one layer and grow the
      next one further than the optimizer does.
    - The optimizer changes the weights only along these forces: it has no weight decay, and no variable has a
      constraint.
    - The vectors of a lane have at most `LARGEST` entries.

    Args:
        model: compiled model.
        rules: rules of the path.
        training: how a lane is trained, its `update` filled in.
        rows: number of rows in memory; None for a stream.
    """
    return (
        training.epochs > 0
        and rows is not None
        and rows <= WHOLE
        and training.update in ("auto", "proximal")
        and all(rule.penalty.has_kinks_only_at_zero for rule in rules)
        and _is_deterministic(model)
        and not inner_optimizer(model).weight_decay
        and not any(variable.constraint is not None for variable in model.trainable_variables)
        and count_numbers(model) <= LARGEST
    )


def count_numbers(model: keras.Model) -> int:
    """Return how many numbers the vectors of a lane have."""
    return VECTORS * sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def _is_deterministic(model: keras.Model) -> bool:
    """Return whether the forward pass is a function of the trained weights, in single precision at least."""
    layers = sublayers(model)
    # The mean and the variance of a normalization of inputs do not change in training.
    constant = {id(v) for layer in layers if isinstance(layer, keras.layers.Normalization) for v in layer.variables}
    has_state = any(id(variable) not in constant for variable in model.non_trainable_variables)
    types = {keras.backend.standardize_dtype(variable.dtype) for variable in model.trainable_variables}
    is_precise = all(layer.compute_dtype in PRECISE for layer in layers)
    return not has_state and is_precise and len(types) == 1 and types <= {*PRECISE}
