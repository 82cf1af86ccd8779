"""Train the lanes of a task: the loop over epochs and settling steps around the compiled functions."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from poise.path.data.streams import Stream
from poise.path.lanes.evaluate import Measures, compile_measures, measure_checkpoint, measure_lanes
from poise.path.lanes.history import History
from poise.path.lanes.length import SMALLEST_STEP, LengthChoice, checkpoints
from poise.path.lanes.parts import KeptWeights, Part, Threads, fills_device, merge_lanes, split_lanes
from poise.path.lanes.predict import predict_held_rows
from poise.path.lanes.problem import ChunkResult, LaneProblem, LaneState, Task
from poise.path.lanes.programs import PROGRAMS
from poise.path.lanes.settlers import choose_settler
from poise.path.lanes.sources import ArraySource, DataSource, StreamSource
from poise.path.lanes.state import initial_state, model_weights, stack_starts
from poise.path.lanes.step import hold_zeros
from poise.path.training import Training

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
        predicted_rows: as in `Problem`. Default: 0.
    """

    def __init__(self, problem: LaneProblem, data: Any, training: Training, predicted_rows: int = 0):
        self._problem = problem
        self._predicted_rows = predicted_rows
        is_whole = problem.network.is_whole_batch
        self._source: DataSource = StreamSource(data) if isinstance(data, Stream) else ArraySource(data, is_whole)
        self._training = training
        self._settler = choose_settler(problem, self._source, training)
        self._threads = Threads()

    def run(self, task: Task, starts: Starts, report: Report | None = None) -> ChunkResult:
        """Train every replica of a task at every strength.

        Args:
            task: what to train.
            starts: first values of the trained variables of every replica.
            report: called with the share of the work that is done.
        """
        training, problem = self._training, self._problem
        anchors = stack_starts(starts)
        total = training.epochs * self._source.steps_per_epoch(task.replicas, training.batch_size)
        progress = _Progress(total * (2 if training.start == "dense" else 1) + (training.settle or 0), report)
        first = anchors
        if training.start == "dense":
            # One lane per replica without the penalty or dropout.
            dense = replace(task.part(slice(0, 1), 1), strengths=0.0 * task.strengths[:1], rates=None, lengths=None)
            state = initial_state(problem, problem.optimizer, anchors, anchors, dense)
            first = [w[:, 0] for w in self._train(dense, state, None, progress)[0].trained]
        state = initial_state(problem, problem.optimizer, first, anchors, task)
        settled, epochs = np.zeros(task.shape, int), None
        predictions = None
        if self._predicted_rows and self._chooses(task):
            predictions = min(self._predicted_rows, task.held_rows), problem.network.model.output_shape[-1]
        history = History(task.shape, len(problem.optimizer.targets), predictions)
        if training.epochs:
            chooses = not training.settle and self._chooses(task)
            state, epochs = self._train(task, state, history if chooses else None, progress)
        length = epochs
        if training.settle:
            state, settled, length = self._settle(task, state, anchors, history, progress)
        parts = self._split(task, LaneState(state.trained, state.fixed, []))
        measured = self._threads.map(lambda part: measure_lanes(problem, self._source, part), parts)
        measures = merge_lanes(parts, measured, task.shape)
        measures |= {"settled": settled, **history.arrays}
        if epochs is not None:
            measures["epochs"] = epochs
        if length is not None:
            measures["length"] = length
        progress.finish()
        return ChunkResult(model_weights(problem, state), measures)

    def close(self) -> None:
        """Release the data. The compiled programs stay, for the next path of the same shapes."""
        self._threads.close()
        del self._source

    def seconds_per_step(self, task: Task, starts: Starts) -> float:
        """Return how long one training step of these lanes takes, without compilation."""
        problem, source, training = self._problem, self._source, self._training
        first = stack_starts(starts)
        state = initial_state(problem, problem.optimizer, first, first, task)
        parts = self._split(task, state)
        seconds = []
        for _ in range(1 + TIMED_EPOCHS):  # the first compiles
            start = time.perf_counter()
            self._set_states(parts, lambda part: source.train(problem, part, training.batch_size, 0))
            jax.block_until_ready([part.state for part in parts])
            seconds.append(time.perf_counter() - start)
        return min(seconds[1:]) / source.steps_per_epoch(task.replicas, training.batch_size)

    def _train(
        self, task: Task, state: LaneState, history: History | None, progress: "_Progress"
    ) -> tuple[LaneState, np.ndarray]:
        """Return the state after the epochs, and how many epochs each lane took, (replicas, strengths).

        With a history, the epochs end where longer training is of no use.
        """
        training = self._training
        parts = self._start(task, state)
        steps = self._source.steps_per_epoch(task.replicas, training.batch_size)
        settles = np.zeros(task.shape[1], bool)
        choice = None if history is None else LengthChoice(task.shape, settles, training.epochs, task.lengths)
        moments, kept = checkpoints(training.epochs), KeptWeights(task.shape, parts[0])
        if not training.settle:
            self._threads.start(lambda: compile_measures(self._problem, self._source, parts[0]))
        for epoch in range(training.epochs):
            active = _active(parts, choice)
            self._set_states(
                active, lambda part, epoch=epoch: self._source.train(self._problem, part, training.batch_size, epoch)
            )
            progress.advance(steps)
            if choice is not None and history is not None and epoch + 1 in moments:
                self._update(choice, kept, history, epoch + 1, task, active)
                if not choice.is_training.any():
                    break
        if choice is None:
            merged = self._merge(task, parts)
            return merged, np.full(task.shape, training.epochs)
        return kept.state, np.broadcast_to(choice.best, task.shape)

    def _settle(
        self, task: Task, state: LaneState, anchors: list[np.ndarray], history: History, progress: "_Progress"
    ) -> tuple[LaneState, np.ndarray, np.ndarray]:
        """Take full-batch steps until every lane has settled, or longer training is of no use, or the steps are over.

        A lane that has settled keeps its weights, whatever the others do.

        Returns:
            The state; the steps that each lane took, and after which it would have stopped at the latest, both
            (replicas, strengths).
        """
        problem, source, settler = self._problem, self._source, self._settler
        total, shape = self._training.settle or 0, task.shape
        parts = self._start(task, settler.start(task, state, anchors))
        segment = max(SEGMENT, PASSES_PER_SEGMENT * source.steps_per_pass(task.replicas))
        residual_moments = {*range(segment, total, segment), total}
        choice = None
        moments = residual_moments
        if self._chooses(task):
            choice = LengthChoice(shape, _settle_on_zeros(problem, task), total, task.lengths)
            moments = residual_moments | {*checkpoints(total, SMALLEST_STEP)} if source.can_split else residual_moments
        taken, done, kept = np.zeros(shape, int), np.zeros(shape, bool), KeptWeights(shape, parts[0])
        before = 0
        self._threads.start(lambda: compile_measures(problem, source, parts[0]))
        for moment in sorted(moments):
            span = (before, moment, total)
            useful = _active(parts, choice)
            active = [part for part in useful if not done[part.lanes].all()]
            self._set_states(active, lambda part, span=span: settler.take_steps(part, done[part.lanes], span))
            for part in active:
                taken[part.lanes] = settler.count_steps(part, taken[part.lanes], done[part.lanes], span)
            progress.advance(moment - before)
            before = moment
            measured: list[Measures] = []
            if choice is not None:
                # Also of parts that have settled: a mean over the folds needs the losses of all of them.
                measured, active = self._update(choice, kept, history, moment, task, useful), useful
                if not choice.is_training.any():
                    break
            if moment in residual_moments and moment < total:
                has_residuals = measured and all("residual" in measures for measures in measured)
                if settler.needs_residuals and not has_residuals:
                    measured = self._threads.map(lambda part: measure_lanes(problem, source, part), active)
                for part, measures in zip(active, measured or [{}] * len(active), strict=True):
                    done[part.lanes] |= settler.find_settled(part, measures)
                if done.all():
                    break
        if choice is None:
            return self._merge(task, parts), taken, np.full(shape, total)
        return kept.state, np.minimum(taken, choice.best), np.broadcast_to(choice.best, shape)

    def _chooses(self, task: Task) -> bool:
        """Return whether lanes stop early; without held-out rows they need the lengths of other lanes for it."""
        holds_rows = any(len(replica.held) for replica in task.replicas)
        return bool(self._training.early_stopping) and (holds_rows or task.lengths is not None)

    def _update(
        self, choice: LengthChoice, kept: KeptWeights, history: History, length: int, task: Task, active: list[Part]
    ) -> list[Measures]:
        """Measure the active parts at a checkpoint, keep the best weights so far, and return the measures."""
        if not choice.needs_losses:
            is_best, measured = choice.update(length, None), list[Measures]()
        else:
            measured = self._threads.map(self._measure_checkpoint, active)
            losses, fits, live = (np.full(task.shape, np.nan) for _ in range(3))
            for part, measures in zip(active, measured, strict=True):
                losses[part.lanes] = measures["held_loss"]
                fits[part.lanes] = measures.get("loss", np.nan)
                live[part.lanes] = measures["live"]
                history.note(length, part, measures)
            is_best = choice.update(length, losses, fits, live)
        self._threads.map(lambda part: kept.keep(part, is_best), active)
        return measured

    def _measure_checkpoint(self, part: Part) -> Measures:
        measures, count = measure_checkpoint(self._problem, self._source, part), self._predicted_rows
        measures["live"] = _count_live(self._problem, part)
        if not count:
            return measures
        count = min(count, part.task.held_rows)
        return {**measures, "predictions": predict_held_rows(self._problem.network, self._source.inputs, part, count)}

    def _merge(self, task: Task, parts: list[Part]) -> LaneState:
        states = [LaneState(part.state.trained, part.state.fixed, []) for part in parts]
        return merge_lanes(parts, states, task.shape)

    def _set_states(self, parts: list[Part], function: Callable[[Part], LaneState]) -> None:
        for part, state in zip(parts, self._threads.map(function, parts), strict=True):
            part.state = state

    def _start(self, task: Task, state: LaneState) -> list[Part]:
        """Return the parts of a task; weights that are held at zero take no part in the first step either."""
        parts = self._split(task, state)
        if any(np.isinf(factors).any() for factors in task.factors.values()):
            for part in parts:
                trained = PROGRAMS.call(hold_zeros, self._problem, part.state.trained, part.factors)
                part.state = LaneState(trained, part.state.fixed, part.state.inner)
        return parts

    def _split(self, task: Task, state: LaneState) -> list[Part]:
        return split_lanes(task, state, fills_device() or not self._source.can_split)


class _Progress:
    """The share of the steps of a task that are done."""

    def __init__(self, total: int, report: Report | None) -> None:
        self._total, self._report, self._done = max(total, 1), report, 0

    def advance(self, steps: int) -> None:
        self._done += steps
        if self._report is not None:
            self._report(min(self._done / self._total, 1.0))

    def finish(self) -> None:
        if self._report is not None:
            self._report(1.0)


def _active(parts: list[Part], choice: LengthChoice | None) -> list[Part]:
    """Return the parts with strengths for which longer training may be of use."""
    return parts if choice is None else [part for part in parts if choice.is_training[part.columns].any()]


def _settle_on_zeros(problem: LaneProblem, task: Task) -> np.ndarray:
    """Return (strengths,) whether a penalty sets weights to exactly zero."""
    targets = [problem.optimizer.targets[position] for position in problem.zero_targets]
    rules = {number for target in targets for number, penalty in target.proximal if not penalty.smooth}
    return np.any(task.strengths[:, sorted(rules)] > 0, axis=1)


def _count_live(problem: LaneProblem, part: Part) -> np.ndarray:
    """Return (replicas, strengths) the number of nonzero weights, of those that a penalty can set to zero."""
    live = np.zeros(part.task.shape)
    for at in problem.zero_targets:
        for member in problem.optimizer.targets[at].members:
            live += [[np.count_nonzero(lane) for lane in lanes] for lanes in np.asarray(part.state.trained[member])]
    return live
