"""Train replicas at strengths: plan the chunks, have an executor train them, and put their lanes together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from poise.path.chunks import Chunk, ChunkLimits, lane_number, part_width, plan_chunks
from poise.path.data.folds import full_replicas
from poise.path.executors.base import Arrays, Executor, Problem, Report
from poise.path.executors.checkpoints import Checkpoint
from poise.path.lanes.problem import Task
from poise.path.models import build_optimizer, count_outputs, draw_variables, is_whole_batch
from poise.path.reduction import InputReduction
from poise.path.settling import count_numbers, takes_quasi_newton_steps
from poise.path.stages import target_names
from poise.path.training import Lanes, Replica, Training

MEASURES = [
    *("loss", "held_loss", "penalty", "residual", "gradient", "zeros", "units", "settled", "epochs"),
    *("diverged", "failed", "is_empty", "seconds"),
]
"""The columns of `Lanes.table`, besides fold, seed and strength."""


PADDED_ROWS, PADDED_WORK = 1000, 1_000_000
"""Up to so many rows, and up to so many rows times trained weights, padding a fold to all rows takes less time than
compiling a second program."""


class LaneRunner:
    """Train the lanes of one problem.

    Args:
        problem: problem of the path.
        replicas: rows of every family of lanes.
        training: how a lane is trained, its `settle` a number.
        start_executor: returns an executor for the problem; it is called before the first chunk is trained.
        checkpoint: keeps the finished chunks; None if there is none.
        strengths: number of strengths of the grid; None: as many as are trained at first.

    Attributes:
        targets: targets of the penalties.

    Raises:
        ValueError: If the update does not work with the optimizer, or new initial weights cannot be drawn.
    """

    def __init__(
        self,
        problem: Problem,
        replicas: list[Replica],
        training: Training,
        start_executor: Callable[[Problem], Executor],
        checkpoint: Checkpoint | None = None,
        strengths: int | None = None,
    ):
        self.problem, self.replicas, self.training = problem, replicas, training
        self._start_executor, self._checkpoint = start_executor, checkpoint
        self._executor: Executor | None = None
        optimizer = build_optimizer(problem.model, problem.rules, problem.update, problem.resolved)
        self.targets = optimizer.targets
        self._strengths, self._widths = strengths, dict[tuple[Training, int], int]()
        self._values = sum(int(np.prod(v.shape)) for v in [*problem.model.weights, *optimizer.variables])
        self._reduction = InputReduction(problem, self.targets)
        if any(replica.seed for replica in replicas):
            draw_variables(problem.model, 1)

    def run(
        self,
        strengths: np.ndarray,
        factors: Mapping[tuple[int, int], np.ndarray] | None = None,
        report: Report | None = None,
        replicas: list[Replica] | None = None,
        training: Training | None = None,
        is_free: bool = False,
    ) -> Lanes:
        """Train replicas at strengths.

        Args:
            strengths: (strengths,) of the first rule; or dropout rates, if the model has `LaneDropout` layers.
            factors: maps (index of a target, number of a rule) to the factors of its penalty, (replicas, strengths,
                groups or *shape). None: the factors of the rules.
            report: called with the share of the work that is done.
            replicas, training: replace the path's replicas and training.
            is_free: whether to train without penalties, except that infinite factors keep entries at zero.
        """
        replicas = self.replicas if replicas is None else replicas
        training = self.training if training is None else training
        executor = self._executor = self._executor or self._start_executor(self.problem)
        ratios = self.problem.strength_ratios
        grid, has_dropout_rates = np.asarray(strengths, "float64"), self.problem.has_dropout_rates
        per_rule = grid[:, None] * (0.0 * ratios if is_free or has_dropout_rates else ratios)
        inputs = self._reduction.find_inputs(factors or {})
        limits = self._limits(executor, training, inputs)
        width = self._width(len(strengths), training, limits)
        chunks = plan_chunks(replicas, len(strengths), training, width, limits)
        results: dict[int, Arrays] = {}
        full = full_replicas(replicas)

        def make_task(chunk: Chunk) -> Task:
            members = [replicas[row] for row in chunk.rows]
            numbers = [[lane_number(replica, strengths[column]) for column in chunk.columns] for replica in members]
            takes_lengths = training.early_stopping and not _holds_rows(members)
            return Task(
                training,
                members,
                np.array(numbers),
                per_rule[chunk.columns],
                grid[chunk.columns] if has_dropout_rates else None,
                {key: value[np.ix_(chunk.rows, chunk.columns)] for key, value in (factors or {}).items()},
                _mean_lengths(chunks, results, chunk.columns) if takes_lengths else None,
                [row in full for row in chunk.rows],
                *self._padded_sizes(members),
                width,
                inputs,
            )

        def report_share(share: float) -> None:
            if report is not None:
                report((len(results) + share) / len(chunks))

        def unfinished(numbers: Sequence[int]) -> Iterator[tuple[int, Task]]:
            for number in numbers:
                task = make_task(chunks[number])
                arrays = self._checkpoint.read(task) if self._checkpoint else None
                if arrays is None:
                    tasks[number] = task
                    yield number, task
                else:
                    results[number] = arrays
                    report_share(0.0)

        tasks: dict[int, Task] = {}
        everything = range(len(chunks))
        holding = [number for number in everything if _holds_rows([replicas[row] for row in chunks[number].rows])]
        # Lanes without held-out rows train as long as those of the folds did.
        waves = [holding, [n for n in everything if n not in holding]] if training.early_stopping else [[*everything]]
        for wave in waves:
            for number, arrays in executor.run(unfinished(wave), report_share):
                task = tasks.pop(number)
                if self._checkpoint and not arrays["measure/failed"].any():
                    self._checkpoint.write(task, arrays)
                results[number] = arrays
                report_share(0.0)
        return self._gather(chunks, results, replicas, grid)

    def close(self) -> None:
        """Stop the executor."""
        if self._executor is not None:
            self._executor.close()

    def _padded_sizes(self, members: list[Replica]) -> tuple[int, int]:
        """Return the numbers of training and of held-out rows to which the rows of replicas are padded.

        In small problems, folds are padded to the largest training set, so that all lanes share one program. In large
        ones, they are padded to the largest fold, unless a chunk also has replicas without held-out rows.
        """
        rows = max(len(replica.train) for replica in self.replicas)
        weights = sum(int(np.prod(variable.shape)) for variable in self.problem.model.trainable_variables)
        if rows > PADDED_ROWS or rows * weights > PADDED_WORK:
            kinds = {_holds_rows([member]) for member in members}
            rows = max(len(replica.train) for replica in self.replicas if _holds_rows([replica]) in kinds)
        return rows, max(len(replica.held) for replica in self.replicas)

    def _width(self, strengths: int, training: Training, limits: ChunkLimits) -> int:
        """Return the number of strengths of a part, which is the same for everything that is trained in this way."""
        self._strengths = self._strengths or strengths
        key = training, limits.values
        if key not in self._widths:
            largest = max(self.replicas, key=lambda replica: len(replica.train))
            self._widths[key] = part_width(largest, self._strengths, training, limits)
        return self._widths[key]

    def _limits(self, executor: Executor, training: Training, inputs: np.ndarray | None) -> ChunkLimits:
        def measure(name: str, replica: Replica, sizes: list[int]) -> int:
            return self._remember(name, lambda: executor.fastest_size(replica, training, sizes))

        parallel_chunks = self._remember("parallel_chunks", lambda: executor.parallel_chunks)
        model, rules = self.problem.model, self.problem.rules
        is_fast = training.settle and takes_quasi_newton_steps(model, rules, training, self.problem.rows)
        settling = count_numbers(model) if is_fast else 0
        values = self._values if inputs is None else self._reduction.count_values(self._values, inputs)
        return ChunkLimits(
            values, settling, count_outputs(model), executor.memory,
            parallel_chunks, self.problem.is_stream, is_whole_batch(model), measure,
        )  # fmt: skip

    def _remember(self, name: str, compute: Any) -> int:
        return self._checkpoint.remember(name, compute) if self._checkpoint else compute()

    def _gather(
        self, chunks: list[Chunk], results: dict[int, Arrays], replicas: list[Replica], strengths: np.ndarray
    ) -> Lanes:
        """Return the lanes of all chunks in the order of the replicas and the strengths."""
        arrays: Arrays = {}
        full = full_replicas(replicas)
        for number in sorted(results):
            chunk, parts = chunks[number], results.pop(number)
            for name in [*parts]:
                part = parts.pop(name)
                is_weight = name.startswith("weight/")
                if name not in arrays:
                    lead = (len(full) if is_weight else len(replicas), len(strengths))
                    missing = np.nan if part.dtype.kind == "f" else 0  # in chunks that failed before this was known
                    arrays[name] = np.full((*lead, *part.shape[2:]), missing, part.dtype)
                rows = [full.index(row) for row in chunk.rows if row in full] if is_weight else chunk.rows
                arrays[name][np.ix_(rows, chunk.columns)] = part
        table = pd.DataFrame(
            [
                {"fold": replica.fold, "seed": replica.seed, "strength": strength}
                for replica in replicas
                for strength in strengths
            ]
        )
        for name in MEASURES:
            if f"measure/{name}" in arrays:
                table[name] = arrays[f"measure/{name}"].ravel()
        return Lanes(
            table,
            {name: arrays[f"size/{number}"] for number, name in enumerate(target_names(self.targets))},
            arrays.get("features"),
            [arrays[f"weight/{number}"] for number in range(len(self.problem.model.weights))],
            arrays.get("measure/squares"),
            {name.partition("_")[2]: value for name, value in arrays.items() if name.startswith("measure/history_")},
        )


def _holds_rows(replicas: Sequence[Replica]) -> bool:
    return any(len(replica.held) for replica in replicas)


def _mean_lengths(chunks: list[Chunk], results: Mapping[int, Arrays], columns: list[int]) -> np.ndarray | None:
    """Return the mean length that the folds chose, (columns,); None if no fold was trained."""
    lengths: list[list[int]] = [[] for _ in columns]
    for number in sorted(results):
        chunk = chunks[number]
        rows = [chunk.rows.index(row) for row in dict.fromkeys(chunk.rows)]
        for position, column in enumerate(columns):
            if column in chunk.columns and "measure/length" in results[number]:
                at = rows, chunk.columns.index(column)
                measured, failed = results[number]["measure/length"][at], results[number]["measure/failed"][at]
                lengths[position] += measured[~failed].tolist()
    return np.array([round(np.mean(counts)) for counts in lengths]) if all(lengths) else None
