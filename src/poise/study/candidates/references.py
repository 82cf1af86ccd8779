"""Reference models: simple models fitted to the same rows. A study prints them even if they predict better.

They see the same encoded rows as the network and choose their settings in the same way: by the held-out loss over the
folds of the study.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from poise.path.training import Replica
from poise.study.columns.folds import Folds
from poise.study.tasks.base import Maker, Task

SMALL = 1_000_000
"""Numbers in the encoded rows of all folds up to which a single thread fits the models."""
TREES = 100
"""Iterations of boosting; scikit-learn's default."""
MANY_INPUTS = 1000
"""Inputs above which trees divide an input into `FEW_BINS` bins instead of 255: their time is proportional to both."""
FEW_BINS = 63


@dataclass(frozen=True)
class ReferenceModel:
    """A kind of reference model.

    Args:
        name: Its name in the results.
        title: Its name in tables and sentences; `""` for the constant model, which the task names.
        makers: A function of the task and the number of inputs. It returns functions, one per setting to choose from,
            that take the total weight of the training rows and return an estimator of scikit-learn.
        fits_path: Whether to fit a path of networks without hidden layers if `makers` returns no function for the task.
            Default: False, which leaves the reference model out.
    """

    name: str
    title: str
    makers: Callable[[Task, int], Sequence[Maker]]
    fits_path: bool = False


@dataclass(frozen=True, eq=False)
class ReferenceFit:
    """A reference model on the rows of a study.

    Args:
        name: As in `ReferenceModel`.
        title: Its name in tables and sentences.
        fold_losses: (folds,) the held-out losses.
        held_outputs: For each fold (rows, outputs) predictions of its held-out rows, in the form of the network's
            outputs.
        test_outputs: (rows, outputs) predictions of the test rows by the model of all training rows.
    """

    name: str
    title: str
    fold_losses: np.ndarray
    held_outputs: list[np.ndarray]
    test_outputs: np.ndarray


def _make_boosted_trees(task: Task, inputs: int) -> Sequence[Maker]:
    # The trees of every fold then see all of its training rows, whatever their number.
    options: dict[str, Any] = {"max_iter": TREES, "early_stopping": False, "random_state": 0}
    if inputs > MANY_INPUTS:
        options["max_bins"] = FEW_BINS
    return task.boosted_trees(options)


REFERENCES = (
    ReferenceModel("mean", "", lambda task, inputs: task.constant_models()),
    ReferenceModel("linear", "Linear model", lambda task, inputs: task.linear_models(), fits_path=True),
    ReferenceModel("boosted_trees", "Boosted trees", _make_boosted_trees),
)
"""A new reference model is one entry here."""


def fit_reference(model: ReferenceModel, task: Task, rows: Folds, x_test: np.ndarray, classes: int) -> ReferenceFit:
    """Fit a reference model on every fold and on all training rows, with the setting of the lowest held-out loss.

    Args:
        model: The kind of model.
        task: The task.
        rows: The training rows.
        x_test: The encoded test rows.
        classes: The number of classes; 0 if there are none.
    """
    # On few numbers, threads wait for each other longer than they compute.
    with threadpool_limits(1 if rows.x.size <= SMALL else None):
        return _fit_with_best_setting(model, task, rows, x_test, classes)


def _fit_with_best_setting(
    model: ReferenceModel, task: Task, rows: Folds, x_test: np.ndarray, classes: int
) -> ReferenceFit:  # fmt: skip
    folds, every = [replica for replica in rows.replicas if replica.fold >= 0], rows.replicas[-1]
    options = []
    for make in model.makers(task, rows.x.shape[1]):
        models = [_fit(make, rows, fold) for fold in folds]
        outputs = [_predict(task, each, rows.x[fold.held], classes) for each, fold in zip(models, folds, strict=True)]
        losses = [
            _held_out_loss(task, rows, fold, held, lambda x, each=each: _predict(task, each, x, classes))
            for each, fold, held in zip(models, folds, outputs, strict=True)
        ]
        options.append((np.array(losses), make, outputs))
    losses, make, outputs = min(options, key=lambda option: np.nan_to_num(option[0].mean(), nan=np.inf))
    test_outputs = _predict(task, _fit(make, rows, every), x_test, classes)
    return ReferenceFit(model.name, model.title or task.constant_title, losses, outputs, test_outputs)


def _held_out_loss(
    task: Task, rows: Folds, fold: Replica, held: np.ndarray, predict: Callable[[np.ndarray], np.ndarray]
) -> float:
    """Return the held-out loss of a fold, as the lanes of a path measure it.

    Args:
        task: The task.
        rows: The training rows.
        fold: The fold.
        held: The outputs for its held-out rows.
        predict: Returns the outputs for inputs.
    """

    def mean_loss(positions: np.ndarray, outputs: np.ndarray) -> float:
        weights = None if rows.weight is None else rows.weight[positions].astype("float64")
        return float(np.average(task.row_losses(rows.y[positions], outputs, weights), weights=weights))

    if not task.compares_rows:
        return mean_loss(fold.held, held)
    train = predict(rows.x[fold.train])
    both = mean_loss(np.concatenate([fold.train, fold.held]), np.concatenate([train, held]))
    counts = len(fold.train), len(fold.held)
    return (both * sum(counts) - mean_loss(fold.train, train) * counts[0]) / counts[1]


def _fit(make: Maker, rows: Folds, replica: Replica) -> Any:
    weight = None if rows.weight is None else rows.weight[replica.train].astype("float64")
    x, y = rows.x[replica.train].astype("float64"), np.asarray(rows.y[replica.train])
    y = y[:, 0] if y.shape[1:] == (1,) else y
    estimator = make(float(len(x) if weight is None else weight.sum()))
    with warnings.catch_warnings(action="ignore"):  # about settings that do not converge: the held-out loss judges them
        return estimator.fit(x, y, sample_weight=weight)


def _predict(task: Task, model: Any, x: np.ndarray, classes: int) -> np.ndarray:
    return task.reference_outputs(model, x.astype("float64"), classes)
