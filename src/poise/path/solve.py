"""The grid and the stages of a path, trained by an executor."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import pandas as pd

from poise._keras_internals import without_tensorflow
from poise.layer_state import state_of
from poise.path.arguments import complete_training
from poise.path.data.arrays import Data
from poise.path.data.streams import Stream
from poise.path.executors.base import Problem, Report
from poise.path.executors.checkpoints import Checkpoint
from poise.path.executors.ray_cluster import RayCluster
from poise.path.executors.registry import create_executor
from poise.path.grid import decade_below, find_grid
from poise.path.lanes.problem_key import compile_config, loss_attributes
from poise.path.model_config import model_config
from poise.path.models import check_model, is_cox, resolve_rules
from poise.path.result import RegularizationPath
from poise.path.runner import LaneRunner
from poise.path.shared_groups import find_shared_groups
from poise.path.stages import (
    adaptive_factors,
    check_reweightable,
    current_factors,
    hold_at_zero,
    repeat_factors,
    zero_holding_factors,
)
from poise.path.tables import chosen_position, reweighting_position
from poise.path.training import Lanes, Replica, Training
from poise.rules.rule import Rule
from poise.survival.targets import rank_times

LATER_DECADES = 3.0
"""Decades of the grid of an adaptive stage."""
NULL = 100.0
"""With adaptive stages, each grid also has this multiple of its largest strength. All weights are zero there, so the
null model is one of the candidates."""
EXTENSIONS = 2
"""How often a grid is extended below, at most."""


@without_tensorflow()
def solve_path(
    model: keras.Model,
    rules: list[Rule],
    data: Data,
    replicas: list[Replica],
    *,
    executor: str | RayCluster,
    strengths: int | np.ndarray,
    adaptive: int,
    relax: bool,
    training: Training | None,
    checkpoint: str | os.PathLike[str] | None,
    report: Report,
    predicted_rows: int = 0,
    group_rules: list[Rule] | None = None,
    held_groups: Mapping[str, np.ndarray] | None = None,
) -> RegularizationPath:
    """Train a path whose arguments are checked.

    Args:
        model: Built and compiled model.
        rules: Rules with numbers > 0 as strengths.
        data: Rows of all replicas.
        replicas: Training rows and held-out rows.
        executor: What `check_executor` returned.
        strengths: How many, or the strengths in ascending order.
        adaptive, relax, training, checkpoint: As for `fit_path`.
        report: Called with the share of the work that is done.
        predicted_rows, group_rules: As in `Problem`. Default: 0 and None.
        held_groups: A dict from the path of a variable to a bool array (replicas, groups): the groups of its penalty to
            hold at zero in all stages. Default: None, for none.

    Returns:
        The path of the last stage.
    """
    start = time.perf_counter()
    check_model(model)
    rows_in_memory = None if isinstance(data.x, Stream) else data.rows + data.validation_rows
    training = complete_training(model, rules, training, rows_in_memory, adaptive)
    # A study passes times in float64.
    y = rank_times(data.y)[0] if is_cox(model) else data.y
    rows = data.x if isinstance(data.x, Stream) else (data.x, y, data.sample_weight)
    problem = Problem(
        model, rules, resolve_rules(model, rules), training.update or "auto", rows, predicted_rows, group_rules
    )  # fmt: skip
    architecture = model_config(model)
    state = state_of(model)
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(
            checkpoint,
            data=rows.digest if isinstance(rows, Stream) else rows,
            model=[repr(architecture), *model.get_weights(), state.layers],
            compilation=[repr(compile_config(model)), *loss_attributes(model.loss)],
            rules=[repr(keras.saving.serialize_keras_object(rule)) for rule in rules],
            cv=replicas,
            training=training,
            strengths=strengths,
            stages=[adaptive, bool(relax), predicted_rows, *(held_groups or {}).values()],
        )

    def make_path(lanes: Lanes, **others: Any) -> RegularizationPath:
        return RegularizationPath(
            lanes, architecture, state, tuple(rules), training, time.perf_counter() - start,
            names=data.names, resolved=problem.resolved, held_groups=held_groups or {}, **others,
        )  # fmt: skip

    count = strengths if isinstance(strengths, int) else len(strengths)
    runner = LaneRunner(problem, replicas, training, partial(create_executor, executor), saved, count)
    with contextlib.closing(runner):
        return _run_stages(runner, make_path, strengths, adaptive, relax, report, held_groups or {})


def _run_stages(
    runner: LaneRunner,
    make_path: Callable[..., RegularizationPath],
    strengths: int | np.ndarray,
    adaptive: int,
    relax: bool,
    report: Report,
    held_groups: Mapping[str, np.ndarray],
) -> RegularizationPath:
    """Train the grid, then the adaptive stages, until nothing is left, and the relaxed path of the last stage."""
    if adaptive:
        check_reweightable(runner.targets, runner.problem.update, "adaptive")
    if relax:
        check_reweightable(runner.targets, runner.problem.update, "relax=True")
    is_searched = isinstance(strengths, int)
    factors = current_factors(runner.targets, len(runner.replicas)) if adaptive or held_groups else None
    if factors is not None:
        factors = hold_at_zero(factors, runner.targets, held_groups)
    shared = find_shared_groups(runner.problem.model, runner.targets) if adaptive else {}
    progress = _StageProgress(report, is_searched + 1 + adaptive + bool(relax))
    if isinstance(strengths, int):
        grid = find_grid(runner, strengths - 1 if adaptive and strengths > 1 else strengths, factors)
        progress.finish_stage()
    else:
        grid = strengths
    stages: list[RegularizationPath] = []
    for stage in range(adaptive + 1):
        stage_grid = grid
        if is_searched and adaptive:
            if stage:
                stage_grid = np.geomspace(grid[-1] / 10**LATER_DECADES, grid[-1], len(grid))
            stage_grid = np.append(stage_grid, NULL * grid[-1])
        stage_grid, lanes = _run_grid(runner, stage_grid, factors, progress.report, EXTENSIONS if is_searched else 0)
        progress.finish_stage()
        is_last = stage == adaptive or _is_nothing_left(lanes, stage_grid)
        relaxed = None
        if relax and is_last:
            factors = zero_holding_factors(runner.targets, lanes.sizes)
            relaxed = make_path(runner.run(stage_grid, factors, progress.report, is_free=True))
        stages.append(make_path(lanes, stages=tuple(stages), relaxed=relaxed))
        if is_last:
            break
        factors = adaptive_factors(runner.targets, lanes.sizes, reweighting_position(lanes, stage == 0), shared)
        factors = hold_at_zero(factors, runner.targets, held_groups)
    report(1.0)
    return stages[-1]


def _run_grid(
    runner: LaneRunner,
    grid: np.ndarray,
    factors: Mapping[tuple[int, int], np.ndarray] | None,
    report: Report,
    extensions: int,
) -> tuple[np.ndarray, Lanes]:
    """Train a grid, and extend it below while its smallest strength is the best. Return the grid and its lanes."""
    lanes = runner.run(grid, repeat_factors(factors, len(grid)), report)
    for _ in range(extensions):
        if not _is_best_at_the_bottom(lanes, grid):
            break
        below = decade_below(grid)
        lanes = _merge_lanes(runner.run(below, repeat_factors(factors, len(below)), report), lanes)
        grid = np.concatenate([below, grid])
    return grid, lanes


@dataclass
class _StageProgress:
    """The share of all stages that is done; it never falls, even if a grid is extended."""

    report_total: Report
    stages: int
    finished: int = 0
    share: float = 0.0

    def report(self, share: float) -> None:
        self.share = max(self.share, (self.finished + share) / self.stages)
        self.report_total(self.share)

    def finish_stage(self) -> None:
        self.finished += 1


def _is_best_at_the_bottom(lanes: Lanes, strengths: np.ndarray) -> bool:
    try:
        return len(strengths) >= 3 and chosen_position(lanes) == 0
    except ValueError:  # at every strength a lane diverged, which the table reports
        return False


def _is_nothing_left(lanes: Lanes, strengths: np.ndarray) -> bool:
    """Return whether the lane of all rows is empty at the chosen strength."""
    return bool(lanes.table["is_empty"].to_numpy().reshape(-1, len(strengths))[-1, chosen_position(lanes)])


def _merge_lanes(low: Lanes, high: Lanes) -> Lanes:
    """Return the lanes of two grids, one below the other, as the lanes of one grid."""
    order = [*dict.fromkeys(zip(high.table["fold"], high.table["seed"], strict=True))]
    rank = {key: number for number, key in enumerate(order)}
    table = pd.concat([low.table, high.table], ignore_index=True)
    ranks = [rank[key] for key in zip(table["fold"], table["seed"], strict=True)]
    table = table.assign(order=ranks).sort_values(["order", "strength"]).drop(columns="order").reset_index(drop=True)

    def concatenate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([a, b], axis=1)

    features = None
    if low.features is not None and high.features is not None:
        features = concatenate(low.features, high.features)
    sizes = {name: concatenate(size, high.sizes[name]) for name, size in low.sizes.items()}
    weights = [concatenate(a, b) for a, b in zip(low.weights, high.weights, strict=True)]
    squares = None if low.squares is None or high.squares is None else concatenate(low.squares, high.squares)
    history = {name: concatenate(value, high.history[name]) for name, value in low.history.items()}
    return Lanes(table, sizes, features, weights, squares, history)
