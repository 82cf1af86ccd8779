"""Dropout as a candidate of a study: the network with dropout after each hidden layer, and a path over its rate."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from poise.path.chunks import lane_number
from poise.path.dropout import LaneDropout
from poise.path.models import inner_optimizer
from poise.path.training import Replica
from poise.study.candidates.penalties import DEFAULT_PENALTIES, DROPOUT
from poise.study.errors import DataError

LOWEST_RATE, HIGHEST_RATE = 0.1, 0.7
LEFT_OUT_NOTE = "Dropout was left out, because it needs the built-in network with hidden layers."


def check_dropout(
    penalties: Sequence[str], choose: str | None, hidden: Sequence[int], has_custom_model: bool
) -> tuple[tuple[str, ...], list[str]]:
    """Return the penalties without dropout where a network cannot have it, and a note about that.

    Args:
        penalties: The names of the penalties.
        choose: The name of the penalty to choose, or `None`.
        hidden: The units of each hidden layer.
        has_custom_model: Whether the network is a custom one.

    Raises:
        DataError: If dropout was requested for such a network.
    """
    penalties = tuple(penalties)
    if DROPOUT not in penalties or (hidden and not has_custom_model):
        return penalties, []
    if penalties != DEFAULT_PENALTIES or choose == DROPOUT:
        network, remedy = (
            ("a custom model", "or add keras.layers.Dropout to the model")
            if has_custom_model
            else ("a network without hidden layers", "or add hidden layers")
        )
        raise DataError(
            f"Dropout needs the built-in network with hidden layers, got {network}. Remove {DROPOUT!r} from the "
            f"penalties, {remedy}.",
            "penalties",
        )
    return tuple(name for name in penalties if name != DROPOUT), [LEFT_OUT_NOTE]


def dropout_rates(strengths: int) -> np.ndarray:
    """Return evenly spaced rates, ascending: half as many as strengths, because they span less than one decade."""
    return np.linspace(LOWEST_RATE, HIGHEST_RATE, (strengths + 1) // 2).round(4)


def add_dropout(network: keras.Model, seed: int) -> keras.Model:
    """Return a compiled network with the same weights, and dropout of variable rate after each hidden layer.

    Args:
        network: What `build_network` returned, compiled.
        seed: The seed of the dropout.
    """

    def call_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
        output = layer(*args, **kwargs)
        prefix, _, number = layer.name.partition("_")
        return output if prefix != "hidden" else _make_layer(seed, int(number))(output)

    if isinstance(network, keras.Sequential):
        *hidden, last = [type(layer).from_config(layer.get_config()) for layer in network.layers]
        pairs = [(layer, _make_layer(seed, number)) for number, layer in enumerate(hidden, 1)]
        layers = [layer for pair in pairs for layer in pair]
        copy = keras.Sequential([keras.Input(network.input_shape[1:]), *layers, last], name=network.name)
    else:
        copy = keras.models.clone_model(network, call_function=call_layer)
    optimizer = inner_optimizer(network)
    copy.compile(optimizer=type(optimizer).from_config(optimizer.get_config()), loss=network.loss)
    for variable, value in zip(copy.trainable_variables, network.trainable_variables, strict=True):
        variable.assign(value)
    return copy


def _make_layer(seed: int, number: int) -> LaneDropout:
    return LaneDropout(seed=dropout_seed(seed, number), name=f"dropout_{number}")


def dropout_seed(seed: int, number: int) -> int:
    """Return the seed of the dropout after a hidden layer, counted from 1; each lane adds its number."""
    return (seed + number) % 2**30


def final_seeds(seed: int, layers: int, rate: float) -> list[int]:
    """Return the seeds with which the network of all training rows was trained, one per hidden layer."""
    lane = lane_number(Replica(-1, 0, np.arange(0), np.arange(0)), rate)
    return [dropout_seed(seed, number) + lane for number in range(1, layers + 1)]
