"""Tables of dead units (poise.dead_units) and of the size of two models (poise.compare_models)."""

import os
import tempfile
from typing import Any

import numpy as np
import pandas as pd

from poise.compaction.analysis import UnitAnalysis
from poise.compaction.calls import CallGraph, Tensor
from poise.compaction.graph_analysis import GraphAnalysis
from poise.compaction.handlers import OPAQUE


def dead_units(model: Any, *, tolerance: float = 0.0, drop_inputs: bool = False, multiple: int = 1) -> pd.DataFrame:
    """List the units that `poise.compact` would remove, layer by layer, with the reasons.

    Args:
        model: Built functional or sequential `keras.Model`.
        tolerance: Float >= 0. Weights of at most this absolute value count as zero. Default: 0.0.
        drop_inputs: Whether features of the inputs can be removed, and with them the units that are added to them.
            Default: False.
        multiple: Int >= 1. Keep some dead units where needed, so that each layer has a multiple of this number of
            units, or all of its original units. Default: 1.

    Returns:
        A DataFrame with one row per layer that makes units, and one row for the heads of each attention layer. Columns:
        `layer`, `units` (number of units), `dead` (number of units that are removed) and `why` (why they are dead, or
        why units stay).

    Raises:
        TypeError: If `model` is not a Keras model, has no graph of layers, or an argument has the wrong type.
        ValueError: If the model cannot be compacted, or an argument is out of its range (see `poise.compact`).

    Examples:
        >>> import poise, keras
        >>> model = keras.Sequential(
        ...     [keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="zeros"), keras.layers.Dense(1)]
        ... )
        >>> poise.dead_units(model)["dead"].tolist()
        [1, 0]
    """
    return tabulate_units(UnitAnalysis(model, tolerance, drop_inputs, multiple))


def tabulate_units(analysis: GraphAnalysis) -> pd.DataFrame:
    """Return the table of `dead_units` for an analysis."""
    rows = []
    for layer in analysis.graph.layers:
        rows += [_row(analysis, name, tensors) for name, tensors in _created_units(analysis.graph, layer)]
        call = analysis.graph.calls_of(layer)[0]
        if call.handler is OPAQUE and analysis.graph.has_weights(layer):
            rows += [_row(analysis, call.name, [tensor]) for tensor in call.outputs]
    return pd.DataFrame(rows, columns=["layer", "units", "dead", "why"])


def _row(analysis: GraphAnalysis, name: str, tensors: list[Tensor]) -> dict:
    """Return the row of the units that a layer makes, over all of its calls."""
    tensor = tensors[0]
    stays = analysis.stays(tensor.units)
    is_constant = ~np.isnan([call.constants for call in tensors]).any(axis=0)
    is_needed = np.any([call.needed for call in tensors], axis=0)
    constant, unread = int((~stays & is_constant).sum()), int((~stays & ~is_constant).sum())
    kept_dead = int((stays & ~is_needed).sum())
    pinned = analysis.why_pinned(tensor.units)
    reasons = [
        f"{constant} constant" if constant else "",
        f"{unread} not read" if unread else "",
        f"all stay: {pinned}" if pinned else "",
        f"{kept_dead} dead but kept: removable only together with live units, or needed to reach a multiple"
        if kept_dead and not pinned
        else "",
    ]
    return {"layer": name, "units": len(stays), "dead": constant + unread, "why": "; ".join(filter(None, reasons))}


def compare_models(before: Any, after: Any) -> pd.DataFrame:
    """Compare the size of two models: parameters, operations, bytes and units.

    Args:
        before: Built functional or sequential `keras.Model`.
        after: Another one, such as `poise.compact(before)`.

    Returns:
        A DataFrame with the columns `before`, `after` and `ratio` (before / after). Rows: "parameters"; "FLOPs per
        sample" (two per product of layers with kernels and of attention, without activations and normalization; NaN
        where a length is not known); "file size" (bytes of the saved weights); and the number of units of every layer
        that both models have (layers of one name are added).

    Raises:
        TypeError: If a model is not a Keras model, or has no graph of layers.
        ValueError: If a model is not built, or has layers that cannot be compacted.

    Examples:
        >>> import poise, keras
        >>> def model(units):
        ...     return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, name="hidden")])
        >>> poise.compare_models(model(8), model(2)).loc[["parameters", "FLOPs per sample", "hidden"], "ratio"].tolist()
        [4.0, 4.0, 4.0]
    """
    pair = [_sizes(before), _sizes(after)]
    table = pd.DataFrame({"before": pair[0], "after": pair[1]}).reindex([name for name in pair[0] if name in pair[1]])
    return table.assign(ratio=table["before"] / table["after"])


def _sizes(model: Any) -> dict[str, float]:
    graph = UnitAnalysis(model).graph
    sizes = {
        "parameters": float(model.count_params()),
        "FLOPs per sample": 2.0 * sum(call.handler.count_products(call) for call in graph.calls),
        "file size": float(_file_size(model)),
    }
    for layer in graph.layers:
        for name, (tensor, *_) in _created_units(graph, layer):
            sizes[name] = sizes.get(name, 0.0) + len(tensor.units)
    return sizes


def _created_units(graph: CallGraph, layer: Any) -> list[tuple[str, list[Tensor]]]:
    """Return the names and tensors of the units that a layer makes, per call: its outputs, and the heads within."""
    calls = graph.calls_of(layer)
    if not calls[0].handler.makes_units:
        return []
    alike = [call for call in calls if call.form == calls[0].form]
    inside = [(f"{calls[0].name}, {name}", [call.within[name] for call in alike]) for name in calls[0].within]
    return [(calls[0].name, [call.outputs[0] for call in alike]), *inside]


def _file_size(model: Any) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.weights.h5")
        model.save_weights(path)
        return os.path.getsize(path)
