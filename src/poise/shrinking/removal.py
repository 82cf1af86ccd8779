"""The removal of chosen units: a growing penalty moves them to zero while the others learn to do without them."""

import warnings
from typing import Any

import keras
import numpy as np

from poise.callbacks import PenalizedCallback
from poise.optimizer.metrics import RareRowsWarning, UnusableStepError, metric_of
from poise.optimizer.penalized import PenalizedOptimizer
from poise.shrinking.training import Trainer
from poise.shrinking.unit_sets import NAME, RemovableUnits

CHECKS = 24
"""How many times the share of zeros is compared with the plan."""
PLAN = 0.75
"""The share of the batches after which all chosen units should be zero."""
GROWTH = 1.5
"""The factor of the strength where too few units are zero."""
SMALLEST_FACTOR = 1e-3
"""The smallest factor of a unit, relative to the median, for units whose gradient is nearly zero."""


class GrowingStrength(PenalizedCallback):
    """Raises the strength of the rule until all chosen units are zero, at a constant number of units per batch.

    Args:
        units: Units of the model that is trained.
        chosen: (sets,) the sets that the rule penalizes.
        batches: Batches of the training.
    """

    def __init__(self, units: RemovableUnits, chosen: np.ndarray, batches: int) -> None:
        super().__init__()
        self._units, self._chosen, self._batches = units, chosen, batches
        self._every = max(batches // CHECKS, 1)
        self._count = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._count += 1
        if self._count % self._every:
            return
        strength = self.penalized.strength  # this also makes Keras on JAX write the weights back to the model
        if self._units.share_of_zeros(self._chosen) < min(self._count / (PLAN * self._batches), 1.0):
            strength[NAME] *= GROWTH


def remove_units(
    units: RemovableUnits, chosen: np.ndarray, gradient_norms: np.ndarray, trainer: Trainer, epochs: int
) -> keras.Model:
    """Train with a group penalty of the chosen units that grows until they are zero, and return the model without them.

    The factor of each unit is the norm of its gradient, and the strength starts at 1: where the penalty and the
    prediction loss are about in balance. The other units are not penalized, and weights do not decay. Chosen units that
    are not zero at the end are removed as well.

    Args:
        units: Units of the model, which is trained and should not be used again.
        chosen: (sets,) the sets to remove.
        gradient_norms: (sets,) norm of the gradient of each set.
        trainer: Trains the model.
        epochs: Epochs of the training; 0 removes the units at once.

    References:
        Wang et al. 2021, "Neural pruning via growing regularization".
    """
    if epochs:
        inner = trainer.make_optimizer(epochs, has_decay=False)
        is_proximal = _has_proximal_step(inner)
        # A decoupled step does not know the gradients: it then moves each weight by about the learning rate.
        sizes = gradient_norms if is_proximal else np.sqrt(units.count_entries())
        floor = SMALLEST_FACTOR * np.median(sizes[units.is_removable])
        rule = units.make_rule(chosen, np.maximum(sizes, floor or 1.0))
        optimizer = PenalizedOptimizer(inner, rule, update="proximal" if is_proximal else "decoupled")
        for variable in units.model.trainable_variables:
            variable.constraint = None  # it would act before the penalty; the layers of the smaller model have it again
        callback = GrowingStrength(units, chosen, epochs * trainer.training.batches)
        with warnings.catch_warnings():
            # Large steps on rare rows do no harm, because the penalized units are removed anyway.
            warnings.simplefilter("ignore", RareRowsWarning)
            trainer.fit(units.model, optimizer, epochs, [callback])
    return units.remove(chosen)


def _has_proximal_step(inner: keras.optimizers.Optimizer) -> bool:
    """Whether a proximal update works: not with an optimizer such as Lion, whose step per weight is not known."""
    try:
        metric_of(inner)
    except UnusableStepError:
        return False
    return True
