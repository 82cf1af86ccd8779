"""A rule acts on the variables that it was resolved to, also after a save and a load that change their paths."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from oracles.models import Block, table

import poise

RATE = 0.05


@keras.saving.register_keras_serializable("poise-identity")
class Subclassed(keras.Model):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.block = Block(6)
        self.head = layers.Dense(1)

    def build(self, shape: Any) -> None:
        self.block.build(shape)
        self.head.build(shape)

    def call(self, x: Any) -> Any:
        return self.head(self.block(x))


def with_block(**arguments: Any) -> keras.Model:
    return keras.Sequential([keras.Input((6,)), Block(6), layers.Dense(1, **arguments)])


def subclassed() -> keras.Model:
    model = Subclassed()
    model.build((None, 6))
    return model


def bidirectional() -> keras.Model:
    wrapped = layers.Bidirectional(layers.SimpleRNN(3))
    return keras.Sequential([keras.Input((6,)), layers.Reshape((6, 1)), wrapped, layers.Dense(1)])


def nested() -> keras.Model:
    def tower() -> keras.Model:
        return keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="tanh"), layers.Dense(3)])

    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([tower()(inputs), tower()(inputs)])))


MODELS = {"block": with_block, "subclassed": subclassed, "bidirectional": bidirectional, "nested": nested}


def trained(model: keras.Model, epochs: int) -> keras.Model:
    x, y = table(32, 6)
    model.fit(x, y, batch_size=32, epochs=epochs, shuffle=False, verbose=0)
    return model


def loaded_elsewhere(model: keras.Model, file: Any) -> keras.Model:
    """The model saved and loaded as a new process would, in which automatic names are counted from the start."""
    model.save(file)
    keras.utils.clear_session(free_memory=False)
    return keras.models.load_model(file)


def penalized_places(model: keras.Model) -> list[int]:
    """The positions of the penalized variables among the weights of the model."""
    optimizer = poise.get_penalized_optimizer(model)
    ids = [id(weight) for weight in model.weights]
    return sorted(ids.index(id(v)) for target in optimizer.targets for v in optimizer.variables_of(target))


def assert_same_training(model: keras.Model, other: keras.Model, epochs: int = 30) -> None:
    before = [np.array(w) for w in model.get_weights()]
    for ours, theirs, start in zip(*(trained(m, epochs).get_weights() for m in (model, other)), before, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert np.abs(ours - start).max() > 0


def rules_of(model: keras.Model, kind: str) -> Any:
    """Rules for the second kernel by a path with automatic names, as poise.summary prints it, or by what excludes it."""
    kernels = [v.path for v in model.trainable_variables if v.path.endswith("kernel")]
    penalty = poise.L1(0.3)
    if kind == "select":
        return poise.Rule(kernels[1], penalty)
    if kind == "exclude":
        return poise.Rule(poise.Role.KERNELS, penalty, exclude=kernels[1])
    return [poise.Rule(kernels[1], penalty, name="a"), poise.Rule([kernels[0], kernels[2]], poise.L2(0.1), name="b")]


@pytest.mark.parametrize("kind", ["select", "exclude", "several"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_rule_stays_on_its_variables_when_paths_change_on_load(make: Any, kind: str, tmp_path: Any) -> None:
    layers.Dense(2)  # an earlier cell of a notebook, so that the automatic names start later
    layers.SimpleRNN(2)
    model = make()
    rules = rules_of(model, kind)
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(RATE), rules, update="proximal"), loss="mse")
    trained(model, 5)
    paths = [v.path for v in model.trainable_variables]

    loaded = loaded_elsewhere(model, tmp_path / "m.keras")

    assert [v.path for v in loaded.trainable_variables] != paths
    assert penalized_places(loaded) == penalized_places(model)
    assert dict(loaded.optimizer.strength) == dict(model.optimizer.strength)
    again = loaded_elsewhere(loaded, tmp_path / "again.keras")
    assert penalized_places(again) == penalized_places(model)
    assert_same_training(again, model)


@pytest.mark.parametrize("make", [lambda: with_block(kernel_regularizer="l2"), subclassed], ids=["block", "subclassed"])
def test_adopted_rules_stay_on_their_variables(make: Any, tmp_path: Any) -> None:
    layers.Dense(2)
    model = make()
    model.weights[0].regularizer = keras.regularizers.L1(0.2)
    model.compile(keras.optimizers.SGD(RATE), loss="mse")
    trained(model, 2)
    poise.adopt_regularizers(model)

    loaded = loaded_elsewhere(trained(model, 2), tmp_path / "m.keras")

    assert penalized_places(loaded) == penalized_places(model)
    assert_same_training(loaded, model)


def test_rules_added_to_a_loaded_model_leave_the_others_in_place(tmp_path: Any) -> None:
    layers.Dense(2)
    model = with_block()
    second = model.weights[2].path
    model.compile(
        poise.PenalizedOptimizer(keras.optimizers.SGD(RATE), poise.Rule(second, poise.L1(0.3)), "proximal"), loss="mse"
    )
    loaded = loaded_elsewhere(trained(model, 2), tmp_path / "m.keras")
    loaded.weights[0].regularizer = keras.regularizers.L2(0.1)

    poise.adopt_regularizers(loaded)

    assert penalized_places(loaded) == [0, 2]
    of_path = {target.path: [type(penalty) for _, penalty in target.penalties] for target in loaded.optimizer.targets}
    assert of_path == {loaded.weights[0].path: [poise.L2], loaded.weights[2].path: [poise.L1]}


@pytest.mark.parametrize("changed", ["frozen", "thawed"])
def test_new_optimizer_of_a_loaded_one_keeps_the_rules_in_place_when_layers_are_frozen(
    changed: str, tmp_path: Any
) -> None:
    """Positions among all weights are the same whatever is frozen."""
    layers.Dense(2)
    model = with_block()
    if changed == "thawed":
        model.layers[0].up.trainable = False
    rule = poise.Rule(model.weights[2].path, poise.L1(0.3))
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(RATE), rule, update="proximal"), loss="mse")
    loaded = loaded_elsewhere(trained(model, 2), tmp_path / "m.keras")

    loaded.layers[0].up.trainable = changed == "thawed"
    loaded.compile(poise.PenalizedOptimizer.from_config(loaded.optimizer.get_config()), loss="mse")
    trained(loaded, 1)

    assert penalized_places(loaded) == [2]


def test_clone_of_a_model_has_the_rules_in_place() -> None:
    layers.Dense(2)
    model = with_block()
    rule = poise.Rule(model.weights[2].path, poise.L1(0.3))
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(RATE), rule, update="proximal"), loss="mse")
    trained(model, 1)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile_from_config(model.get_compile_config())

    assert penalized_places(clone) == [2]
    assert_same_training(clone, model)


def test_rule_that_cannot_be_restored_names_its_variable() -> None:
    model = with_block()
    path = model.weights[2].path
    model.compile(poise.PenalizedOptimizer("sgd", poise.Rule(path, poise.L1(0.3)), update="proximal"), loss="mse")
    trained(model, 1)
    other = keras.Sequential([keras.Input((6,)), layers.Dense(5), layers.Dense(1)])
    other.compile(poise.PenalizedOptimizer.from_config(model.optimizer.get_config()), loss="mse")

    with pytest.raises(
        ValueError,
        match=rf"Rule '{path}' cannot be restored: it was saved for '{path}' of shape \(12, 6\).*no variable",
    ):
        trained(other, 1)


def test_variables_in_another_order_are_found_by_path_or_refused() -> None:
    """In a hand-written loop the model is not known, and positions are those among the trained variables."""

    def of(*names: str) -> list[Any]:
        result = []
        for name in names:
            dense = layers.Dense(4, name=name)
            dense.build((None, 4))
            result.append(dense.kernel)
        return result

    first = poise.PenalizedOptimizer("sgd", poise.Rule("left/kernel", poise.L1(0.3)))
    first.build(of("left", "right"))
    permuted = poise.PenalizedOptimizer.from_config(first.get_config())
    permuted.build(of("right", "left"))
    assert [target.path for target in permuted.targets] == ["left/kernel"]

    renamed = poise.PenalizedOptimizer.from_config(first.get_config())
    renamed.build(of("dense_7", "dense_8"))
    assert [target.path for target in renamed.targets] == ["dense_7/kernel"]

    mixed = poise.PenalizedOptimizer.from_config(first.get_config())
    with pytest.raises(ValueError, match="'left/kernel' cannot be restored: it was saved for 'left/kernel'"):
        mixed.build(of("right", "dense_8"))


def test_joint_groups_stay_on_their_variables(tmp_path: Any) -> None:
    layers.Dense(2)
    model = nested()
    rule = poise.unit_sparsity(model, 0.05)
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(RATE), rule, update="proximal"), loss="mse")
    loaded = loaded_elsewhere(trained(model, 3), tmp_path / "m.keras")

    assert penalized_places(loaded) == penalized_places(model)
    assert_same_training(loaded, model)
