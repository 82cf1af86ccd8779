"""The two ways to settle a part of the lanes: steps of the optimizer, and quasi-Newton steps."""

from typing import Any, Protocol

import numpy as np

from poise.path.lanes.evaluate import Measures
from poise.path.lanes.parts import Part
from poise.path.lanes.problem import LaneProblem, LaneState, Task
from poise.path.lanes.programs import PROGRAMS
from poise.path.lanes.settle_quasi_newton import settle_quasi_newton, start_lanes
from poise.path.lanes.sources import DataSource, Span
from poise.path.lanes.state import initial_state
from poise.path.models import first_learning_rate
from poise.path.settling import takes_quasi_newton_steps
from poise.path.training import Training


class Settler(Protocol):
    """Take settling steps. A lane that has settled keeps its weights."""

    needs_residuals: bool
    """Whether `find_settled` needs measures with the residuals."""

    def start(self, task: Task, state: LaneState, anchors: list[np.ndarray]) -> LaneState:
        """Return the state before the first step, in NumPy arrays.

        Args:
            task: lanes.
            state: their state after the epochs.
            anchors: values at which `Anchored` penalties start.
        """
        ...

    def take_steps(self, part: Part, done: np.ndarray, span: Span) -> LaneState:
        """Return the state of a part after more steps.

        Args:
            part: lanes.
            done: (replicas, strengths) whether a lane has settled.
            span: number of the first step, of the one after the last step, and of all settling steps.
        """
        ...

    def count_steps(self, part: Part, taken: np.ndarray, done: np.ndarray, span: Span) -> np.ndarray:
        """Return the steps that each lane has taken since the start.

        Args:
            part: lanes after the steps.
            taken: (replicas, strengths) what this was before the steps.
            done, span: as for `take_steps`.
        """
        ...

    def find_settled(self, part: Part, measures: Measures) -> np.ndarray:
        """Return whether a lane needs no more steps, (replicas, strengths).

        Args:
            part: lanes.
            measures: what `measure_lanes` returns; empty if it is not needed.
        """
        ...


class OptimizerSettler:
    """Settle by full-batch steps of the optimizer, until the residual is small."""

    needs_residuals = True

    def __init__(self, problem: LaneProblem, source: DataSource, training: Training):
        self._problem, self._source, self._training = problem, source, training
        self._rate = first_learning_rate(problem.optimizer.inner_optimizer)

    def start(self, task: Task, state: LaneState, anchors: list[np.ndarray]) -> LaneState:
        inner = initial_state(self._problem, self._problem.settler, anchors, anchors, task).inner
        return LaneState(state.trained, state.fixed, inner)

    def take_steps(self, part: Part, done: np.ndarray, span: Span) -> LaneState:
        return self._source.settle(self._problem, part, done, span, self._rate)

    def count_steps(self, part: Part, taken: np.ndarray, done: np.ndarray, span: Span) -> np.ndarray:
        return taken + np.where(done, 0, span[1] - span[0])

    def find_settled(self, part: Part, measures: Measures) -> np.ndarray:
        is_small = measures["residual"] <= self._training.tolerance * measures["gradient"]
        return is_small | measures["diverged"]


class QuasiNewtonSettler:
    """Settle by quasi-Newton steps. They find out at every step which lanes have settled."""

    needs_residuals = False

    def __init__(self, problem: LaneProblem, source: DataSource, training: Training):
        self._problem, self._source, self._training = problem, source, training

    def start(self, task: Task, state: LaneState, anchors: list[np.ndarray]) -> LaneState:
        return LaneState(state.trained, state.fixed, [start_lanes(state.trained)])

    def take_steps(self, part: Part, done: np.ndarray, span: Span) -> LaneState:
        rows = self._source.train_rows(part.task)
        assert rows is not None
        state: Any = part.state
        strengths = np.asarray(part.task.strengths, state.trained[0].dtype)
        limits = np.array(span[:2], "int32"), np.float32(self._training.tolerance)
        return PROGRAMS.call(
            settle_quasi_newton, self._problem, state, *rows, strengths, part.factors, *limits, donate=(0,)
        )

    def count_steps(self, part: Part, taken: np.ndarray, done: np.ndarray, span: Span) -> np.ndarray:
        return np.asarray(part.state.inner[0].steps)

    def find_settled(self, part: Part, measures: Measures) -> np.ndarray:
        return np.asarray(part.state.inner[0].is_done)


def choose_settler(problem: LaneProblem, source: DataSource, training: Training) -> Settler:
    """Return the way in which lanes settle.

    Args:
        problem: problem of the lanes.
        source: their rows.
        training: how they are trained.
    """
    is_fast = takes_quasi_newton_steps(problem.network.model, problem.optimizer.rules, training, source.rows)
    return (QuasiNewtonSettler if is_fast else OptimizerSettler)(problem, source, training)
