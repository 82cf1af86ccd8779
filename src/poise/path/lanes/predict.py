"""Predictions of lanes for their held-out rows."""

from typing import Any

import jax
import numpy as np

from poise.path.data.batches import settling_batch_size
from poise.path.lanes.parts import Part
from poise.path.lanes.problem import LaneNetwork
from poise.path.lanes.programs import PROGRAMS


def predict_rows(network: LaneNetwork, trained: list[Any], fixed: list[Any], x: Any, rows: jax.Array) -> jax.Array:
    """Return predictions, (replicas, strengths, rows, outputs).

    Args:
        network: network of the lanes.
        trained, fixed: as in `LaneState`.
        x: inputs of all rows.
        rows: (replicas, rows) positions.
    """

    def predict(trained: list[Any], fixed: list[Any], x: Any) -> jax.Array:
        with network.scope(trained, fixed):
            return network.model(x, training=False)

    inputs = jax.tree.map(lambda a: a[rows], x)
    return jax.vmap(jax.vmap(predict, in_axes=(0, 0, None)))(trained, fixed, inputs)


def predict_held_rows(network: LaneNetwork, x: Any, part: Part, count: int) -> np.ndarray:
    """Return the predictions of a part for its held-out rows, (replicas, strengths, count, outputs).

    Args:
        network: network of the lanes.
        x: inputs of all rows.
        part: the lanes.
        count: number of rows; where a replica has fewer, the others are NaN.
    """
    rows = [replica.predicted_rows(count) for replica in part.task.replicas]
    size = settling_batch_size(count)
    padded = np.zeros((len(rows), -(-count // size) * size), "int32")
    for number, positions in enumerate(rows):
        padded[number, : len(positions)] = positions
    state = part.state
    blocks = [
        PROGRAMS.call(predict_rows, network, state.trained, state.fixed, x, padded[:, first : first + size])
        for first in range(0, padded.shape[1], size)
    ]
    predictions = np.concatenate([*map(np.asarray, blocks)], axis=2)[:, :, :count].astype("float32")
    for number, positions in enumerate(rows):
        predictions[number, :, len(positions) :] = np.nan
    return predictions
