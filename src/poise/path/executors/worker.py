"""The part of an executor that runs JAX: it trains one task after the other."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from poise.path.executors.base import Arrays, Problem, Report
from poise.path.lanes.common_penalty import find_common_form
from poise.path.lanes.losses import is_mean_loss
from poise.path.lanes.parts import fills_device
from poise.path.lanes.problem import ChunkResult, LaneNetwork, LaneProblem, Task, find_zero_targets
from poise.path.lanes.problem_key import network_key, optimizer_key
from poise.path.lanes.summary import summarize_chunk
from poise.path.lanes.trainer import LaneTrainer
from poise.path.models import build_optimizer, draw_variables, first_learning_rate, inner_optimizer
from poise.path.reduction import InputReduction
from poise.path.training import Replica, Training

AS_FAST = 1.05
"""Chunk sizes within 5% of the fastest time per lane count as equally fast; the largest of them is used."""


class LaneWorker:
    """Train tasks of one problem in this process, on JAX.

    Args:
        problem: problem of the path.
        is_mean: whether the loss is a mean over rows. Default: `None`, which tests it.

    Raises:
        ValueError: If the loss is neither a mean nor a sum over rows, or the update does not work with the optimizer.
    """

    def __init__(self, problem: Problem, is_mean: bool | None = None):
        self._problem = problem
        self._optimizer = build_optimizer(problem.model, problem.rules, problem.update, problem.resolved)
        key = network_key(problem.model)
        if is_mean is None:
            few_rows = next(problem.data.passes())[1] if problem.is_stream else problem.data
            is_mean = is_mean_loss(key, problem.model, few_rows)
        inner = inner_optimizer(problem.model)
        rate = first_learning_rate(inner)
        network = LaneNetwork((key, is_mean), problem.model, is_mean)
        # Networks with custom code share no programs, whatever their penalties are.
        form = self._form = None if type(key) is object else find_common_form(problem, self._optimizer)
        rules, resolved = (problem.rules, problem.resolved) if form is None else (form.rules, form.resolved)
        optimizer = build_optimizer(problem.model, rules, problem.update, resolved)
        settler = build_optimizer(problem.model, rules, problem.update, resolved, rate)
        self._lanes = LaneProblem(
            network, (network.key, optimizer_key(optimizer)), optimizer, settler,
            find_zero_targets(self._optimizer),
        )  # fmt: skip
        self._trainers: dict[Training, LaneTrainer] = {}
        self._starts: dict[int, list[np.ndarray]] = {}
        self._reduction = InputReduction(problem, self._optimizer.targets)
        self._reduced: tuple[np.ndarray, LaneWorker | None] | None = None

    def train(self, task: Task, report: Report | None = None) -> Arrays:
        """Train a task.

        Args:
            task: what to train.
            report: called with the share of it that is done.

        Returns:
            What `summarize_chunk` returns.
        """
        start = time.perf_counter()
        chunk = self._train_chunk(task, report)
        seconds = (time.perf_counter() - start) / task.lane_numbers.size
        chunk.measures["seconds"] = np.full(task.shape, seconds)
        chunk.measures["failed"] = np.zeros(task.shape, bool)
        return summarize_chunk(self._problem.model, self._optimizer, chunk, task.keeps_weights)

    def fastest_size(self, replica: Replica, training: Training, sizes: Sequence[int]) -> int:
        """Return the chunk size with the least time per lane; if several are equally fast, the largest of them."""
        if not fills_device():  # the cache of a processor holds no state of this size, not even of one lane
            return min(sizes)
        training = replace(training, start="fresh")
        few_rows = replace(replica, train=replica.train[: 3 * (training.batch_size or len(replica.train))])
        seconds = {}
        for lanes in sorted(sizes):
            strengths = np.repeat(self._problem.strength_ratios[None], lanes, 0)
            task = Task(
                training,
                [few_rows],
                np.zeros((1, lanes), int),
                strengths,
                None,
                {},
                None,
                [False],
                len(few_rows.train),
                0,
                lanes,
            )
            task = self._translate(task)
            seconds[lanes] = self._trainer(training).seconds_per_step(task, self._starts_of(task)) / lanes
        return max(lanes for lanes in seconds if seconds[lanes] <= AS_FAST * min(seconds.values()))

    def close(self) -> None:
        """Release the data."""
        for trainer in self._trainers.values():
            trainer.close()
        self._trainers.clear()
        if self._reduced is not None and self._reduced[1] is not None:
            self._reduced[1].close()
        self._reduced = None

    def _train_chunk(self, task: Task, report: Report | None) -> ChunkResult:
        starts, inputs = self._starts_of(task), task.inputs
        smaller = None if inputs is None else self._reduced_worker(inputs)
        if smaller is None or inputs is None:
            return self._trainer(task.training).run(self._translate(task), starts, report)
        factors = self._reduction.reduce_factors(task.factors, inputs)
        starts = [self._reduction.reduce_starts(values, inputs) for values in starts]
        chunk = smaller._trainer(task.training).run(replace(task, factors=factors, inputs=None), starts, report)
        return ChunkResult(self._reduction.expand_weights(chunk.weights, inputs), chunk.measures)

    def _reduced_worker(self, inputs: np.ndarray) -> "LaneWorker | None":
        """Return the worker of a stage without the other inputs; None if the model cannot be rebuilt without them."""
        if self._reduced is None or not np.array_equal(self._reduced[0], inputs):
            if self._reduced is not None and self._reduced[1] is not None:
                self._reduced[1].close()
            try:
                worker = LaneWorker(self._reduction.reduce_problem(inputs), self._lanes.network.is_mean)
            except (TypeError, ValueError):  # such as a custom layer without a configuration
                worker = None
            self._reduced = inputs, worker
        return self._reduced[1]

    def _translate(self, task: Task) -> Task:
        return task if self._form is None else self._form.translate(task)

    def _trainer(self, training: Training) -> LaneTrainer:
        if training not in self._trainers:
            self._trainers[training] = LaneTrainer(
                self._lanes, self._problem.data, training, self._problem.predicted_rows
            )
        return self._trainers[training]

    def _starts_of(self, task: Task) -> list[list[np.ndarray]]:
        """Return the first values of the trained variables of every replica, by its seed."""
        for seed in {replica.seed for replica in task.replicas} - self._starts.keys():
            variables: list[Any] = draw_variables(self._problem.model, seed)
            self._starts[seed] = [np.asarray(variable.value) for variable in variables]
        return [self._starts[replica.seed] for replica in task.replicas]
