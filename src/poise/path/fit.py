"""`poise.fit_path`: every strength of a grid, in every fold, in one call."""

import os
from typing import Any

import keras

from poise.path.arguments import check_adaptive, check_rules, check_strengths, has_class_targets
from poise.path.data.arrays import Data, prepare_data
from poise.path.data.folds import split_rows
from poise.path.data.streams import Stream, is_stream, split_by_hash
from poise.path.executors.ray_cluster import RayCluster
from poise.path.executors.registry import check_executor
from poise.path.models import check_model, is_cox
from poise.path.progress import show_progress
from poise.path.result import RegularizationPath
from poise.path.solve import solve_path
from poise.path.training import Replica, Training
from poise.survival.targets import check_folds, rank_times, stratification_target


def fit_path(
    model: keras.Model,
    x: Any,
    y: Any = None,
    rules: Any = None,
    *,
    strengths: Any = 100,
    cv: Any = 5,
    validation_data: tuple | None = None,
    n_init: int = 1,
    adaptive: int = 0,
    relax: bool = False,
    training: Training | None = None,
    sample_weight: Any = None,
    groups: Any = None,
    executor: str | RayCluster = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> RegularizationPath:
    """Train a model at every strength of a grid, in every fold, side by side.

    Args:
        model: Built and compiled Keras model, which is not changed. Its loss and its optimizer are those that it was
            compiled with.
        x: Array or nested structure of arrays, as for `model.fit`; the first axis is the rows. All values must be
            finite. For data larger than memory, pass only x: a `keras.utils.PyDataset`, a `tf.data.Dataset` or another
            iterable of batches (x, y) or (x, y, sample_weight) that can be read repeatedly. `cv` must then be an int,
            rows are assigned to folds by a hash of their position, and the batches are used as they are (`batch_size`
            has no effect).
        y: Targets, like x. Default: None, for a stream of batches.
        rules: A penalty, a `poise.Rule` or a list of those, with numbers as strengths. Default: None, which takes the
            rules of the `poise.PenalizedOptimizer` that the model was compiled with.
        strengths: The number of strengths, or the strengths themselves (>= 0). Given a number, a coarse scan finds the
            range of the grid. While the lowest validation loss is at the smallest strength, the grid is extended
            downward by a factor of 10, at most twice. The values are strengths of the first rule; the strengths of the
            other rules are scaled in proportion. Default: 100.
        cv: Cross-validation: an int (stratified if y holds classes, or by events with `poise.CoxPartialLikelihood`), a
            scikit-learn splitter, or a list of pairs (train, held) of positions or masks of rows. Default: 5.
        validation_data: (x, y) or (x, y, sample_weight) to validate on instead of cross-validation; `cv` is then not
            used. Default: None.
        n_init: Number of random initializations to train from. The first one uses the current weights of the model.
            Default: 1.
        adaptive: Number of adaptive (reweighted) stages. In each one, the penalty of a group (or entry) is divided
            by its size in the previous stage. The first adaptive stage takes the sizes at the largest strength that is
            at most two thirds of the best one, later stages at the best one. To select inputs as a study does, pass
            `rules=poise.input_sparsity(model)` and `adaptive=2`. Default: 0.
        relax: Whether to train once more without the penalty on the weights that are not zero (`path.relaxed`).
            Default: False.
        training: How every lane is trained. Default: None, which is `poise.Training()`, or, with adaptive stages and
            rows in memory, `poise.Training.full_batch()`, as in a study. If the loss compares the rows of a batch
            (`loss.whole_batch` is True), as `poise.CoxPartialLikelihood` does, every batch must have all rows: the
            default is then `poise.Training.full_batch()`, and each step uses all rows, however many there are. The
            held-out loss is the loss of all rows minus that of the training rows.
        sample_weight: (rows,) as for `model.fit`. Default: None.
        groups: (rows,) for the folds: rows of one group stay together. Default: None.
        executor: Where to train: `"in_process"` (this process, which must run on JAX), `"subprocess"` (a new process on
            JAX), `"ray"` or a `poise.RayCluster` (the machines of a Ray cluster). Default: `"auto"`, which is this
            process if it runs on JAX, else a subprocess.
        checkpoint: Folder for finished chunks, from which the same call resumes. Default: None.
        progress: Whether to show a progress bar. Default: True.

    Returns:
        A `poise.RegularizationPath`.

    Raises:
        TypeError: If an argument has a wrong type, before anything is trained.
        ValueError: If the model cannot be trained in lanes, data are not finite, folds cannot be made, or an argument
            has a wrong value, before anything is trained.

    References:
        Friedman, Hastie and Tibshirani 2010, "Regularization paths for generalized linear models via coordinate
        descent" (the path); Zou 2006, "The adaptive lasso" (the stages); Verweij and van Houwelingen 1993,
        "Cross-validation in survival analysis" (the held-out loss of a Cox model).

    Examples:
        >>> import poise, keras, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.Adam(0.05), loss="mse")
        >>> training = poise.Training(epochs=20, settle=200)
        >>> path = poise.fit_path(model, x, x[:, :1], poise.L1(), strengths=5, cv=2, training=training, progress=False)
        >>> path.features(path.best_strength).tolist()
        [0]
    """
    check_model(model)
    executor = check_executor(executor)
    rules = check_rules(model, rules)
    strengths = check_strengths(strengths)
    check_adaptive(adaptive)
    if isinstance(cv, tuple):
        raise TypeError(
            "cv must not be a tuple. Pass validation rows as validation_data=(x, y), or folds as a list of pairs "
            "(train, held)."
        )
    prepare = _prepare_stream if is_stream(x) else _prepare_arrays
    data, replicas = prepare(model, x, y, sample_weight, groups, cv, validation_data, n_init)
    with show_progress("path", progress) as show:
        return solve_path(
            model, rules, data, replicas,
            executor=executor, strengths=strengths, adaptive=adaptive, relax=relax, training=training,
            checkpoint=checkpoint, report=lambda share: show(share, None),
        )  # fmt: skip


def _prepare_arrays(
    model: Any, x: Any, y: Any, sample_weight: Any, groups: Any, cv: Any, validation_data: Any, n_init: int
) -> tuple[Data, list[Replica]]:
    has_ranks = is_cox(model)
    if has_ranks:
        y, validation_data = _with_ranks(y, validation_data)
    data = prepare_data(model, x, y, sample_weight, groups, validation_data)
    target = stratification_target(data.y, data.sample_weight, cv) if has_ranks else data.y
    replicas = split_rows(
        data.rows, target, cv, n_init, groups,
        validation_rows=data.validation_rows, sample_weight=data.sample_weight, are_classes=has_class_targets(model),
        checks_classes=not has_ranks,
    )  # fmt: skip
    if has_ranks:
        check_folds(data.y, data.sample_weight, [(replica.fold, replica.train) for replica in replicas])
    return data, replicas


def _with_ranks(y: Any, validation_data: Any) -> tuple[Any, Any]:
    """Return the targets and validation data with ranks instead of times, which float32 represents exactly."""
    if not isinstance(validation_data, tuple) or len(validation_data) < 2:
        return rank_times(y)[0], validation_data
    y, validation_y = rank_times(y, validation_data[1])
    return y, (validation_data[0], validation_y, *validation_data[2:])


def _prepare_stream(
    model: Any, x: Any, y: Any, sample_weight: Any, groups: Any, cv: Any, validation_data: Any, n_init: int
) -> tuple[Data, list[Replica]]:
    arguments = {"y": y, "sample_weight": sample_weight, "groups": groups, "validation_data": validation_data}
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{name} must be None if x is a stream of batches (x, y) or (x, y, sample_weight).")
    stream = Stream(x)
    return Data(stream, None, None, rows=stream.rows), split_by_hash(stream.rows, cv, n_init)
