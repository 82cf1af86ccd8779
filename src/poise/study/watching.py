"""A training at the chosen strength, watched from beginning to end: both losses, and both forces on every layer."""

from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from poise.callbacks import ForceHistory, PenaltyLogger
from poise.diagnostics.force_balance import forces
from poise.layer_state import copy_state
from poise.optimizer.penalized import PenalizedOptimizer
from poise.path.data.batches import WHOLE, at_once
from poise.path.result import RegularizationPath
from poise.path.training import Replica
from poise.study.columns.encoding import Folds

MOMENTS = 40
"""At how many steps the losses and forces are noted."""


@dataclass(frozen=True, eq=False)
class Watched:
    """A training at the chosen strength, on the rows of the first fold, watched from beginning to end.

    Args:
        history: by step `loss` (prediction), `penalty`, `total_loss` and `val_loss` (on the rows held out).
        forces: the columns of `poise.forces` after `step`, one row a variable and moment.
        balance: `poise.forces` of the final network on all training rows: the certificate.
        before, after: the weights that are penalized, (weights,), of the initial and the final network.
    """

    history: pd.DataFrame
    forces: pd.DataFrame
    balance: pd.DataFrame
    before: np.ndarray
    after: np.ndarray


def watched(
    stage: RegularizationPath, strength: float, final: keras.Model, start: keras.Model, rows: Folds, steps: int
) -> Watched:
    """Trains from the start as a lane of the first fold did, and measures the balance of the final network.

    Args:
        stage, strength: whose rules to train under.
        final: the network of all training rows at that strength.
        start: the compiled network from which the lanes started.
        rows: that train.
        steps: full-batch steps.
    """
    first = rows.replicas[0]
    model = keras.models.clone_model(start)
    copy_state(start, model)
    inner = start.optimizer.get_config()
    inner["learning_rate"] = keras.optimizers.schedules.CosineDecay(_rate(start.optimizer), steps)
    every = max(steps // MOMENTS, 1)
    optimizer = PenalizedOptimizer(
        type(start.optimizer).from_config(inner), stage.rules_at(strength, first.fold), "proximal", observe_every=every
    )
    model.compile(optimizer=optimizer, loss=start.loss)
    remembered = ForceHistory()
    epochs = max(steps // every, 1)
    history = model.fit(
        _endless(rows, first), steps_per_epoch=every, epochs=epochs, verbose=0, shuffle=False,
        callbacks=[PenaltyLogger(), remembered], validation_data=_given(rows, first.held), validation_batch_size=WHOLE,
    )  # fmt: skip
    noted = pd.RangeIndex(every, every * epochs + 1, every, name="step")
    moments = remembered.table.assign(step=(remembered.table["epoch"] + 1) * every).drop(columns="epoch")
    ended = keras.models.clone_model(start)
    copy_state(final, ended)
    ended.compile(PenalizedOptimizer("sgd", stage.rules_at(strength), update="proximal"), loss=start.loss)
    every_row = rows.replicas[-1].train
    x, y = rows.x[every_row], rows.y[every_row]
    weight = None if rows.weight is None else rows.weight[every_row]
    balance = forces(ended, x, y, weight, batch_size=min(len(x), WHOLE))
    return Watched(pd.DataFrame(history.history, index=noted), moments, balance, _penalized(start), _penalized(final))


def _endless(rows: Folds, replica: Replica):
    """The batches of settling: all rows, or as many at once as settling takes, again and again."""
    train = np.random.default_rng([replica.fold + 1, replica.seed, 0]).permutation(replica.train)
    parts = np.array_split(train, -(-len(train) // at_once(len(train))))
    while True:
        for part in parts:
            yield _given(rows, part)


def _given(rows: Folds, positions):
    parts = (rows.x[positions], rows.y[positions])
    return parts if rows.weight is None else (*parts, rows.weight[positions])


def _rate(optimizer) -> float:
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def _penalized(model: keras.Model) -> np.ndarray:
    kernels = [w for w in model.trainable_weights if len(w.shape) > 1]
    return np.concatenate([keras.ops.convert_to_numpy(w).ravel() for w in kernels])
