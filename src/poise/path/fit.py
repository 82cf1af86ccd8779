"""`poise.fit_path`: every strength of a grid, in every fold, in one call."""

import contextlib
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pandas as pd
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from poise.layer_state import state_of
from poise.optimizer.penalized import get_penalized_optimizer
from poise.path.data.arrays import Data, checked_data
from poise.path.data.folds import split
from poise.path.data.streams import Stream, is_stream, split_by_hash
from poise.path.executors.checkpoints import Checkpoint
from poise.path.executors.in_process import Job, Local
from poise.path.executors.ray_cluster import RayCluster
from poise.path.grid import below, found_grid
from poise.path.model_config import without_tensorflow
from poise.path.models import check_model, compiled_update, resolved_rules
from poise.path.result import RegularizationPath
from poise.path.stages import check_reweightable, held_at_zero, reweighted, unweighted
from poise.path.tables import chosen_position
from poise.path.training import Lanes, Replica, Training
from poise.penalties.base import LARGEST, Schedule
from poise.rules.rule import Rule, as_rules

SETTLE = 2000
LATER_DECADES = 3.0
NULL = 100.0
"""Times the top of the grid: so strong a penalty leaves nothing, and the null model competes."""
EXTENSIONS = 2


def fit_path(
    model,
    x,
    y=None,
    rules=None,
    *,
    strengths=100,
    cv: Any = 5,
    validation_data=None,
    n_init=1,
    adaptive=0,
    relax=False,
    training=None,
    sample_weight=None,
    groups=None,
    executor="auto",
    checkpoint=None,
    progress=True,
) -> RegularizationPath:
    """Trains a model at every strength of a grid, in every fold, side by side.

    Args:
        model: a built and compiled Keras model, which is left as it is. Loss and optimizer are those that it was
            compiled with.
        x, y: arrays or nested structures of arrays, as for `model.fit`; the first axis is the rows. Numbers must be
            finite. Or x alone, for data larger than memory: a `keras.utils.PyDataset`, a `tf.data.Dataset` or another
            iterable of batches (x, y) or (x, y, sample_weight) that can be passed through again and again. Folds are
            then a number and go by a hash of the row's number, and batches are as large as they come.
        rules: a penalty, a `poise.Rule` or a list of those, with numbers as strengths; None for those of the
            `poise.PenalizedOptimizer` that the model was compiled with.
        strengths: how many, for a grid that is found by a coarse scan, or the strengths themselves, positive or zero.
            A grid that is found goes on below, by a decade and at most twice, while the lowest held-out loss is at its
            smallest strength. A strength is that of the first rule; the others keep their ratio to it.
        cv: a number (stratified where y holds classes), a scikit-learn splitter, a list of pairs (train, held) of
            positions or masks.
        validation_data: (x, y) or (x, y, sample_weight) to validate on instead of cross-validation; `cv` is then not
            used. Default: None.
        n_init: how many draws of initial weights; the first are the model's own.
        adaptive: how many more paths to run, each with the penalty of every group (or entry) divided by its size in
            the solution that the stage before chose.
        relax: train once more without the penalty on what survived (`path.relaxed`).
        training: a `poise.Training`; None for its defaults.
        sample_weight: (rows,) as for `model.fit`.
        groups: (rows,) for the folds: rows of one group stay together.
        executor: `"auto"`, `"in_process"` (this process, which must run on JAX), `"subprocess"` (a JAX process of its own), or
            `"ray"` or a `poise.RayCluster` (the machines of a Ray cluster).
        checkpoint: a folder for finished chunks; the same call resumes from it.
        progress: whether to show a progress bar.

    Returns:
        A `poise.RegularizationPath`.

    Raises:
        TypeError, ValueError: before anything is trained, for a model that cannot be trained in lanes, data that are
            not finite, folds that cannot be made, or a wrong argument.

    References:
        Friedman, Hastie and Tibshirani 2010, "Regularization paths for generalized linear models via coordinate
        descent" (the path); Zou 2006, "The adaptive lasso" (the stages).

    Example:
        >>> import poise, keras, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.Adam(0.05), loss="mse")
        >>> training = poise.Training(epochs=20, settle=200)
        >>> path = poise.fit_path(model, x, x[:, :1], poise.L1(), strengths=5, cv=2, training=training, progress=False)
        >>> path.features(path.best_strength).tolist()
        [0]
    """
    training = Training() if training is None else training
    check_model(model)
    engine = checked_executor(executor)
    rules = checked_rules(model, rules)
    strengths = checked_strengths(strengths)
    check_stages(adaptive)
    if isinstance(cv, tuple):
        raise TypeError(
            "cv is a tuple. Pass rows to validate on as validation_data=(x, y), or a list of pairs (train, held)."
        )
    if validation_data is not None:
        if not isinstance(validation_data, tuple):
            raise TypeError(
                f"validation_data must be a tuple (x, y) or (x, y, sample_weight), got {type(validation_data).__name__}."
            )
        cv = validation_data
    if training.update is None:
        training = replace(training, update=compiled_update(model))
    if is_stream(x):
        if y is not None or sample_weight is not None or groups is not None:
            raise ValueError("x gives batches (x, y) by itself: leave y, sample_weight and groups out.")
        if isinstance(engine, RayCluster):
            raise ValueError(
                "x gives batches that pass by, which would pass through every machine of the cluster. Give arrays, or "
                "use executor='auto'."
            )
        stream = Stream(x)
        data = Data(stream, None, None, rows=stream.rows)
        replicas = split_by_hash(stream.rows, cv, n_init)
    else:
        data = checked_data(model, x, y, sample_weight, groups, cv)
        replicas = split(
            data.rows, y=data.y, cv=cv, n_init=n_init, groups=groups, sample_weight=data.sample_weight,
            are_classes=_are_classes(model),
        )  # fmt: skip
    if training.settle is None:
        is_smooth = all(rule.penalty.smooth for rule in rules)
        training = replace(training, settle=0 if is_smooth or training.update == "coupled" else SETTLE)
    work = {
        "strengths": strengths,
        "adaptive": adaptive,
        "relax": relax,
        "training": training,
        "checkpoint": checkpoint,
    }
    with _bar(progress) as report:
        return solved_by(engine, model, rules, data, replicas, report=report, **work)


def checked_executor(executor) -> str | RayCluster:
    """ "auto", "in_process", "subprocess" or a `poise.RayCluster`, which "ray" is short for.

    Raises:
        ValueError: for anything else, or if this process cannot run it.
    """
    if executor == "ray":
        return RayCluster()
    if not isinstance(executor, RayCluster) and executor not in ("auto", "in_process", "subprocess"):
        raise ValueError(
            f"executor must be 'auto', 'in_process', 'subprocess', 'ray' or a poise.RayCluster, got {executor!r}."
        )
    if executor == "in_process" and keras.backend.backend() != "jax":
        raise ValueError(
            f"executor='in_process' needs Keras on JAX, and it runs on {keras.backend.backend()}. Use "
            "executor='subprocess'."
        )
    return executor


def solved_by(
    engine: str | RayCluster, model, rules: list[Rule], data: Data, replicas: list[Replica], **work
) -> RegularizationPath:
    """What `solved` does, in this process if it runs JAX, and else, or if the engine is "process", in one that does."""
    work["cluster"] = engine if isinstance(engine, RayCluster) else None
    work["resolved"] = resolved_rules(model, rules)
    if engine == "subprocess" or keras.backend.backend() != "jax":
        from poise.path.executors.subprocess_executor import solved_in_child

        return solved_in_child(model, rules, data, replicas, **work)
    return solved(model, rules, data, replicas, **work)


def solved(
    model,
    rules: list[Rule],
    data: Data,
    replicas: list[Replica],
    *,
    strengths,
    adaptive: int,
    relax: bool,
    training: Training,
    checkpoint,
    report: Callable[[float], None],
    cluster: RayCluster | None = None,
    resolved: dict | None = None,
) -> RegularizationPath:
    """What `path` does once its arguments are checked, in this process, on JAX."""
    start = time.perf_counter()
    table = data.x if isinstance(data.x, Stream) else (data.x, data.y, data.sample_weight)
    with without_tensorflow():
        architecture = keras.saving.serialize_keras_object(model)
    state = state_of(model)
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(
            checkpoint,
            data=table.digest if isinstance(table, Stream) else table,
            model=[repr({**architecture, "compile_config": None}), *model.get_weights(), state.layers],
            compilation=[repr(_compilation(model)), *_plain_attributes(model.loss)],
            rules=[repr(keras.saving.serialize_keras_object(rule)) for rule in rules],
            cv=replicas,
            training=training,
            strengths=strengths,
            stages=[adaptive, relax],
        )
    job = Job(model, rules, table, replicas, training, kept, resolved)
    with contextlib.closing(_engine(job, data, cluster)) as engine:
        if adaptive:
            check_reweightable(engine.optimizer, "adaptive")
        if relax:
            check_reweightable(engine.optimizer, "relax=True")
        is_found = isinstance(strengths, int)
        parts = (1 if is_found else 0) + 1 + adaptive + bool(relax)
        finished = 0

        reached = 0.0

        def part(share):
            nonlocal reached
            reached = max(reached, (finished + share) / parts)  # a grid that is extended begins anew
            report(reached)

        grid = strengths
        if is_found:
            grid = found_grid(engine, strengths - 1 if adaptive and strengths > 1 else strengths)
            finished += 1
        stages: list[RegularizationPath] = []
        factors = unweighted(engine.optimizer, len(replicas)) if adaptive else None
        for stage in range(adaptive + 1):
            here = grid
            if is_found and adaptive:
                if stage:
                    here = np.geomspace(grid[-1] / 10**LATER_DECADES, grid[-1], len(grid))
                here = np.append(here, NULL * grid[-1])
            lanes = engine.run(here, _repeated(factors, len(here)), part)
            for _ in range(EXTENSIONS if is_found else 0):
                if not _is_best_at_the_bottom(lanes, here):
                    break
                more = below(here)
                lanes = _joined(engine.run(more, _repeated(factors, len(more)), part), lanes)
                here = np.concatenate([more, here])
            finished += 1
            relaxed = None
            is_last = stage == adaptive or _is_nothing_left(lanes, here)
            if relax and is_last:
                held = held_at_zero(engine.optimizer.targets, lanes.sizes)
                refit = engine.run(here, held, part, is_free=True)
                relaxed = RegularizationPath(
                    refit,
                    architecture,
                    state,
                    tuple(rules),
                    training,
                    0.0,
                    names=data.names,
                    resolved=engine.optimizer.resolved,
                )
            stages.append(
                RegularizationPath(
                    lanes,
                    architecture,
                    state,
                    tuple(rules),
                    training,
                    time.perf_counter() - start,
                    stages=tuple(stages),
                    names=data.names,
                    relaxed=relaxed,
                    resolved=engine.optimizer.resolved,
                )
            )
            if is_last:
                break
            factors = reweighted(engine.optimizer, lanes.sizes, chosen_position(lanes))
        report(1.0)
    return stages[-1]


def _engine(job: Job, data: Data, cluster: RayCluster | None) -> Local:
    if cluster is None:
        return Local(job)
    from poise.path.executors.ray_executor import Remote  # which needs Ray

    return Remote(job, data, cluster)


@contextlib.contextmanager
def _bar(is_shown: bool):
    """A progress bar, as a function of the share that is done."""
    columns = [
        TextColumn("path"), BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    ]  # fmt: skip
    with Progress(*columns, disable=not is_shown, transient=True) as progress:
        task = progress.add_task("fit_path", total=1.0)
        yield lambda share: progress.update(task, completed=share)


def _compilation(model):
    """What the model was compiled with, but for the optimizers' names, which Keras counts up within a process."""
    config = copy.deepcopy(model.get_compile_config())
    optimizer = config.get("optimizer")
    while isinstance(optimizer, dict):
        optimizer["config"].pop("name", None)
        optimizer = optimizer["config"].get("inner")
    return config


def _plain_attributes(loss) -> list[str]:
    """The numbers and texts that a loss holds: Keras' configurations forget some, such as Huber's delta."""
    return sorted(
        f"{type(one).__name__}.{name}={value!r}"
        for one in keras.tree.flatten(loss)
        for name, value in getattr(one, "__dict__", {}).items()
        if isinstance(value, (bool, int, float, str))
    )


def _is_best_at_the_bottom(lanes: Lanes, strengths) -> bool:
    try:
        return len(strengths) >= 3 and chosen_position(lanes) == 0
    except ValueError:  # a lane diverged at every strength, of which the table tells
        return False


def _is_nothing_left(lanes: Lanes, strengths) -> bool:
    """Whether the lane of all rows keeps nothing at the chosen strength."""
    return bool(lanes.table["is_empty"].to_numpy().reshape(-1, len(strengths))[-1, chosen_position(lanes)])


def _repeated(factors, count):
    if factors is None:
        return None
    return {key: np.broadcast_to(value, (len(value), count, *value.shape[2:])) for key, value in factors.items()}


def _joined(low: Lanes, high: Lanes) -> Lanes:
    """The lanes of two grids, one below the other, as of one."""
    order = [*dict.fromkeys(zip(high.table["fold"], high.table["seed"], strict=True))]
    rank = {key: number for number, key in enumerate(order)}
    table = pd.concat([low.table, high.table], ignore_index=True)
    keys = [rank[key] for key in zip(table["fold"], table["seed"], strict=True)]
    table = table.assign(order=keys).sort_values(["order", "strength"]).drop(columns="order").reset_index(drop=True)

    def both(a, b):
        return np.concatenate([a, b], axis=1)

    features = None if low.features is None or high.features is None else both(low.features, high.features)
    sizes = {name: both(size, high.sizes[name]) for name, size in low.sizes.items()}
    return Lanes(table, sizes, features, [both(a, b) for a, b in zip(low.weights, high.weights, strict=True)])


def checked_rules(model, rules) -> list[Rule]:
    if rules is None:
        try:
            rules = get_penalized_optimizer(model).rules
        except ValueError:
            raise ValueError(
                "path has no rules: give a penalty, such as poise.fit_path(model, x, y, poise.L1()), or compile the model "
                "with poise.PenalizedOptimizer."
            ) from None
    rules = as_rules(rules)
    if not rules:
        raise ValueError("rules is empty, and a path is one of strengths. Give a penalty, such as poise.L1().")
    for rule in rules:
        strength = rule.penalty.strength
        if isinstance(strength, Schedule):
            raise ValueError(
                f"Rule {rule.name!r} has a scheduled strength, and a path trains each lane at one. Give it a number."
            )
        if not strength > 0:
            raise ValueError(
                f"Rule {rule.name!r} has the strength {strength:g}. The rules' strengths are their ratios in a path: "
                "give numbers > 0."
            )
    return rules


def checked_strengths(strengths):
    if isinstance(strengths, (int, np.integer)) and not isinstance(strengths, bool):
        if strengths < 1:
            raise ValueError(f"strengths={strengths}: give a number ≥ 1, or the strengths themselves.")
        return int(strengths)
    try:
        found = np.asarray(strengths, dtype="float64")
    except (TypeError, ValueError):
        raise TypeError(f"strengths={strengths!r}: give a number, or an array of numbers ≥ 0.") from None
    if found.ndim != 1 or not len(found):
        raise ValueError(f"strengths has the shape {found.shape}: give a number, or one row of numbers ≥ 0.")
    if not np.isfinite(found).all() or (found < 0).any():
        worst = found[~np.isfinite(found) | (found < 0)][0]
        raise ValueError(f"strengths holds {worst!r}: a strength is a finite number ≥ 0.")
    if found.max() > LARGEST:
        raise ValueError(f"strengths holds {found.max()!r}, beyond the range of float32: give at most {LARGEST:.2g}.")
    return np.unique(found)


def check_stages(adaptive) -> None:
    if isinstance(adaptive, bool) or not isinstance(adaptive, (int, np.integer)) or adaptive < 0:
        raise ValueError(f"adaptive={adaptive!r}: give a number of stages ≥ 0.")


def _are_classes(model) -> bool | None:
    """Whether the loss says that the targets are classes; None where it does not say."""
    loss = getattr(model, "loss", None)
    name = loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", "")
    return True if "crossentropy" in str(name).lower() else None
