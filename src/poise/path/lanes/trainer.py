"""Train chunks of lanes: the loop over epochs, early stopping and settling around the compiled functions."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from poise.path.data.batches import batches_of
from poise.path.data.streams import Stream
from poise.path.lanes.compile_ahead import CompileAhead
from poise.path.lanes.evaluate import (
    evaluate_held_rows,
    evaluate_penalties,
    evaluate_rows,
    measure_held_losses,
    measure_lanes,
)
from poise.path.lanes.patience import EarlyStopping
from poise.path.lanes.problem import ChunkResult, Factors, LaneProblem, LaneState, Task
from poise.path.lanes.settle import settle_segment
from poise.path.lanes.sources import ArraySource, DataSource, StreamSource
from poise.path.lanes.state import device_factors, initial_state, model_weights, place_state, stack_starts
from poise.path.lanes.step import train_batch, train_epoch
from poise.path.lanes.threads import Threads, count_parts, first_part, merge_strengths, split_strengths
from poise.path.training import Training

COMPILED: tuple[Any, ...] = (
    train_epoch, train_batch, settle_segment, evaluate_rows, evaluate_penalties, evaluate_held_rows,
)  # fmt: skip
"""All functions that JAX compiles for lanes."""
SEGMENT = 100
"""Settling steps between two measurements of the residuals."""
PASSES_PER_SEGMENT = 10
"""A measurement takes a pass over all rows, and settling at least this many passes before the next one."""
TIMED_EPOCHS = 3
"""Epochs that are timed, of which the fastest counts."""

Starts = list[list[np.ndarray]]
"""Per replica the first values of the trained variables."""
Report = Callable[[float], None]


class LaneTrainer:
    """Train the lanes of one problem on one table or stream, all by the same `Training`.

    Args:
        problem: problem of the lanes.
        data: (x, y, sample_weight or None), structures of arrays that share their first axis; or a `Stream`.
        training: how a lane is trained; its `settle` is a number.
    """

    def __init__(self, problem: LaneProblem, data: Any, training: Training):
        self._problem = problem
        self._source: DataSource = StreamSource(data) if isinstance(data, Stream) else ArraySource(data)
        self._training = training
        self._settling_steps = training.settle or 0
        self._compiler = CompileAhead()
        self._threads = Threads()

    def run(self, task: Task, starts: Starts, report: Report | None = None) -> ChunkResult:
        """Train every replica of a task at every strength.

        Args:
            task: what to train.
            starts: first values of the trained variables of every replica.
            report: called with the share of the work that is done.
        """
        training, problem = self._training, self._problem
        anchors, factors = stack_starts(starts), device_factors(task.factors)
        epochs = training.epochs * (2 if training.start == "dense" else 1)
        steps = self._source.steps_per_epoch(task.replicas, training.batch_size)
        advance = _progress(epochs * steps + self._settling_steps, report)
        first = anchors
        if training.start == "dense":
            # One lane per replica without the penalty.
            dense = initial_state(
                problem, problem.optimizer, anchors, anchors, task.lane_numbers[:, :1], 0.0 * task.strengths[:1]
            )
            dense_factors = {key: value[:, :1] for key, value in factors.items()}
            trained = self._train(task, place_state(dense), dense_factors, steps, advance).trained
            first = [w[:, 0] for w in trained]
        stopping = None
        if training.patience:
            held_losses = functools.partial(
                measure_held_losses, self._compiler, problem, self._source, replicas=task.replicas
            )
            stopping = EarlyStopping(task.shape, training.patience, held_losses, task.epoch_limits)
        state = initial_state(problem, problem.optimizer, first, anchors, task.lane_numbers, task.strengths)
        state = self._train(task, place_state(state), factors, steps, advance, stopping)
        # Free the optimizer's variables to save memory.
        trained, fixed = (state.trained, state.fixed) if stopping is None else stopping.best
        state, settled, measures = self._settle(task, LaneState(trained, fixed, []), anchors, factors, advance)
        measures["settled"] = settled
        if stopping is not None:
            measures["epochs"] = stopping.best_epochs
        return ChunkResult(model_weights(problem, state), measures)

    def prepare(self, task: Task, starts: Starts) -> None:
        """Start to compile what `run` will call for this task, in that order. A stream is not read for it."""
        if not isinstance(self._source, ArraySource):
            return
        problem, source, training = self._problem, self._source, self._training
        first, shape = stack_starts(starts), task.shape
        factors = {key: np.asarray(value, "float32") for key, value in task.factors.items()}
        state = initial_state(problem, problem.optimizer, first, first, task.lane_numbers, task.strengths)
        if training.epochs:
            batches = batches_of(task.replicas, training.batch_size, 0)
            count = 1 if training.patience else self._parts(shape)
            part, part_factors = first_part((state, factors), count)
            self._compiler.compile(train_epoch, problem, part, source.data, *batches, part_factors)
        segment = self._segment(task)

        def prepare_settling(steps: int) -> None:
            inner = initial_state(problem, problem.settler, first, first, task.lane_numbers, task.strengths)
            part, part_factors, done = first_part((inner, factors, np.zeros(shape, bool)), self._parts(shape))
            batches = source.settling_batches(task.replicas, 0, steps)
            self._compiler.compile(settle_segment, problem, part, source.data, *batches, part_factors, done)

        if self._settling_steps:
            prepare_settling(min(segment, self._settling_steps))
        trained, fixed, own_factors = jax.tree.map(lambda a: a[:1], (state.trained, state.fixed, factors))
        rows, masks = next(source.blocks(task.replicas))
        counted = {name: (mask[:1], np.int64(0)) for name, mask in masks.items()}
        strengths = np.asarray(task.strengths, "float32")
        self._compiler.compile(evaluate_rows, problem, trained, fixed, rows, counted)
        self._compiler.compile(evaluate_penalties, problem, trained, trained, strengths, own_factors)
        if self._settling_steps > segment and self._settling_steps % segment:
            prepare_settling(self._settling_steps % segment)

    def close(self) -> None:
        """Release the data and everything that was compiled.

        JAX keeps the traces of a function, and with them the problem and what was compiled, as long as the process
        lives. About ten studies in one process would reach Linux's limit of 65,530 memory maps. The programs of other
        problems are released as well, and are compiled again when they are called.
        """
        self._compiler.close()
        self._threads.close()
        del self._source
        for function in COMPILED:
            function.clear_cache()

    def seconds_per_step(self, task: Task, starts: Starts) -> float:
        """Return how long one training step of these lanes takes, without compilation."""
        problem, source = self._problem, self._source
        first, factors = stack_starts(starts), device_factors(task.factors)
        state = place_state(initial_state(problem, problem.optimizer, first, first, task.lane_numbers, task.strengths))
        count = self._parts(task.shape)
        states, parts = split_strengths(state, count), split_strengths(factors, count)
        train = functools.partial(
            source.train, self._compiler, problem, replicas=task.replicas, batch_size=self._training.batch_size, epoch=0
        )
        seconds = []
        for _ in range(1 + TIMED_EPOCHS):  # the first compiles
            start = time.perf_counter()
            states = jax.block_until_ready(self._threads.map(train, states, parts))
            seconds.append(time.perf_counter() - start)
        return min(seconds[1:]) / source.steps_per_epoch(task.replicas, self._training.batch_size)

    def _train(
        self,
        task: Task,
        state: LaneState,
        factors: Factors,
        steps: int,
        advance: Callable[[int], None],
        stopping: EarlyStopping | None = None,
    ) -> LaneState:
        """Return the state after the epochs."""
        strengths = state.trained[0].shape[1]
        # Early stopping looks at all lanes after every epoch.
        count = 1 if stopping else self._parts(state.trained[0].shape[:2])
        states, parts = split_strengths(state, count), split_strengths(factors, count)
        for epoch in range(self._training.epochs):
            train = functools.partial(
                self._source.train, self._compiler, self._problem,
                replicas=task.replicas, batch_size=self._training.batch_size, epoch=epoch,
            )  # fmt: skip
            states = self._threads.map(train, states, parts)
            advance(steps)
            if stopping is not None and stopping.update(states[0], epoch + 1):
                break
        return merge_strengths(states, strengths)

    def _settle(
        self,
        task: Task,
        state: LaneState,
        anchors: list[np.ndarray],
        factors: Factors,
        advance: Callable[[int], None],
    ) -> tuple[LaneState, np.ndarray, dict[str, np.ndarray]]:
        """Take full-batch steps until every residual is small, or the number of steps is reached.

        A lane that has settled keeps its state, whatever the others do.

        Returns:
            The state; the steps that each lane took, (replicas, strengths); what is measured at the end.
        """
        problem, source, shape = self._problem, self._source, task.shape
        taken, done = np.zeros(shape, int), np.zeros(shape, bool)

        def measure() -> dict[str, np.ndarray]:
            return measure_lanes(self._compiler, problem, source, state, task.replicas, task.strengths, factors)

        if not self._settling_steps:
            return state, taken, measure()
        first_state = initial_state(problem, problem.settler, anchors, anchors, np.zeros(shape, int), task.strengths)
        state = LaneState(state.trained, state.fixed, place_state(first_state.inner))
        count, segment = self._parts(shape), self._segment(task)
        measures: dict[str, np.ndarray] = {}
        for first in range(0, self._settling_steps, segment):
            steps = min(segment, self._settling_steps - first)
            parts = (split_strengths(tree, count) for tree in (state, factors, done))
            settle = functools.partial(
                source.settle, self._compiler, problem, replicas=task.replicas, first=first, steps=steps
            )
            state = merge_strengths(self._threads.map(settle, *parts), shape[1])
            taken += np.where(done, 0, steps)
            advance(steps)
            measures = measure()
            is_small = measures["residual"] <= self._training.tolerance * measures["gradient"]
            done = done | is_small | measures["diverged"]
            if done.all():
                break
        return state, taken, measures

    def _segment(self, task: Task) -> int:
        """Return the number of settling steps between two measurements."""
        return max(SEGMENT, PASSES_PER_SEGMENT * self._source.steps_per_pass(task.replicas))

    def _parts(self, shape: tuple[int, int]) -> int:
        """Return the number of parts into which to split the strengths for threads."""
        if not self._source.can_split_strengths:
            return 1
        variables = [*self._problem.model.weights, *self._problem.optimizer.variables]
        return count_parts(shape, sum(int(np.prod(v.shape)) for v in variables))


def _progress(total: int, report: Report | None) -> Callable[[int], None]:
    """Return a function that takes a number of further steps and reports the finished share of `total`."""
    done = 0

    def advance(steps: int) -> None:
        nonlocal done
        done += steps
        if report is not None:
            report(min(done / max(total, 1), 1.0))

    return advance
