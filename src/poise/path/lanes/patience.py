"""Stopping a lane early, and choosing lane by lane between two states."""

from typing import Any

import numpy as np
from keras import ops, tree


class Keeper:
    """The best weights that each lane has had, judged by the rows held out (`Training(patience=...)`).

    Where nothing is held out, `limits` says per strength after how many epochs a lane stops.
    """

    def __init__(self, program, replicas, shape, patience, limits):
        self._program, self._replicas, self._patience = program, replicas, patience
        self._limits = None if limits is None else np.broadcast_to(limits, shape)
        self._loss = np.full(shape, np.inf)
        self._is_waiting = np.ones(shape, bool)
        self.best_epochs = np.zeros(shape, int)
        self.best: Any = None

    def is_through(self, state, epoch) -> bool:
        """Notes the lanes after so many epochs; returns whether all of them have stopped."""
        if self._limits is None:
            losses = self._program.held_losses(state, self._replicas)
            better = self._is_waiting & (losses < self._loss)
            self._loss = np.where(better, losses, self._loss)
        else:
            better = self._limits == epoch
        self.best_epochs = np.where(better, epoch, self.best_epochs)
        last = self._limits if self._limits is not None else self.best_epochs + self._patience
        self._is_waiting &= epoch < last
        # A copy, since the next epoch takes the state's memory.
        self.best = (
            tree.map_structure(ops.copy, state[:2]) if self.best is None else chosen(better, state[:2], self.best)
        )
        return not self._is_waiting.any()


def chosen(condition, new, old):
    """`new` for the lanes where the condition holds, (replicas, strengths), and `old` for the others."""

    def choice(new, old):
        return ops.where(ops.reshape(condition, condition.shape + (1,) * (new.ndim - 2)), new, old)

    return tree.map_structure(choice, new, old)
