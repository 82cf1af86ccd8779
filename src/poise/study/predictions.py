"""Predict new rows with the network of a study."""

from collections.abc import Mapping

import keras
import numpy as np
import pandas as pd

from poise.study.columns.encoding import Encoder
from poise.study.columns.kinds import kind_named
from poise.study.columns.reading import convert_rows
from poise.study.errors import DataError, first_line
from poise.study.offsets import read_new_offsets
from poise.study.tasks.table import task_of

BATCH_SIZE = 1024
"""Rows that are predicted at once; the last batch is padded, so that no prediction depends on the other rows."""


def predict_rows(
    description: Mapping,
    model: keras.Model,
    encoder: Encoder,
    frame: pd.DataFrame,
    name: str,
    *,
    decimal: str | None = None,
) -> pd.DataFrame:
    """Predict the target of new rows.

    Args:
        description: The content of study.json; its `data`, `settings`, `inputs`, `needed_columns`, `center`, `scale`
            and `estimates` are used.
        model: The network; it takes the `inputs` of encoded rows.
        encoder: The encoder.
        frame: The rows, with the needed columns in any order; others are ignored.
        name: What error messages call the rows.
        decimal: The decimal mark of numbers in text. Default: `None`, that of the study or else of the rows.

    Returns:
        One row per row of `frame`, with its index, and the columns of `Task.tabulate`.

    Raises:
        DataError: If a column is missing or holds values of another kind, or the network fails.
    """
    data = description["data"]
    task = task_of(description)
    outputs = np.zeros((0, task.count_outputs(len(data["classes"]))))
    if len(frame):
        outputs = _predict_outputs(model, _encode_inputs(description, encoder, frame, name, decimal))
    task = task.with_estimates(description.get("estimates", {}))
    missing = description["settings"]["missing"]
    offset = read_new_offsets(data, frame, name, task, decimal, missing) if len(frame) else None
    columns = task.tabulate(outputs, data["target"], data["classes"], description["center"], description["scale"])
    if offset is not None:
        columns = {column: task.add_offset(values, offset) for column, values in columns.items()}
    return pd.DataFrame(columns, index=frame.index)


def predict_outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Return (rows, outputs) float64 of a network.

    The model is called directly, because `model.predict` compiles again for every new model.

    Args:
        model: The network.
        x: (rows, inputs).
    """
    padded = np.zeros((-(-len(x) // BATCH_SIZE) * BATCH_SIZE, *x.shape[1:]), x.dtype)
    padded[: len(x)] = x
    parts = [model(part, training=False) for part in np.split(padded, len(padded) // BATCH_SIZE)]
    return np.concatenate([*map(keras.ops.convert_to_numpy, parts)])[: len(x)].astype("float64")


def _encode_inputs(
    description: Mapping, encoder: Encoder, frame: pd.DataFrame, name: str, decimal: str | None
) -> np.ndarray:  # fmt: skip
    """Return the inputs of the network; columns that it does not need count as missing."""
    needed = [column for column in encoder.columns if column.name in set(description["needed_columns"])]
    missing = description["settings"]["missing"]
    converted = convert_rows(frame, needed, name, decimal=decimal, missing=missing)
    features = {
        column.name: converted[column.name] if column in needed else kind_named(column.kind).missing_values(len(frame))
        for column in encoder.columns
    }
    places = {label: place for place, label in enumerate(encoder.inputs)}
    return encoder.transform(pd.DataFrame(features))[:, [places[label] for label in description["inputs"]]]


def _predict_outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    try:
        return predict_outputs(model, x)
    except MemoryError:
        raise
    except Exception as error:  # layers raise anything
        raise DataError(f"The network {model.name!r} cannot predict these rows: {first_line(error)}.") from error
