"""Keras' private names, one test each: a failure here names what a new version of Keras has changed."""

import ast
import importlib
import inspect
import pkgutil
import sys
import textwrap
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from oracles.models import compiled, fitted, net

import poise
from poise import _keras_internals as internals


def built(optimizer: Any, model: keras.Model) -> Any:
    optimizer.build(model.trainable_variables)
    return optimizer


def test_functional_and_saveable_are_what_keras_derives_from() -> None:
    inputs = keras.Input((2,))
    assert isinstance(keras.Model(inputs, layers.Dense(1)(inputs)), internals.Functional)
    assert isinstance(layers.Dense(1), internals.KerasSaveable)


# ---------------------------------------------------------------- models and their graphs


def test_functional_model_inside_a_sequential_model() -> None:
    model = keras.Sequential([layers.Dense(1)])
    assert internals.functional_inside(model) is None
    model.build((None, 2))

    functional: Any = internals.functional_inside(model)

    rows = np.ones((3, 2), "float32")
    np.testing.assert_array_equal(functional.predict(rows, verbose=0), model.predict(rows, verbose=0))
    assert isinstance(functional, internals.Functional)


def test_structures_of_the_inputs_and_outputs() -> None:
    inputs = {"b": keras.Input((2,), name="b"), "a": (keras.Input((2,), name="a"),)}
    outputs = [layers.Dense(1)(inputs["b"]), {"out": layers.Dense(1)(inputs["a"][0])}]
    model: Any = keras.Model(inputs, outputs)

    for structure, tensors in [
        (internals.input_structure(model), inputs),
        (internals.output_structure(model), outputs),
    ]:
        keras.tree.assert_same_structure(structure, tensors)
        pairs = zip(keras.tree.flatten(structure), keras.tree.flatten(tensors), strict=True)
        assert all(a is b for a, b in pairs)


def test_operation_that_produces_a_tensor() -> None:
    inputs, dense = keras.Input((2,), name="rows", optional=True), layers.Dense(1)
    assert internals.operation_of(dense(inputs)) is dense
    assert type(internals.operation_of(ops.relu(inputs))).__name__ == "Relu"
    source = internals.operation_of(inputs)
    assert isinstance(source, layers.InputLayer)
    assert (source.name, source.optional) == ("rows", True)


def test_a_model_is_set_up_when_its_layers_can_be_listed() -> None:
    bare: Any = object.__new__(keras.Model)  # as another thread may see it while it is created
    assert not internals.is_set_up(bare)
    with pytest.raises(AttributeError):
        internals.sublayers(bare)
    assert internals.is_set_up(keras.Model())
    assert internals.sublayers(keras.Model(), include_self=False) == []


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


def test_settings_of_compile_are_what_keras_saves() -> None:
    model = compiled("sgd")
    internals.compile_settings(model)["optimizer"] = optimizers.Adam(0.5)
    assert model.get_compile_config()["optimizer"]["class_name"] == "Adam"


# ---------------------------------------------------------------- layers


def test_sublayers_of_a_nested_model() -> None:
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="inside")], name="inner")
    model = keras.Sequential([keras.Input((2,)), inner, layers.Dense(1, name="outside")], name="outer")

    def names(**arguments: bool) -> set[str]:
        return {layer.name for layer in internals.sublayers(model, **arguments)} - {"input_layer", "input_layer_1"}

    assert {"outer", "inner", "inside", "outside"} <= names()
    assert "outer" not in names(include_self=False)
    assert "inside" not in names(include_self=False, recursive=False)


def test_gate_of_an_attention() -> None:
    inputs = keras.Input((4, 3))
    plain, gated = layers.MultiHeadAttention(2, 3), layers.MultiHeadAttention(2, 3, use_gate=True)
    for attention in (plain, gated):
        attention(inputs, inputs)
    assert [internals.has_gate(attention) for attention in (plain, gated)] == [False, True]
    assert [len(attention.weights) for attention in (plain, gated)] == [8, 10]  # the gate has a kernel and a bias


# ---------------------------------------------------------------- optimizers


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
    "Adam": (optimizers.Adam, ["velocities"]),
    "Adam-amsgrad": (lambda: optimizers.Adam(amsgrad=True), ["velocity_hats"]),
    "RMSprop": (optimizers.RMSprop, ["velocities"]),
    "Adagrad": (optimizers.Adagrad, ["accumulators"]),
    "Adadelta": (optimizers.Adadelta, ["accumulated_delta_vars", "accumulated_grads"]),
    "Adamax": (optimizers.Adamax, ["u"]),
    "Nadam": (optimizers.Nadam, ["velocities"]),
    "Lamb": (optimizers.Lamb, ["velocities", "momentums"]),
    "Adafactor": (optimizers.Adafactor, ["v"]),
}


@pytest.mark.parametrize(("make", "names"), SLOTS.values(), ids=SLOTS)
def test_slots_that_the_metrics_read_exist(make: Any, names: list[str]) -> None:
    model = net()
    optimizer = built(make(), model)
    for name in names:
        slot = internals.optimizer_slot(optimizer, name, 1)
        assert tuple(slot.shape) == (5,) or name == "v"  # Adafactor keeps one row for a matrix


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


def test_step_methods_exist() -> None:
    from poise.optimizer.inner import BYPASSED

    optimizer = keras.optimizers.Optimizer(0.1)
    on_tensorflow = {"_distributed_tf_update_step"}
    on_torch = {"_parallel_update_step"}
    names = {*BYPASSED, *internals.STEP_METHODS} - on_tensorflow - on_torch
    assert [name for name in sorted(names) if not hasattr(optimizer, name)] == []


# ---------------------------------------------------------------- files and serialization


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


def test_keras_does_not_import_tensorflow_within_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    assert internals.module_utils.tensorflow.name == "tensorflow"
    lazy = internals.module_utils.LazyModule("json")  # a module in the place of TensorFlow
    monkeypatch.setattr(internals.module_utils, "tensorflow", lazy)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)

    with internals.without_tensorflow():
        assert not lazy.available
        assert lazy.module is None

    assert lazy.available
    assert lazy.module is importlib.import_module("json")
    with internals.without_tensorflow():
        assert lazy.available


# ---------------------------------------------------------------- overridden methods


def test_keras_tracks_the_variables_of_an_optimizer_by_the_overridden_method() -> None:
    tracked = []

    class Custom(optimizers.SGD):
        def _track_variable(self, variable: Any) -> None:
            tracked.append(variable)
            super()._track_variable(variable)

    optimizer = built(Custom(0.1, momentum=0.9), net())
    assert [id(variable) for variable in tracked] == [id(variable) for variable in optimizer.variables]


def test_keras_saves_a_saveable_object_that_names_its_kind(tmp_path: Any) -> None:
    class Custom(internals.KerasSaveable):
        def __init__(self) -> None:
            self.value = np.zeros(2)

        def _obj_type(self) -> str:
            return "Loss"

        def save_own_variables(self, store: Any) -> None:
            store["value"] = self.value

        def load_own_variables(self, store: Any) -> None:
            self.value = np.array(store["value"])

    saved, loaded = net(), net()
    saved.extra, loaded.extra = Custom(), Custom()
    saved.extra.value = np.array([1.0, 2.0])
    saved.save_weights(tmp_path / "model.weights.h5")

    loaded.load_weights(tmp_path / "model.weights.h5")

    np.testing.assert_array_equal(loaded.extra.value, [1.0, 2.0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries that the modules of the command import
def test_no_other_private_name_of_keras_is_redefined() -> None:
    """A class of poise that derives from a class of Keras could otherwise replace a method or attribute of Keras."""
    redefined = set()
    for kind in _classes_of_poise():
        bases = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in ("keras", "torch")]
        theirs = {name for base in bases for name in _private_names(base)}
        redefined |= {(kind.__name__, name) for name in _private_names(kind) & theirs}
    assert redefined == {("PenalizedOptimizer", "_track_variable"), ("SavedState", "_obj_type")}


OTHER_BACKENDS = {"jax": ["torch"], "torch": ["optax"], "tensorflow": ["torch", "optax"]}[keras.backend.backend()]
"""The modules of poise that need another backend."""


def _classes_of_poise() -> set[type]:
    classes = set()
    for info in pkgutil.walk_packages(poise.__path__, "poise."):
        if info.name.split(".")[1] in OTHER_BACKENDS:
            continue
        try:
            module = importlib.import_module(info.name)
        except ModuleNotFoundError as error:
            # These need not be installed.
            if (error.name or "").partition(".")[0] not in ("jax", "optax", "ray", "mlflow"):
                raise
            continue
        members = vars(module).values()
        classes |= {kind for kind in members if isinstance(kind, type) and kind.__module__ == info.name}
    return classes


def _private_names(kind: type) -> set[str]:
    """Return the private methods and attributes that a class defines, those of `self` included."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    return {name for name in attributes | set(vars(kind)) if name.startswith("_") and not name.endswith("__")}


def test_a_tensor_of_a_program_of_jax_is_recognized() -> None:
    assert not internals.is_traced_by_jax(keras.ops.ones(2))
    if keras.backend.backend() == "jax":
        import jax

        seen: list[bool] = []
        jax.jit(lambda x: seen.append(internals.is_traced_by_jax(x)))(1.0)
        assert seen == [True]


@pytest.mark.backends("tensorflow", "torch")  # JAX has no float64 unless it is enabled
def test_float64_is_kept_only_where_it_is_wanted() -> None:
    x = keras.ops.convert_to_tensor([0.1], "float64")

    def dtype() -> str:
        return keras.backend.standardize_dtype(keras.ops.minimum(x, x).dtype)

    before = dtype()
    with internals.keep_float64():
        inside = dtype()

    assert inside == keras.backend.standardize_dtype(x.dtype)
    assert dtype() == before
