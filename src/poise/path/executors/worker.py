"""The part of an executor that runs JAX: it trains one task after the other."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from poise.path.executors.base import Arrays, Problem, Report
from poise.path.lanes.losses import is_mean_loss
from poise.path.lanes.problem import LaneNetwork, LaneProblem, Task
from poise.path.lanes.problem_key import network_key, optimizer_key
from poise.path.lanes.summary import summarize_chunk
from poise.path.lanes.trainer import LaneTrainer
from poise.path.models import build_optimizer, draw_variables, first_learning_rate, inner_optimizer
from poise.path.training import Replica, Training

AS_FAST = 1.05
"""Chunk sizes within 5% of the fastest time per lane count as equally fast; the largest of them is used."""


class LaneWorker:
    """Train tasks of one problem in this process, on JAX.

    Args:
        problem: problem of the path.

    Raises:
        ValueError: If the loss is neither a mean nor a sum over rows, or the update does not work with the optimizer.
    """

    def __init__(self, problem: Problem):
        self._problem = problem
        self._optimizer = build_optimizer(problem.model, problem.rules, problem.update, problem.resolved)
        few_rows = next(problem.data.passes())[1] if problem.is_stream else problem.data
        key = network_key(problem.model)
        is_mean = is_mean_loss(key, problem.model, few_rows)
        inner = inner_optimizer(problem.model)
        rate = first_learning_rate(inner)
        network = LaneNetwork((key, is_mean), problem.model, is_mean)
        settler = build_optimizer(problem.model, problem.rules, problem.update, problem.resolved, rate)
        steps = optimizer_key(inner, problem.rules, problem.resolved, problem.update)
        self._lanes = LaneProblem(network, (network.key, steps), self._optimizer, settler)
        self._trainers: dict[Training, LaneTrainer] = {}
        self._starts: dict[int, list[np.ndarray]] = {}

    def train(self, task: Task, report: Report | None = None) -> Arrays:
        """Train a task.

        Args:
            task: what to train.
            report: called with the share of it that is done.

        Returns:
            What `summarize_chunk` returns.
        """
        start = time.perf_counter()
        chunk = self._trainer(task.training).run(task, self._starts_of(task), report)
        seconds = (time.perf_counter() - start) / task.lane_numbers.size
        chunk.measures["seconds"] = np.full(task.shape, seconds)
        chunk.measures["failed"] = np.zeros(task.shape, bool)
        return summarize_chunk(self._problem.model, self._optimizer, chunk, task.keeps_weights)

    def fastest_size(self, replica: Replica, training: Training, sizes: Sequence[int]) -> int:
        """Return the chunk size with the least time per lane; if several are equally fast, the largest of them."""
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
                {},
                None,
                [False],
                len(few_rows.train),
                0,
                lanes,
            )
            seconds[lanes] = self._trainer(training).seconds_per_step(task, self._starts_of(task)) / lanes
        return max(lanes for lanes in seconds if seconds[lanes] <= AS_FAST * min(seconds.values()))

    def close(self) -> None:
        """Release the data."""
        for trainer in self._trainers.values():
            trainer.close()
        self._trainers.clear()

    def _trainer(self, training: Training) -> LaneTrainer:
        if training not in self._trainers:
            self._trainers[training] = LaneTrainer(self._lanes, self._problem.data, training)
        return self._trainers[training]

    def _starts_of(self, task: Task) -> list[list[np.ndarray]]:
        """Return the first values of the trained variables of every replica, by its seed."""
        for seed in {replica.seed for replica in task.replicas} - self._starts.keys():
            variables: list[Any] = draw_variables(self._problem.model, seed)
            self._starts[seed] = [np.asarray(variable.value) for variable in variables]
        return [self._starts[replica.seed] for replica in task.replicas]
