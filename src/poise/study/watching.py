"""Repeat one training at the chosen strength and record it: losses and forces by step."""

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from poise.callbacks import ForceHistory, PenaltyLogger
from poise.diagnostics.force_balance import forces
from poise.layer_state import copy_state
from poise.optimizer.penalized import PenalizedOptimizer
from poise.path.data.batches import WHOLE, settling_batch_size
from poise.path.result import RegularizationPath
from poise.path.training import Replica
from poise.study.columns.folds import Folds

MOMENTS = 40
"""The number of steps at which losses and forces are recorded."""


@dataclass(frozen=True, eq=False)
class WatchedTraining:
    """A recorded training at the chosen strength, on the training rows of the first fold.

    Args:
        history: By step: `loss` (prediction), `penalty`, `total_loss` and `val_loss` (held-out rows of the fold).
        forces: The columns of `poise.forces` after `step`; one row per variable and recorded step.
        balance: `poise.forces` of the final network on all training rows.
        before: (weights,) the penalized weights of the initial network.
        after: (weights,) the weights of the final network.
    """

    history: pd.DataFrame
    forces: pd.DataFrame
    balance: pd.DataFrame
    before: np.ndarray
    after: np.ndarray


def watch_training(
    stage: RegularizationPath, strength: float, final: keras.Model, start: keras.Model, rows: Folds, steps: int
) -> WatchedTraining:
    """Train from the start, as the lane of the first fold did, and compute the forces on the final network.

    Args:
        stage: The path whose rules to train under.
        strength: The strength.
        final: The network trained on all rows at that strength.
        start: The compiled network from which every training starts.
        rows: The training rows.
        steps: The number of full-batch steps.
    """
    first = rows.replicas[0]
    model = keras.models.clone_model(start)
    copy_state(start, model)
    inner = start.optimizer.get_config()
    inner["learning_rate"] = keras.optimizers.schedules.CosineDecay(_learning_rate(start), steps)
    every = max(steps // MOMENTS, 1)
    optimizer = PenalizedOptimizer(
        type(start.optimizer).from_config(inner), stage.rules_at(strength, first.fold), "proximal", observe_every=every
    )
    model.compile(optimizer=optimizer, loss=start.loss)
    force_history = ForceHistory()
    epochs = max(steps // every, 1)
    history = model.fit(
        _repeat_batches(rows, first), steps_per_epoch=every, epochs=epochs, verbose=0, shuffle=False,
        callbacks=[PenaltyLogger(), force_history], validation_data=_take(rows, first.held),
        validation_batch_size=WHOLE,
    )  # fmt: skip
    steps_seen = pd.RangeIndex(every, every * epochs + 1, every, name="step")
    moments = force_history.table.assign(step=(force_history.table["epoch"] + 1) * every).drop(columns="epoch")
    balance = _final_forces(stage, strength, final, start, rows)
    return WatchedTraining(
        pd.DataFrame(history.history, index=steps_seen), moments, balance, _kernels(start), _kernels(final)
    )


def _final_forces(
    stage: RegularizationPath, strength: float, final: keras.Model, start: keras.Model, rows: Folds
) -> pd.DataFrame:
    model = keras.models.clone_model(start)
    copy_state(final, model)
    model.compile(PenalizedOptimizer("sgd", stage.rules_at(strength), update="proximal"), loss=start.loss)
    every_row = rows.replicas[-1].train
    x, y = rows.x[every_row], rows.y[every_row]
    weight = None if rows.weight is None else rows.weight[every_row]
    return forces(model, x, y, weight, batch_size=min(len(x), WHOLE))


def _repeat_batches(rows: Folds, replica: Replica) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the full batches of a lane, or its parts if there are many rows, without end."""
    train = np.random.default_rng([replica.fold + 1, replica.seed, 0]).permutation(replica.train)
    parts = np.array_split(train, -(-len(train) // settling_batch_size(len(train))))
    while True:
        for part in parts:
            yield _take(rows, part)


def _take(rows: Folds, positions: np.ndarray) -> tuple[np.ndarray, ...]:
    parts = (rows.x[positions], rows.y[positions])
    return parts if rows.weight is None else (*parts, rows.weight[positions])


def _learning_rate(model: keras.Model) -> float:
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


def _kernels(model: keras.Model) -> np.ndarray:
    kernels = [w for w in model.trainable_weights if len(w.shape) > 1]
    return np.concatenate([keras.ops.convert_to_numpy(w).ravel() for w in kernels])
