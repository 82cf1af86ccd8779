"""The training at the chosen strength, as its lane recorded it: losses and forces by step."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd

from poise.diagnostics.force_balance import compare_forces
from poise.path.result import RegularizationPath
from poise.rules.members import path_of


@dataclass(frozen=True, eq=False)
class WatchedTraining:
    """A recorded training at the chosen strength, on the training rows of the first fold.

    Args:
        history: By step: `loss` (prediction), `penalty`, `total_loss` and `val_loss` (held-out rows of the fold).
        forces: After each recorded `step`, the columns of `poise.forces` about the two gradients; one row per variable
            and step.
        balance: The columns of `poise.forces` on all training rows, at the final weights of the network on these rows.
        before: (weights,) the entries of all kernels of the initial network.
        after: (weights,) the same entries of the final network.
    """

    history: pd.DataFrame
    forces: pd.DataFrame
    balance: pd.DataFrame
    before: np.ndarray
    after: np.ndarray


def watch_training(
    stage: RegularizationPath, strength: float, final: keras.Model, start: keras.Model
) -> WatchedTraining:
    """Return what the lanes of a strength recorded.

    Args:
        stage: The path.
        strength: The strength.
        final: The network trained on all rows at that strength.
        start: The network from which every training starts.
    """
    lanes, position = stage.lanes, int(np.argmin(np.abs(stage.strengths - strength)))
    recorded = {name: values[0, position] for name, values in lanes.history.items()}
    is_recorded = np.isfinite(recorded["length"])
    steps = pd.Index(recorded["length"][is_recorded].astype(int), name="step")
    names = {"loss": "loss", "penalty": "penalty", "held_loss": "val_loss"}
    history = pd.DataFrame({column: recorded[name][is_recorded] for name, column in names.items()}, index=steps)
    history.insert(2, "total_loss", history["loss"] + history["penalty"])
    variables = [*lanes.sizes]
    forces = pd.DataFrame(
        [
            {"step": step, "variable": variable, **compare_forces(sums)}
            for step, rows in zip(steps, recorded["squares"][is_recorded], strict=True)
            for variable, sums in zip(variables, rows, strict=True)
        ]
    )
    return WatchedTraining(
        history.sort_index(), forces, _balance(stage, position, final), _kernels(start), _kernels(final)
    )


def _balance(stage: RegularizationPath, position: int, final: keras.Model) -> pd.DataFrame:
    """Return the forces on the network of all rows."""
    lanes = stage.lanes
    folds = lanes.table["fold"].to_numpy().reshape(-1, len(stage.strengths))[:, 0]
    full = int(np.flatnonzero(folds < 0)[0])
    weights = {path_of(w): keras.ops.convert_to_numpy(w) for w in final.trainable_weights}
    assert lanes.squares is not None
    rows: list[dict[str, Any]] = []
    for variable, sums in zip(lanes.sizes, lanes.squares[full, position], strict=True):
        entries = weights.get(variable, lanes.sizes[variable][full, position])
        rows.append({"variable": variable, **compare_forces(sums), "zeros": float(np.mean(entries == 0))})
    return pd.DataFrame(rows)


def _kernels(model: keras.Model) -> np.ndarray:
    kernels = [w for w in model.trainable_weights if len(w.shape) > 1]
    return np.concatenate([keras.ops.convert_to_numpy(w).ravel() for w in kernels])
