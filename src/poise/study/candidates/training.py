"""Train the paths of a study: one for each penalty and for dropout, and the networks without a penalty."""

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from poise._keras_internals import without_tensorflow
from poise.path.data.arrays import Data
from poise.path.executors.ray_cluster import RayCluster
from poise.path.result import RegularizationPath
from poise.path.solve import solve_path
from poise.path.training import Training
from poise.penalties import L2
from poise.rules.rule import PENALIZED_BY_DEFAULT, Rule
from poise.study.candidates.dropout import add_dropout, dropout_rates
from poise.study.candidates.encodings import EncodedNetwork, EncodedNetworks
from poise.study.candidates.penalties import DROPOUT, find_shared_path, get_penalty, make_rules
from poise.study.candidates.screening import hold_hidden_columns
from poise.study.errors import DataError
from poise.study.settings import FULL_TRAINING, NO_PENALTY, Settings

Progress = Callable[[float, str], None]
"""Called with the share of the work that is done and with what is being done."""
WITHOUT_PENALTY = {NO_PENALTY: "No penalty", FULL_TRAINING: "No penalty, all steps"}
"""The titles of the networks without a penalty, which are always trained."""
BASELINE_COST, HALVES_COST = 0.3, 4.0
"""The times of a training without a penalty, and of the halves of a stability selection, relative to one path."""


def title_of(name: str) -> str:
    """Return the name of a candidate in tables and sentences."""
    return WITHOUT_PENALTY[name] if name in WITHOUT_PENALTY else get_penalty(name).title


class PathTrainer:
    """Train the paths of a study, each once, and report progress over all of them.

    Args:
        networks: The networks from which trainings start.
        settings: The settings of the study.
        executor: Where the paths are trained, as `check_executor` returns it.
        checkpoint: A folder for finished work, or `None`.
        report: Called with the share of finished work and with what is being done.
        predicted_rows: How many held-out rows of a fold are predicted at every checkpoint, at most.
    """

    def __init__(
        self,
        networks: EncodedNetworks,
        settings: Settings,
        executor: str | RayCluster,
        checkpoint: str | os.PathLike[str] | None,
        report: Progress,
        predicted_rows: int,
    ) -> None:
        self.networks, self.settings, self.predicted_rows = networks, settings, predicted_rows
        self.executor, self.checkpoint, self.report = executor, checkpoint, report
        names = dict.fromkeys(find_shared_path(name, settings.penalties) for name in settings.penalties)
        self.costs = dict.fromkeys(WITHOUT_PENALTY, BASELINE_COST)
        self.costs |= {name: 1.0 + get_penalty(name).adaptive for name in names}
        self.encodings = {name: networks.encodings_of(name) for name in self.costs}
        self.total = sum(cost * len(self.encodings[name]) for name, cost in self.costs.items())
        self.total += 0.0 if settings.max_false is None else HALVES_COST
        self.finished = 0.0
        self.paths: dict[tuple[str, str], RegularizationPath] = {}

    def path(self, name: str, encoding: str) -> RegularizationPath:
        """Return the path of a candidate with an encoding."""
        source = name if name in WITHOUT_PENALTY else find_shared_path(name, self.settings.penalties)
        if (source, encoding) not in self.paths:
            self.paths[source, encoding] = self._solve(source, title_of(name), encoding)
            self.finished += self.costs[source]
        path = self.paths[source, encoding]
        return path if source == name else [*path.stages, path][0]

    def report_progress(self, share: float, what: str, cost: float) -> None:
        """Report that a share of the current part is done."""
        self.report((self.finished + share * cost) / self.total, what)

    @without_tensorflow()
    def _solve(self, name: str, title: str, encoding: str) -> RegularizationPath:
        settings, network = self.settings, self.networks.get(name, encoding)
        rows, start = network.rows, network.start
        strengths: int | np.ndarray = settings.strengths
        if name in WITHOUT_PENALTY:
            rules, strengths = [Rule(list(PENALIZED_BY_DEFAULT), L2())], np.array([0.0])
        else:
            rules = make_rules(name, start, rows.encoder.owners)
        if name == DROPOUT:
            start, strengths = add_dropout(start, settings.seed), dropout_rates(settings.strengths)
        held = None
        if network.hidden is not None:
            held = hold_hidden_columns(start, rules, network.hidden, settings.n_init)
        replicas = [replace(replica, seed=seed) for seed in range(settings.n_init) for replica in rows.replicas]
        return solve_path(
            start, rules, Data(rows.x, rows.y, rows.weight, len(rows.x), rows.encoder.inputs), replicas,
            executor=self.executor,
            report=lambda share: self.report_progress(share, title, self.costs[name]),
            strengths=strengths,
            adaptive=0 if name in WITHOUT_PENALTY else get_penalty(name).adaptive,
            relax=False,
            training=Training.full_batch(settings.max_iter, update="proximal", early_stopping=name != FULL_TRAINING),
            checkpoint=None if self.checkpoint is None else os.path.join(self.checkpoint, f"{name} {encoding}"),
            predicted_rows=self.predicted_rows,
            group_rules=None if name == DROPOUT else _group_rules(network),  # it shares no program with the others
            held_groups=held,
        )  # fmt: skip


def _group_rules(network: EncodedNetwork) -> list[Rule] | None:
    try:
        return make_rules("group", network.start, network.rows.encoder.owners)
    except DataError:  # the kernels that read the inputs of a custom network cannot be determined
        return None
