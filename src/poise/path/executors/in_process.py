"""The lanes of a path in this process, in chunks of a size that suits the machine.

Lanes are independent, so any part of them can be trained at any time. A chunk is some replicas at some strengths; all
chunks of one shape share one compiled program, and the last is filled up with repeated lanes. A finished chunk is
written to the checkpoint in one move, so that a call that was killed goes on with the next.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import pandas as pd

from poise.compaction.inputs import read_inputs
from poise.optimizer.penalized import PenalizedOptimizer
from poise.path.data.batches import at_once, steps_of
from poise.path.data.folds import kept
from poise.path.data.streams import Stream
from poise.path.executors.checkpoints import Checkpoint
from poise.path.lanes.losses import is_mean_loss
from poise.path.lanes.program import Program
from poise.path.lanes.streaming import Passing
from poise.path.models import check_model, drawn, first_rate, inner_optimizer, outputs_of
from poise.path.sizes import is_empty, live_units, sizes
from poise.path.stages import names_of
from poise.path.training import Lanes, Replica, Training
from poise.rules.layers import info_of
from poise.rules.rule import Rule

MANY = 20_000_000
"""Numbers in the weights of all lanes together, above which the size of a chunk is found by measuring."""
ACTIVE = 4_000_000
"""Numbers in the layers' outputs of all lanes of a chunk at one step: more do not stay in a processor's cache."""
AS_GOOD = 1.05
"""Chunks that take so much longer a lane than the fastest are as good: fewer chunks cost less between them."""
SHARE_OF_MEMORY = 0.3

Report = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Task:
    """One chunk: how its lanes are trained, the arguments of `Program.run`, and whose weights are kept."""

    training: Training
    lanes: dict[str, Any]
    is_kept: list[bool]


@dataclass(eq=False)
class Job:
    """Some strengths to train on some replicas.

    Attributes:
        model: the compiled model, on the backend JAX.
        rules: with numbers as strengths, of which the first is the unit of `strengths`.
        data: x, y, sample weights or None; or a `Stream`.
        replicas: the rows of every family of lanes.
        training: how a lane is trained, its `settle` a number.
        checkpoint: keeps the finished chunks; None for none.
        resolved: what the rules resolve to (`Plan.config`); None to match them with the model.
    """

    model: Any
    rules: list[Rule]
    data: tuple | Stream
    replicas: list[Replica]
    training: Training
    checkpoint: Checkpoint | None = None
    resolved: dict | None = None


class Local:
    """The engine in this process.

    Raises:
        ValueError: if the model cannot be trained in lanes, with the reason.
    """

    def __init__(self, job: Job):
        check_model(job.model)
        self.job = job
        self._inner = inner_optimizer(job.model)
        self.optimizer = self._built(self._inner)
        few = next(job.data.passes())[1] if isinstance(job.data, Stream) else job.data
        self._is_mean = is_mean_loss(job.model, few)
        self._programs: dict[Training, Program] = {}
        self._starts: dict[int, list[np.ndarray]] = {}
        self._best_size: dict[tuple, int] = {}

    @property
    def shares(self) -> np.ndarray:
        """(rules,) the strengths of the rules in units of the first."""
        given = np.array([rule.penalty.strength for rule in self.job.rules], "float64")
        return given / given[0]

    def run(
        self,
        strengths: np.ndarray,
        factors: dict | None = None,
        report: Report | None = None,
        replicas: list[Replica] | None = None,
        training: Training | None = None,
        is_free: bool = False,
    ) -> Lanes:
        """Trains replicas at strengths.

        Args:
            strengths: (S,) of the first rule.
            factors: by (index of a target, number of a rule) the factors of its penalty, (replicas, S, groups or
                *shape); None for those that the rules have.
            report: called with the share of the work that is done.
            replicas, training: others than those of the job.
            is_free: train without any penalty but what the factors hold at zero.
        """
        replicas = self.job.replicas if replicas is None else replicas
        training = self.job.training if training is None else training
        per_rule = np.asarray(strengths, "float64")[:, None] * (0.0 * self.shares if is_free else self.shares)
        plan = self._plan(replicas, len(strengths), training)
        parts: dict[int, tuple] = {}

        def task(number):
            rows, columns = plan[number]
            chosen = [replicas[row] for row in rows]
            lanes = {
                "replicas": chosen,
                "starts": [self._start(replica.seed) for replica in chosen],
                "lanes": np.array([[_number(replica, strengths[column]) for column in columns] for replica in chosen]),
                "strengths": per_rule[columns],
                "factors": {key: value[np.ix_(rows, columns)] for key, value in (factors or {}).items()},
                "limits": _limits(parts, columns) if training.patience and not _holds_rows(chosen) else None,
            }
            return Task(training, lanes, [row in kept(replicas) for row in rows])

        def told(done):
            if report is not None:
                report(done / len(plan))

        # Without rows held out patience needs to know when the lanes of the folds stopped.
        first = [number for number, (rows, _) in enumerate(plan) if _holds_rows([replicas[row] for row in rows])]
        rest = [number for number in range(len(plan)) if number not in first]
        for wave in (first, rest) if training.patience else ([*range(len(plan))],):
            for number, found in self._finished(((number, task(number)) for number in wave), told, len(parts)):
                parts[number] = (*plan[number], found)
                told(len(parts))
        return self._gathered(parts, replicas, np.asarray(strengths, "float64"))

    def _finished(self, tasks: Iterator[tuple[int, "Task"]], told: Report, done: int) -> Iterator[tuple[int, dict]]:
        """(number, what is kept) of every task in the order in which they are done, from the checkpoint if it is there.

        Args:
            tasks: with their numbers, made when they are asked for.
            told: called with the number of chunks that are done, parts of one included.
            done: how many were before.
        """
        checkpoint = self.job.checkpoint
        following = next(tasks, None)
        while following is not None:
            (number, task), following = following, next(tasks, None)
            found = checkpoint.read(task.lanes, task.training) if checkpoint else None
            if found is None:
                found = self.solved(task, lambda share, done=done: told(done + share), following and following[1])
                if checkpoint:
                    checkpoint.write(task.lanes, task.training, found)
            done += 1
            yield number, found

    def solved(
        self, task: "Task", report: Report | None = None, following: "Task | None" = None
    ) -> dict[str, np.ndarray]:
        """What is kept of a chunk, by name, each with the leading axes (replicas, strengths).

        What `following` needs is compiled meanwhile.
        """
        start = time.perf_counter()
        for soon in filter(None, (task, following)):
            self._program(soon.training).prepare(**soon.lanes)
        chunk = self._program(task.training).run(**task.lanes, report=report)
        shape = task.lanes["lanes"].shape
        chunk.measures["seconds"] = np.full(shape, (time.perf_counter() - start) / task.lanes["lanes"].size)
        chunk.measures["failed"] = np.zeros(shape, bool)
        return self._summed(chunk, task.is_kept)

    def close(self):
        """Lets go of the data, once all is trained."""
        for program in self._programs.values():
            program.forget()

    def _built(self, inner, rate=None):
        config = inner.get_config()
        if rate is not None:
            config.update(learning_rate=rate, gradient_accumulation_steps=None)
        optimizer = PenalizedOptimizer(
            type(inner).from_config(config), self.job.rules, self.job.training.update or "auto"
        )
        optimizer.resolved_as(self.job.resolved).build(self.job.model.trainable_variables, self.job.model)
        return optimizer

    def _program(self, training):
        if training not in self._programs:
            falling = keras.optimizers.schedules.CosineDecay(first_rate(self._inner), max(training.settle or 0, 1))
            kind = Passing if isinstance(self.job.data, Stream) else Program
            self._programs[training] = kind(
                self.job.model,
                self.optimizer,
                self._built(self._inner, falling),
                self.job.data,
                training,
                self._is_mean,
            )
        return self._programs[training]

    def _start(self, seed):
        """The first values of the trained variables: the model's own for the seed 0, else a new draw."""
        if seed not in self._starts:
            self._starts[seed] = [np.asarray(variable.value) for variable in drawn(self.job.model, seed)]
        return self._starts[seed]

    def _plan(self, replicas, count, training):
        """[(numbers of the replicas, numbers of the strengths)] of every chunk; those that hold rows out come first."""
        families: dict[tuple, list[int]] = {}
        for number, replica in enumerate(replicas):
            comes_last = training.patience is not None and not len(replica.held)
            is_passing = isinstance(self.job.data, Stream)
            sizes = (training.batch_size, at_once(len(replica.train)))
            steps = () if is_passing else tuple(steps_of(replica, size) for size in sizes)
            families.setdefault((comes_last, *steps), []).append(number)
        plan = []
        for key in sorted(families):
            members = families[key]
            lanes = self._size(replicas[members[0]], len(members), count, training)
            width, height = min(lanes, count), max(lanes // count, 1)
            columns = _parts(list(range(count)), width)
            plan += [(rows, part) for rows in _parts(members, height) for part in columns]
        return plan

    def _size(self, replica, members, count, training):
        """How many lanes to run at once: all that the memory holds if they are small, else as many as go fastest."""
        values = sum(int(np.prod(v.shape)) for v in [*self.job.model.weights, *self.optimizer.variables])
        whole = at_once(len(replica.train))
        rows = whole if training.settle or training.batch_size is None else min(training.batch_size, whole)
        limit = min(self._memory() / (12 * values), ACTIVE / max(rows * outputs_of(self.job.model), 1))
        limit = max(int(limit), 1)
        if values * members * count <= MANY or isinstance(self.job.data, Stream):
            return min(members * count, limit)
        key = (count, training.batch_size)
        if key not in self._best_size:
            checkpoint = self.job.checkpoint

            def measured():
                return self.fastest(replica, training, {min(size, count, limit) for size in (1, 4, 16, 64)})

            # A resumed call must make the same chunks, to find them.
            name = "lanes-" + "-".join(map(str, key))
            self._best_size[key] = checkpoint.remembered(name, measured) if checkpoint else measured()
        return self._best_size[key]

    def _memory(self):
        """The bytes of memory that a chunk may take."""
        return SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def fastest(self, replica, training, sizes):
        """The number of lanes, of the given ones, that takes the least time a lane; the largest of those as good."""
        program = self._program(replace(training, start="fresh"))
        few = replace(replica, train=replica.train[: 3 * (training.batch_size or len(replica.train))])
        seconds = {}
        for lanes in sorted(sizes):
            strengths, numbers = np.repeat(self.shares[None], lanes, 0), np.zeros((1, lanes), int)
            step = program.seconds_of_a_step([few], [self._start(replica.seed)], numbers, strengths, {})
            seconds[lanes] = step / lanes
        return max(lanes for lanes in seconds if seconds[lanes] <= AS_GOOD * min(seconds.values()))

    def _summed(self, chunk, is_kept):
        """What is kept of a chunk, by name, each with the leading axes (replicas, strengths)."""
        weights = chunk.weights
        position = {id(weight): number for number, weight in enumerate(self.job.model.weights)}
        targets = self.optimizer.targets
        penalized = [[weights[position[id(v)]] for v in self.optimizer.variables_of(target)] for target in targets]
        found = {f"measure/{name}": value for name, value in chunk.measures.items()}
        none = np.zeros(weights[0].shape[:2], int)
        every = [w for members in penalized for w in members]
        found["measure/zeros"] = sum(((w == 0).reshape(*none.shape, -1).sum(-1) for w in every), none)
        found["measure/units"] = none
        found["measure/is_empty"] = none == 0
        for number, (target, members) in enumerate(zip(targets, penalized, strict=True)):
            size = found[f"size/{number}"] = sizes(target, members)
            outputs = info_of(self.optimizer.variables_of(target)[0]).sides.outputs
            found["measure/units"] = found["measure/units"] + live_units(target, members, size, outputs)
            if not all(penalty.smooth for _, penalty in target.penalties):
                found["measure/is_empty"] &= is_empty(target, members, size)
        if all(penalty.smooth for target in targets for _, penalty in target.penalties):
            found["measure/is_empty"] = none > 0
        read = read_inputs(self.job.model, weights)
        if read is not None:
            found["features"] = read
        for number, w in enumerate(weights):
            found[f"weight/{number}"] = w[is_kept]
        return found

    def _gathered(self, parts, replicas, strengths):
        """The chunks put together in the order of the replicas and the strengths."""
        whole = {}
        own = kept(replicas)
        for number in sorted(parts):
            rows, columns, found = parts.pop(number)
            for name in [*found]:
                value = found.pop(name)
                is_weight = name.startswith("weight/")
                lead = (len(own) if is_weight else len(replicas), len(strengths))
                if name not in whole:
                    whole[name] = np.zeros((*lead, *value.shape[2:]), value.dtype)
                into = [own.index(row) for row in rows if row in own] if is_weight else rows
                whole[name][np.ix_(into, columns)] = value
        table = pd.DataFrame(
            [
                {"fold": replica.fold, "seed": replica.seed, "strength": strength}
                for replica in replicas
                for strength in strengths
            ]
        )
        for name in MEASURES:
            if f"measure/{name}" in whole:
                table[name] = whole[f"measure/{name}"].ravel()
        return Lanes(
            table,
            {name: whole[f"size/{number}"] for number, name in enumerate(names_of(self.optimizer.targets))},
            whole.get("features"),
            [whole[f"weight/{number}"] for number in range(len(self.job.model.weights))],
        )


MEASURES = [
    *("loss", "held_loss", "penalty", "residual", "gradient", "zeros", "units", "settled", "epochs"),
    *("diverged", "failed", "is_empty", "seconds"),
]


def _number(replica, strength):
    """A number for a lane that depends on nothing but its fold, its seed and its strength."""
    words = np.array([strength], "float64").view("uint32")
    return int(np.random.SeedSequence([replica.fold + 1, replica.seed, *words.tolist()]).generate_state(1)[0])


def _parts(numbers, most):
    """Parts of at most so many, all of one size; the last is filled up with its last number."""
    most = min(most, len(numbers))
    size = min(range(most, (most - 1) // 2, -1), key=lambda size: -(-len(numbers) // size) * size)
    count = -(-len(numbers) // size)
    filled = [*numbers, *numbers[-1:] * (count * size - len(numbers))]
    return [filled[first : first + size] for first in range(0, len(filled), size)]


def _holds_rows(replicas) -> bool:
    return any(len(replica.held) for replica in replicas)


def _limits(parts, columns):
    """(columns,) the mean number of epochs after which the lanes of the folds stopped, by strength."""
    epochs = [[] for _ in columns]
    for rows, other, found in (parts[number] for number in sorted(parts)):
        own = [rows.index(row) for row in dict.fromkeys(rows)]
        for here, column in enumerate(columns):
            if column in other:
                epochs[here] += found["measure/epochs"][own, other.index(column)].tolist()
    return np.array([max(round(np.mean(some)), 1) for some in epochs])
