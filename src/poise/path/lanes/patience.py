"""Early stopping lane by lane."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops, tree

from poise.path.lanes.problem import LaneState


class EarlyStopping:
    """The best weights of each lane by its held-out loss (`Training(patience=...)`).

    Args:
        shape: (replicas, strengths).
        patience: epochs without a lower held-out loss after which a lane stops.
        held_losses: returns the held-out losses of a state, (replicas, strengths).
        epoch_limits: (strengths,) epochs after which a lane stops if it has no held-out rows; None to use the losses.

    Attributes:
        best: trained and fixed values of the best epoch of each lane.
        best_epochs: (replicas, strengths) its number.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        patience: int,
        held_losses: Callable[[LaneState], np.ndarray],
        epoch_limits: np.ndarray | None,
    ):
        self._held_losses, self._patience = held_losses, patience
        self._limits = None if epoch_limits is None else np.broadcast_to(epoch_limits, shape)
        self._loss = np.full(shape, np.inf)
        self._is_training = np.ones(shape, bool)
        self.best_epochs = np.zeros(shape, int)
        self.best: Any = None

    def update(self, state: LaneState, epoch: int) -> bool:
        """Note the state after `epoch` epochs; return whether all lanes have stopped."""
        if self._limits is None:
            losses = self._held_losses(state)
            is_better = self._is_training & (losses < self._loss)
            self._loss = np.where(is_better, losses, self._loss)
        else:
            is_better = self._limits == epoch
        self.best_epochs = np.where(is_better, epoch, self.best_epochs)
        last = self._limits if self._limits is not None else self.best_epochs + self._patience
        self._is_training &= epoch < last
        values = (state.trained, state.fixed)
        # A copy, because the next epoch reuses the memory of the state.
        self.best = (
            tree.map_structure(ops.copy, values) if self.best is None else choose_lanes(is_better, values, self.best)
        )
        return not self._is_training.any()


def choose_lanes(condition: Any, if_true: Any, if_false: Any) -> Any:
    """Return `if_true` for the lanes where the condition holds, (replicas, strengths), `if_false` for the others."""

    def choose(a: Any, b: Any) -> Any:
        return ops.where(ops.reshape(condition, condition.shape + (1,) * (a.ndim - 2)), a, b)

    return tree.map_structure(choose, if_true, if_false)
