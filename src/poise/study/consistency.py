"""Check that the description, the encoder and the network of a saved study belong together."""

from collections.abc import Mapping

import keras
import pandas as pd

from poise.study.columns.encoding import Encoder
from poise.study.columns.kinds import kind_named
from poise.study.columns.set_aside import SET_ASIDE
from poise.study.errors import first_line
from poise.study.tasks.table import task_of

Shape = tuple[int | None, ...]


def find_inconsistency(description: Mapping, model: keras.Model, encoder: Encoder) -> str:
    """Return what does not fit, or `""`."""
    data, inputs = description["data"], description["inputs"]
    classes, task = data["classes"], task_of(description)
    if not task.allows_classes(len(classes)) or len(set(classes)) < len(classes):
        return f"{len(classes)} classes do not fit the task {task.name}"
    try:
        columns = [(column.name, column.kind) for column in encoder.columns]
        names = list(encoder.inputs)
        gaps = {column.name: kind_named(column.kind).missing_values(1) for column in encoder.columns}
        encoded = encoder.transform(pd.DataFrame(gaps))
    except Exception as error:  # scikit-learn's parts raise anything
        return f"the preprocessing does not encode rows, {first_line(error)}"
    if not set(description["needed_columns"]) <= {name for name, _ in columns}:
        return "study.json and preprocessing.skops name different columns"
    if columns != [(column["name"], column["kind"]) for column in data["columns"] if column["kind"] != SET_ASIDE]:
        return "study.json and preprocessing.skops name different columns"
    if [name for name in names if name in set(inputs)] != inputs or encoded.shape != (1, len(names)):
        return "study.json and preprocessing.skops name different inputs"
    expected_in: list[Shape] = [(None, len(inputs))]
    expected_out: list[Shape] = [(None, task.count_outputs(len(classes)))]
    shapes_in, shapes_out = _shapes(model, len(inputs))
    if shapes_in != expected_in or shapes_out != expected_out:
        return (
            f"the network takes {_list_shapes(shapes_in)} and returns {_list_shapes(shapes_out)}, and by study.json it "
            f"takes {_list_shapes(expected_in)} and returns {_list_shapes(expected_out)}"
        )
    return ""


def _shapes(model: keras.Model, inputs: int) -> tuple[list[Shape], list[Shape]]:
    """What a network takes and returns; a subclassed one is called on a symbolic input."""
    symbols = getattr(model, "inputs", None)
    if symbols:
        return [tuple(symbol.shape) for symbol in symbols], [tuple(symbol.shape) for symbol in model.outputs]
    try:
        outputs = keras.tree.flatten(model(keras.KerasTensor((None, inputs))))
    except Exception:  # layers raise anything
        return [], []
    return [(None, inputs)], [tuple(output.shape) for output in outputs]


def _list_shapes(shapes: list[Shape]) -> str:
    texts = [f"({', '.join('any' if size is None else str(size) for size in shape)})" for shape in shapes]
    return ", ".join(texts) or "something else"
