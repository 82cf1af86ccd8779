"""The whole job on a table: does a penalty help here, which, how strong, what survives, how sure are we?

A test set is put aside first, and nothing but the last scores sees it. The rows that train are encoded in every fold by
what that fold trains on. Then one path runs for every penalty and one lane without any, all from the same initial
weights by full-batch steps; the strength with the lowest held-out loss predicts, and what survives is told at the
largest strength within one standard error of it (after adaptive stages, at the best). The network of the chosen
strength has seen all training rows, and is compared with that without a penalty on the same test rows.
"""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
from scipy.stats import ttest_rel

from poise.path.data.arrays import Data
from poise.path.executors.ray_cluster import RayCluster
from poise.path.fit import checked_executor, solved_by
from poise.path.result import RegularizationPath
from poise.path.training import Training
from poise.penalties import L2
from poise.rules.rule import PENALIZED_BY_DEFAULT, Rule
from poise.study.candidates.candidates import DEFAULTS, best_stage, kind_of, row_of, rules_of, started, trained_for
from poise.study.columns.encoding import Folds, folds_of
from poise.study.result import NONE, Candidate, Settings, Study
from poise.study.scores import Estimate, Judge, Outcome, outcome
from poise.study.sources import DataError
from poise.study.splits import fold_pairs, put_aside
from poise.study.tables import Table, read
from poise.study.watching import watched

Progress = Callable[[float, str], None]
"""Called with the share of the work that is done and with what is being done."""

WORSE = 0.05
"""The p-value below which the folds show that one penalty predicts worse than another."""


def run_study(
    data,
    target: str | None = None,
    *,
    task: str | None = None,
    penalties: Sequence[str] = DEFAULTS,
    choose: str | None = None,
    hidden_layer_sizes: Sequence[int] = (64,),
    model: str | Callable[[int, int], keras.Model] | None = None,
    drop: Sequence[str] = (),
    groups: str | None = None,
    time_column: str | None = None,
    weight: str | None = None,
    cv: int = 4,
    strengths: int = 13,
    n_init: int = 1,
    max_iter: int = 800,
    learning_rate: float = 0.01,
    test: float = 0.2,
    seed: int = 0,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    executor: str | RayCluster = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Study:
    """Finds out whether a penalty helps on a table, which, how strong, and what survives it.

    Args:
        data: "diabetes", "breast_cancer", "digits", "wine", the path of a CSV, TSV, Parquet, Excel or NPZ file, "-"
            for CSV on the standard input, or a DataFrame.
        target: the column to predict; a built-in table has its own.
        task: "regression", "binary", "multiclass" or "counts"; None infers one of the first three.
        penalties: of "l2", "l1", "group", "adaptive", "elasticnet", "sparse_group", "mcp" and "scad". A network
            without a penalty is always trained too.
        choose: the penalty to take whatever the held-out losses say.
        hidden_layer_sizes: units of the hidden layers; () is a linear model.
        model: one's own network instead: a function of the numbers of inputs and of outputs that returns a built Keras
            model, or its place as text, "module:function". If it is compiled, its optimizer is used.
        drop: columns to leave out.
        groups: a column whose rows of one value stay together, in folds and in the test set.
        time_column: a column by which no fold trains on the future; the test set is the latest rows.
        weight: a column of sample weights.
        cv, strengths, n_init: how many folds, strengths a path and draws of initial weights.
        max_iter: full-batch steps a lane.
        learning_rate: Adam's, falling to zero by a cosine.
        test: the share of rows that is put aside for the last scores.
        seed: decides test rows, folds and initial weights; Keras' and NumPy's global seeds are set to it.
        delimiter, decimal, encoding: of a CSV file; None finds them.
        executor: where the paths run, as for `poise.fit_path`; the answer does not depend on it.
        checkpoint: a folder for what is finished; the same call goes on from it.
        progress: called with the share of the work that is done, and with what is being done.

    Raises:
        DataError: the data or a setting cannot be used; the text says why and what to do.

    References:
        The paths are those of `poise.fit_path`; the intervals are percentiles of the bootstrap (Efron and Tibshirani 1993).

    Example:
        >>> from poise.study import run_study
        >>> found = run_study("wine", penalties=["l2"], strengths=3, cv=2, max_iter=20)
        >>> list(found.results.index)
        ['none', 'l2']
    """
    began = time.perf_counter()
    report = progress or (lambda share, what: None)
    settings = Settings(
        tuple(dict.fromkeys(name for name in penalties if name != NONE)), choose, tuple(hidden_layer_sizes),
        model if model is None or isinstance(model, str) else getattr(model, "__name__", repr(model)),
        cv, strengths, n_init, max_iter, learning_rate, test, seed, tuple(drop), delimiter, decimal, encoding,
    )  # fmt: skip
    for name in settings.penalties:
        kind_of(name)
    try:
        engine = checked_executor(executor)
    except ValueError as error:
        raise DataError(str(error)) from None
    report(0.0, "reading")
    table = read(
        data, target, task=task, drop=drop, groups=groups, time=time_column, weight=weight,
        delimiter=delimiter, decimal=decimal, encoding=encoding,
    )  # fmt: skip
    training, testing = put_aside(table, test, seed)
    rows = folds_of(table, training, fold_pairs(table, training, cv, seed))
    start = _start(table, rows, settings, model)
    judge, x_test = _judge(table, testing, rows, settings)

    sources = {name: trained_for(name, settings.penalties) for name in settings.penalties}
    costs = {NONE: 0.3, **{name: 1.0 + kind_of(name).adaptive for name in sources.values()}, "watching": 0.5}
    done = 0.0
    solved: dict[str, RegularizationPath] = {}
    found: list[Candidate] = []
    for name in (NONE, *settings.penalties):
        title = "No penalty" if name == NONE else kind_of(name).title
        source = sources.get(name, name)
        if source not in solved:

            def part(share, source=source, title=title, done=done):
                report((done + share * costs[source]) / sum(costs.values()), title)

            folder = None if checkpoint is None else os.path.join(os.fspath(checkpoint), source)
            solved[source] = _solved(source, start, rows, settings, engine, folder, part)
            done += costs[source]
        path = solved[source] if source == name else [*solved[source].stages, solved[source]][0]
        found.append(_candidate(name, title, path, rows, judge, x_test, found[0].outcome if found else None))
    report(done / sum(costs.values()), "watching")
    chosen = settings.choose or _preferred(found[1:] or found).name
    traced = {
        one.name: watched(one.stage, one.strength, one.model, start, rows, max_iter)
        for one in found
        if one.name in (NONE, chosen)
    }
    report(1.0, "done")
    counts = {"training": len(training), "test": len(testing)}
    return Study(
        table, settings, tuple(found), chosen, rows.encoder, rows.center, rows.scale, counts, traced,
        time.perf_counter() - began,
    )  # fmt: skip


def _judge(table: Table, testing: np.ndarray, rows: Folds, settings: Settings) -> tuple[Judge, np.ndarray]:
    """The test rows for scores, and encoded."""
    target = table.target.iloc[testing]
    if table.classes:
        y = target.map({label: number for number, label in enumerate(table.classes)}).to_numpy("int32")
        y = y[:, None].astype("float32") if table.task == "binary" else y
    else:
        y = ((target.to_numpy("float64") - rows.center) / rows.scale).astype("float32")[:, None]
    weight = None if table.weight is None else table.weight.iloc[testing].to_numpy("float64")
    if weight is not None and not weight.any():
        raise DataError("The test rows all have weight 0. Use another seed, or another share of test rows.")
    groups = None if table.groups is None else table.groups.iloc[testing].to_numpy()
    return Judge(table.task, y, weight, groups, settings.seed), rows.encoder.transform(table.features.iloc[testing])


def _start(table: Table, rows: Folds, settings: Settings, model) -> keras.Model:
    """The compiled network from which every lane starts."""
    keras.utils.set_random_seed(settings.seed)
    every = rows.replicas[-1].train
    return started(
        table.task, rows.x.shape[1], len(table.classes), rows.y[every],
        None if rows.weight is None else rows.weight[every], settings.hidden_layer_sizes, settings.learning_rate, model,
    )  # fmt: skip


def _solved(name, start, rows: Folds, settings: Settings, engine, checkpoint, report) -> RegularizationPath:
    rules = [Rule(list(PENALIZED_BY_DEFAULT), L2())] if name == NONE else rules_of(name, start, rows.encoder.owners)
    replicas = [replace(one, seed=seed) for seed in range(settings.n_init) for one in rows.replicas]
    return solved_by(
        engine, start, rules, Data(rows.x, rows.y, rows.weight, len(rows.x), rows.encoder.inputs), replicas,
        report=report,
        strengths=np.array([0.0]) if name == NONE else settings.strengths,
        adaptive=0 if name == NONE else kind_of(name).adaptive,
        relax=False,
        training=Training(epochs=0, settle=settings.max_iter),
        checkpoint=checkpoint,
    )  # fmt: skip


def _candidate(
    name, title, path: RegularizationPath, rows: Folds, judge: Judge, x_test, baseline: Outcome | None
) -> Candidate:
    try:
        stage = best_stage(path)
    except ValueError as error:
        raise DataError(f"{title}: {error}") from None
    strength = stage.best_strength
    own = row_of(stage, strength)
    kept_at = path.best_strength if path.stages or name == NONE else path.one_se_strength
    kept, stability = _survivors(path, kept_at, rows.encoder.owners)
    model = stage.model(strength)
    said = outcome(judge.task, judge.y, model.predict(x_test, batch_size=1024, verbose=0))
    nothing = Estimate(float("nan"), float("nan"), float("nan"))
    return Candidate(
        name, title, path, stage, strength, kept_at, kept, stability, float(own["val_loss"]), float(own["val_se"]),
        model, said, judge.loss(said), judge.score(said),
        nothing if baseline is None else judge.gain(said, baseline),
    )  # fmt: skip


def _preferred(found: Sequence[Candidate]) -> Candidate:
    """The first, in the order given, that the folds do not show to be worse than that of the lowest held-out loss.

    They show it where the paired t test of the losses by fold (Student 1908), one-sided, has p < `WORSE`. The lowest of
    several noisy losses is often so by chance, and by more than one standard error where the folds are few.
    """
    losses = [_by_fold(one) for one in found]
    lowest = losses[int(np.argmin([one.val_loss for one in found]))]
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of differences that are all the same
        p_values = [ttest_rel(loss, lowest, alternative="greater").pvalue for loss in losses]
    return next(one for one, p_value in zip(found, p_values, strict=True) if not p_value < WORSE)


def _by_fold(one: Candidate) -> np.ndarray:
    """(folds,) the held-out losses where a candidate predicts, the mean over its draws of initial weights."""
    lanes = one.stage.lanes.table
    held = lanes[(lanes["strength"] == one.strength) & (lanes["fold"] >= 0)]
    return held.groupby("fold")["held_loss"].mean().to_numpy()


def _survivors(path: RegularizationPath, strength: float, owners: Sequence[str]):
    """The columns that the network of a strength reads, and by column the share of its lanes that read it."""
    features = path.lanes.features
    if features is None:
        return None, None
    at = int(np.argmin(np.abs(path.strengths - strength)))
    read = pd.DataFrame(features[:, at].astype(bool).T, index=[*owners]).groupby(level=0, sort=False).any()
    live = set(np.asarray(owners)[path.features(strength)])
    return tuple(column for column in read.index if column in live), read.mean(axis=1)
