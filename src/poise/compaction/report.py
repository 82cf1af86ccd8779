"""What is dead in a model and why (poise.dead_units), and what compaction saves (poise.compare_models)."""

import os
import tempfile

import numpy as np
import pandas as pd

from poise.compaction.analysis import Findings
from poise.compaction.graph import Graph, Tensor
from poise.compaction.handlers import WALL


def dead_units(model, *, tolerance: float = 0.0, drop_inputs: bool = False, multiple: int = 1) -> pd.DataFrame:
    """Which units `poise.compact` would remove, layer by layer, and why, or why not.

    Args:
        model: a built functional or sequential Keras model.
        tolerance: weights whose size is at most this count as zero.
        drop_inputs: whether features of the inputs can go, and with them the units that are added to them.
        multiple: of which every layer keeps a number of units.

    Returns:
        A DataFrame, one row a layer that makes units (the heads of an attention have a row of their own): `layer`,
        `units` (how many it makes), `dead` (how many of them go) and `why` (what they died of, or why others stay).

    Raises:
        TypeError, ValueError: as `poise.compact`.

    Example:
        >>> import poise, keras
        >>> model = keras.Sequential(
        ...     [keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="zeros"), keras.layers.Dense(1)]
        ... )
        >>> poise.dead_units(model)["dead"].tolist()
        [1, 0]
    """
    findings = Findings(model, tolerance, drop_inputs, multiple)
    rows = []
    for layer in findings.graph.layers:
        rows += [_row(findings, name, tensors) for name, tensors in _made(findings.graph, layer)]
        if findings.graph.calls_of(layer)[0].kind is WALL and getattr(layer, "weights", None):
            rows += [_row(findings, layer.name, [tensor]) for tensor in findings.graph.calls_of(layer)[0].outputs]
    return pd.DataFrame(rows, columns=["layer", "units", "dead", "why"])


def _row(findings: Findings, name: str, tensors: list[Tensor]) -> dict:
    """What is said of the units that a layer makes, in all of its calls."""
    tensor = tensors[0]
    stays = findings.stays(tensor.units)
    is_constant = ~np.isnan([one.constants for one in tensors]).any(axis=0)
    is_needed = np.any([one.needed for one in tensors], axis=0)
    constant, unread = int((~stays & is_constant).sum()), int((~stays & ~is_constant).sum())
    left = int((stays & ~is_needed).sum())
    pinned = findings.why_pinned(tensor.units)
    reasons = [
        f"{constant} constant" if constant else "",
        f"{unread} read by nobody" if unread else "",
        f"all stay: {pinned}" if pinned else "",
        f"{left} dead ones stay, with others or to fill up" if left and not pinned else "",
    ]
    return {"layer": name, "units": len(stays), "dead": constant + unread, "why": "; ".join(filter(None, reasons))}


def compare_models(before, after) -> pd.DataFrame:
    """What a smaller model saves: parameters, operations, bytes, units.

    Args:
        before, after: two built functional or sequential Keras models.

    Returns:
        A DataFrame with the columns `before`, `after` and `ratio` (before / after): the rows "parameters", "FLOPs per
        sample" (two for every product of layers with kernels and of attention; activations and normalization are not
        counted; NaN where a length is not known), "file size" (bytes of the saved weights), and
        the units of every layer that both have (those of one name together).

    Raises:
        TypeError, ValueError: if a model is not built, or has no graph of layers.

    Example:
        >>> import poise, keras
        >>> def model(units):
        ...     return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, name="hidden")])
        >>> poise.compare_models(model(8), model(2)).loc[["parameters", "FLOPs per sample", "hidden"], "ratio"].tolist()
        [4.0, 4.0, 4.0]
    """
    pair = [_sizes(before), _sizes(after)]
    table = pd.DataFrame({"before": pair[0], "after": pair[1]}).reindex([name for name in pair[0] if name in pair[1]])
    return table.assign(ratio=table["before"] / table["after"])


def _sizes(model) -> dict[str, float]:
    graph = Findings(model).graph
    sizes = {
        "parameters": float(model.count_params()),
        "FLOPs per sample": 2.0 * sum(call.kind.products(call) for call in graph.calls),
        "file size": float(_bytes(model)),
    }
    for layer in graph.layers:
        for name, (tensor, *_) in _made(graph, layer):
            sizes[name] = sizes.get(name, 0.0) + len(tensor.units)
    return sizes


def _made(graph: Graph, layer) -> list[tuple[str, list[Tensor]]]:
    """The units that a layer makes, by name, call by call: its outputs, and the heads within."""
    calls = graph.calls_of(layer)
    if not calls[0].kind.makes_units:
        return []
    alike = [call for call in calls if call.form == calls[0].form]
    inside = [(f"{layer.name}, {name}", [call.within[name] for call in alike]) for name in calls[0].within]
    return [(layer.name, [call.outputs[0] for call in alike]), *inside]


def _bytes(model) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.weights.h5")
        model.save_weights(path)
        return os.path.getsize(path)
