"""The lanes of a path as data: their state, the problem that they share, and the task of one chunk.

A *lane* is one training: its weights, the state of its layers and of its optimizer, in which its strength is a variable
like any other. All lanes run the same program on other numbers, so that `vmap` trains them side by side: inside over
the strengths of a replica, which share their batches, so that the first layer is one matrix product for all of them;
outside over the replicas, which train on other rows.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np

from poise._keras_internals import learning_rate_or_schedule
from poise.optimizer.penalized import PenalizedOptimizer
from poise.path.models import is_whole_batch
from poise.path.training import Replica, Training

Factors = dict[tuple[int, int], Any]
"""By (index of a target, number of a rule) the factors of its penalty, (replicas, strengths, groups or *shape)."""


class LaneState(NamedTuple):
    """Values of all variables of some lanes, each (replicas, strengths, *shape).

    Attributes:
        trained: values of the model's trainable variables.
        fixed: values of its other variables.
        inner: values of the optimizer's variables; during quasi-Newton settling a list with one `Search`; empty after
            training.
    """

    trained: list[Any]
    fixed: list[Any]
    inner: list[Any]


@dataclass(frozen=True, eq=False)
class LaneNetwork:
    """The forward pass and the loss of the lanes: a constant of the programs that evaluate them.

    Attributes:
        key: `network_key` of the model: networks with equal keys share their programs.
        model: Compiled Keras model on the backend JAX; it is never changed.
        is_mean: Whether the loss is a mean over rows (see `is_mean_loss`).
    """

    key: Hashable
    model: keras.Model
    is_mean: bool

    @property
    def is_whole_batch(self) -> bool:
        """Whether the loss compares the rows of a batch, so that only batches of all rows make sense."""
        return is_whole_batch(self.model)

    @property
    def variables(self) -> list[Any]:
        """The variables whose values are `LaneState.trained` and `LaneState.fixed`."""
        return [*self.model.trainable_variables, *self.model.non_trainable_variables]

    def scope(self, trained: list[Any], fixed: list[Any]) -> keras.StatelessScope:
        """Return a scope in which the model has the values of one lane."""
        pairs = [*zip(self.variables, [*trained, *fixed], strict=True)]
        return keras.StatelessScope(pairs, collect_losses=True)


@dataclass(frozen=True, eq=False)
class LaneProblem:
    """Everything static about the lanes of one model: a constant of the programs that train them.

    Attributes:
        network: Forward pass and loss.
        key: `network_key` and `optimizer_key`: problems with equal keys share their programs.
        optimizer: Optimizer of the epochs, built for the model's trainable variables.
        settler: The same optimizer with a learning rate that settling sets at every step, built likewise.
        zero_targets: Positions of the targets in which the penalties of this path set weights to exactly zero. The
            compiled programs do not depend on them.
    """

    network: LaneNetwork
    key: Hashable
    optimizer: PenalizedOptimizer
    settler: PenalizedOptimizer
    zero_targets: Sequence[int]

    @property
    def rate_position(self) -> int:
        """Position of the learning rate among the settler's variables."""
        rate = learning_rate_or_schedule(self.settler.inner_optimizer)
        return next(number for number, variable in enumerate(self.settler.variables) if variable is rate)


def find_zero_targets(optimizer: PenalizedOptimizer) -> list[int]:
    """Return the positions of the targets in which a penalty sets weights to exactly zero."""
    return [
        position
        for position, target in enumerate(optimizer.targets)
        if any(not penalty.smooth for _, penalty in target.proximal)
    ]


@dataclass(frozen=True, eq=False)
class Task:
    """One chunk of lanes to train: replicas with equally many steps in an epoch, at some strengths.

    Attributes:
        training: how the lanes are trained, its `settle` a number.
        replicas: rows that they train on and that judge them.
        lane_numbers: (replicas, strengths) an integer per lane, of which its dropout is a function.
        strengths: (strengths, rules) float64.
        rates: (strengths,) float64, the rates of the model's `LaneDropout` layers; None if it has none.
        factors: factors of the penalties; empty for those that the rules have.
        lengths: (strengths,) epochs or settling steps of lanes without held-out rows, as the folds chose them; None to
            train to the end or to let the held-out losses choose.
        keeps_weights: per replica whether the path keeps its weights.
        batch_rows: rows of a full batch; replicas with fewer training rows are padded, so that they share programs.
        held_rows: held-out rows to which replicas are padded.
        width: strengths of a part (see `poise.path.chunks`).
        inputs: positions of the inputs to train; the weights of the others are held at zero in every lane of the path.
            None: all inputs.
    """

    training: Training
    replicas: list[Replica]
    lane_numbers: np.ndarray
    strengths: np.ndarray
    rates: np.ndarray | None
    factors: Mapping[tuple[int, int], np.ndarray]
    lengths: np.ndarray | None
    keeps_weights: list[bool]
    batch_rows: int
    held_rows: int
    width: int
    inputs: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(replicas, strengths)."""
        replicas, strengths = self.lane_numbers.shape
        return replicas, strengths

    def part(self, part: slice | np.ndarray, axis: int) -> "Task":
        """Return the task of some of the replicas (axis 0, a slice) or of the strengths (axis 1)."""
        both: Any = (slice(None), part) if axis else (part, slice(None))
        task = replace(
            self,
            lane_numbers=self.lane_numbers[both],
            factors={key: value[both] for key, value in self.factors.items()},
        )
        if axis:
            rates, lengths = (None if each is None else each[part] for each in (self.rates, self.lengths))
            return replace(task, strengths=self.strengths[part], rates=rates, lengths=lengths)
        assert isinstance(part, slice)
        return replace(task, replicas=self.replicas[part], keeps_weights=self.keeps_weights[part])


@dataclass(eq=False)
class ChunkResult:
    """A trained chunk, the leading axes being (replicas, strengths).

    Attributes:
        weights: the model's weights, in the order of `model.weights`.
        measures: by name what was measured; `length` is the epochs or steps that `Task.lengths` are in.
    """

    weights: list[np.ndarray]
    measures: dict[str, np.ndarray]
