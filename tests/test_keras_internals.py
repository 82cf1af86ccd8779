"""Keras' private names, one test each: a failure here names what a new version of Keras has changed."""

import ast
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from oracles.models import compiled, fitted, net

import poise
from poise import _keras_internals as internals

SOURCE = Path(poise.__file__).parent
ROOMS = ("optimizer", "rules", "penalties", "compaction", "cli", "callbacks.py")
"""The rooms in which no file but `_keras_internals.py` may touch private names of Keras' objects."""
PRIVATE_OF_KERAS = {
    *("_flatten_layers", "_nodes_by_depth", "_compile_config", "_trainable_variables", "_trainable_variables_indices"),
    *("_model_variables_moving_average", "_iterations", "_learning_rate", "_var_key", "_get_variable_index"),
    *("_u_product", "_distribution_strategy", "_track_trackable", "_backend_apply_gradients"),
}


def built(optimizer: Any, model: keras.Model) -> Any:
    optimizer.build(model.trainable_variables)
    return optimizer


@pytest.mark.parametrize("room", ROOMS)
def test_private_names_of_keras_stay_in_one_module(room: str) -> None:
    path = SOURCE / room
    for file in [path] if path.suffix else sorted(path.rglob("*.py")):
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)} & PRIVATE_OF_KERAS
        own = {"_iterations"} if file.name == "strengths.py" else set()  # an attribute of `Strengths`
        assert used <= own, f"{file} touches {used}"


def test_functional_and_saveable_are_what_keras_derives_from() -> None:
    inputs = keras.Input((2,))
    assert isinstance(keras.Model(inputs, layers.Dense(1)(inputs)), internals.Functional)
    assert isinstance(layers.Dense(1), internals.KerasSaveable)


def test_sublayers_of_a_nested_model() -> None:
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="inside")], name="inner")
    model = keras.Sequential([keras.Input((2,)), inner, layers.Dense(1, name="outside")], name="outer")

    def names(**arguments: bool) -> set[str]:
        return {layer.name for layer in internals.sublayers(model, **arguments)} - {"input_layer", "input_layer_1"}

    assert {"outer", "inner", "inside", "outside"} <= names()
    assert "outer" not in names(include_self=False)
    assert "inside" not in names(include_self=False, recursive=False)


def test_nodes_by_depth_of_a_graph() -> None:
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dense(1, name="last")(layers.Dense(2, name="first")(inputs)))
    nodes = internals.nodes_by_depth(model)
    assert [node.operation.name for node in nodes[0]] == ["last"]
    assert [node.operation.name for node in nodes[1]] == ["first"]


def test_loss_weights_of_a_compiled_model() -> None:
    model = net()
    model.compile("sgd", loss="mse", loss_weights=[2.0])
    assert internals.loss_weights(model) == [2.0]
    assert internals.compile_settings(model)["loss"] == "mse"
    assert internals.compile_settings(net()) == {}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_model_of_an_h5_file_is_found_while_it_is_loaded(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    find = internals.model_of_h5_file
    monkeypatch.setattr("poise.rules.calling_code.model_of_h5_file", lambda: models.append(find()) or models[-1])
    model = compiled(poise.PenalizedOptimizer("sgd", poise.L2(0.1)), loss=keras.losses.MeanSquaredError())
    fitted(model, epochs=1).save(tmp_path / "model.h5")
    assert find() is None

    loaded = keras.models.load_model(tmp_path / "model.h5")

    assert any(result is loaded for result in models)


def test_trained_variables_and_their_indices() -> None:
    model, other = net(), net()
    optimizer = built(optimizers.SGD(0.1), model)
    variables = model.trainable_variables

    assert all(a is b for a, b in zip(internals.trained_variables(optimizer), variables, strict=True))
    assert [internals.variable_index(optimizer, variable) for variable in variables] == [0, 1, 2, 3]
    assert internals.variable_indices(optimizer, [variables[2], other.trainable_variables[0]]) == [2, None]


def test_setting_the_trained_variables_is_what_build_does() -> None:
    model = net()
    ours, theirs = optimizers.SGD(0.1), built(optimizers.SGD(0.1), model)

    internals.set_trained_variables(ours, model.trainable_variables)

    for optimizer in (ours, theirs):
        assert internals.variable_indices(optimizer, model.trainable_variables) == [0, 1, 2, 3]
    assert len(ours.variables) == 2  # iterations and learning rate: the weights are not tracked


def test_moving_averages_are_those_that_keras_updates() -> None:
    model = net()
    optimizer = optimizers.SGD(0.1, use_ema=True)
    assert internals.moving_averages(optimizer) == []
    fitted(compiled(optimizer, model), epochs=1)
    averages = internals.moving_averages(model.optimizer)
    assert [tuple(v.shape) for v in averages] == [tuple(v.shape) for v in model.trainable_variables]

    internals.set_moving_averages(model.optimizer, averages[:1])
    assert len(internals.moving_averages(model.optimizer)) == 1


def test_step_count_counts_steps_and_iterations_count_updates() -> None:
    optimizer = optimizers.SGD(0.1, gradient_accumulation_steps=3)
    fitted(compiled(optimizer), epochs=1)  # 3 steps
    assert int(ops.convert_to_numpy(internals.step_count(optimizer))) == 3
    assert int(ops.convert_to_numpy(optimizer.iterations)) == 1


def test_learning_rate_or_schedule() -> None:
    schedule = optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert internals.learning_rate_or_schedule(optimizers.SGD(schedule)) is schedule
    rate = internals.learning_rate_or_schedule(optimizers.SGD(0.25))
    assert float(ops.convert_to_numpy(rate)) == 0.25


SLOTS = {
    "Adam": (optimizers.Adam, ["_velocities"]),
    "Adam-amsgrad": (lambda: optimizers.Adam(amsgrad=True), ["_velocity_hats"]),
    "RMSprop": (optimizers.RMSprop, ["_velocities"]),
    "Adagrad": (optimizers.Adagrad, ["_accumulators"]),
    "Adadelta": (optimizers.Adadelta, ["_accumulated_delta_vars", "_accumulated_grads"]),
    "Adamax": (optimizers.Adamax, ["_u"]),
    "Nadam": (optimizers.Nadam, ["_velocities"]),
    "Lamb": (optimizers.Lamb, ["_velocities", "_momentums"]),
    "Adafactor": (optimizers.Adafactor, ["_v"]),
}


@pytest.mark.parametrize(("make", "names"), SLOTS.values(), ids=SLOTS)
def test_slots_that_the_metrics_read_exist(make: Any, names: list[str]) -> None:
    model = net()
    optimizer = built(make(), model)
    for name in names:
        slot = internals.optimizer_slot(optimizer, name, 1)
        assert tuple(slot.shape) == (5,) or name == "_v"  # Adafactor keeps one row for a matrix


def test_product_of_the_momenta_of_nadam_starts_at_one() -> None:
    optimizer = built(optimizers.Nadam(0.1), net())
    assert float(ops.convert_to_numpy(internals.nadam_momentum_product(optimizer))) == 1.0


def test_distribution_strategy_is_known_on_tensorflow_only() -> None:
    strategy = internals.distribution_strategy(optimizers.SGD(0.1))
    if keras.backend.backend() == "tensorflow":
        assert strategy.num_replicas_in_sync == 1
    else:
        assert strategy is None


def test_tracking_in_a_checkpoint() -> None:
    optimizer = optimizers.SGD(0.1)
    variable = keras.Variable(np.zeros(2), name="extra")
    internals.track_in_checkpoint(optimizer, {"extra": variable})
    if keras.backend.backend() == "tensorflow":
        assert optimizer._lookup_dependency("extra") is variable


def test_hooks_and_step_methods_exist() -> None:
    from poise.optimizer.inner import BYPASSED, STEP_METHODS

    optimizer = keras.optimizers.Optimizer(0.1)
    on_tensorflow = {"_distributed_tf_update_step"}
    on_torch = {"_parallel_update_step"}
    names = {"_track_variable", *BYPASSED, *STEP_METHODS} - on_tensorflow - on_torch
    assert [name for name in sorted(names) if not hasattr(optimizer, name)] == []
    assert hasattr(internals.KerasSaveable, "_obj_type")
