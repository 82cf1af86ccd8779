"""The lanes of a path as data: their state, the problem that they share, and the task of one chunk.

A *lane* is one training: its weights, the state of its layers and of its optimizer, in which its strength is a variable
like any other. All lanes run the same program on other numbers, so that `vmap` trains them side by side: inside over
the strengths of a replica, which share their batches, so that the first layer is one matrix product for all of them;
outside over the replicas, which train on other rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np

from poise.optimizer.penalized import PenalizedOptimizer
from poise.path.training import Replica, Training

Factors = dict[tuple[int, int], Any]
"""By (index of a target, number of a rule) the factors of its penalty, (replicas, strengths, groups or *shape)."""


class LaneState(NamedTuple):
    """Values of all variables of some lanes, each (replicas, strengths, *shape).

    Attributes:
        trained: values of the model's trainable variables.
        fixed: values of its other variables.
        inner: values of the optimizer's variables; empty once training is done.
    """

    trained: list[Any]
    fixed: list[Any]
    inner: list[Any]


@dataclass(frozen=True, eq=False)
class LaneProblem:
    """Everything static about the lanes of one model: a static argument of the compiled functions.

    Attributes:
        model: compiled Keras model on the backend JAX; it is never changed.
        optimizer: optimizer of the epochs, built for the model's trainable variables.
        settler: the same optimizer with the learning rates of settling, built likewise.
        is_mean: whether the loss is a mean over rows (see `is_mean_loss`).
    """

    model: keras.Model
    optimizer: PenalizedOptimizer
    settler: PenalizedOptimizer
    is_mean: bool

    @property
    def variables(self) -> list[Any]:
        """The variables whose values are `LaneState.trained` and `LaneState.fixed`."""
        return [*self.model.trainable_variables, *self.model.non_trainable_variables]

    def scope(self, trained: list[Any], fixed: list[Any]) -> keras.StatelessScope:
        """Return a scope in which the model has the values of one lane."""
        pairs = [*zip(self.variables, [*trained, *fixed], strict=True)]
        return keras.StatelessScope(pairs, collect_losses=True)


@dataclass(frozen=True, eq=False)
class Task:
    """One chunk of lanes to train: replicas with equally many steps in an epoch, at some strengths.

    Attributes:
        training: how the lanes are trained, its `settle` a number.
        replicas: rows that they train on and that judge them.
        lane_numbers: (replicas, strengths) an integer per lane, of which its dropout is a function.
        strengths: (strengths, rules) float64.
        factors: factors of the penalties; empty for those that the rules have.
        epoch_limits: (strengths,) epochs after which a lane stops if it has no held-out rows; None without patience.
        keeps_weights: per replica whether the path keeps its weights.
    """

    training: Training
    replicas: list[Replica]
    lane_numbers: np.ndarray
    strengths: np.ndarray
    factors: Mapping[tuple[int, int], np.ndarray]
    epoch_limits: np.ndarray | None
    keeps_weights: list[bool]

    @property
    def shape(self) -> tuple[int, int]:
        """(replicas, strengths)."""
        replicas, strengths = self.lane_numbers.shape
        return replicas, strengths

    def part(self, part: slice, axis: int) -> "Task":
        """Return the task of some of the replicas (axis 0) or of the strengths (axis 1)."""
        both = (slice(None), part) if axis else (part, slice(None))
        task = replace(
            self,
            lane_numbers=self.lane_numbers[both],
            factors={key: value[both] for key, value in self.factors.items()},
        )
        if axis:
            limits = None if self.epoch_limits is None else self.epoch_limits[part]
            return replace(task, strengths=self.strengths[part], epoch_limits=limits)
        return replace(task, replicas=self.replicas[part], keeps_weights=self.keeps_weights[part])


@dataclass(eq=False)
class ChunkResult:
    """A trained chunk, the leading axes being (replicas, strengths).

    Attributes:
        weights: the model's weights, in the order of `model.weights`.
        measures: by name what was measured.
    """

    weights: list[np.ndarray]
    measures: dict[str, np.ndarray]
