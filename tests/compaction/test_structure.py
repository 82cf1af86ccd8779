"""The groups of poise.unit_sparsity: what belongs together by hand, and that a group at zero is a unit that goes."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import poise

from .zeroing import assert_same, randomized

pytestmark = pytest.mark.backends("jax")  # which units go follows from the graph and the zeros, on every backend alike


def dense_chain() -> keras.Model:
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, activation="relu", name="first")(inputs)
    hidden = layers.Dense(2, activation="tanh", name="second")(hidden)
    return keras.Model(inputs, layers.Dense(2, name="head")(hidden), name="net")


def normalized_convolutions() -> keras.Model:
    inputs = keras.Input((6, 6, 1))
    hidden = layers.Conv2D(3, 3, padding="same", use_bias=False, name="first")(inputs)
    hidden = layers.ReLU()(layers.BatchNormalization(name="norm")(hidden))
    hidden = layers.Conv2D(2, 3, padding="same", name="second")(hidden)
    hidden = layers.Flatten()(layers.MaxPooling2D()(layers.ReLU()(hidden)))
    return keras.Model(inputs, layers.Dense(2, name="head")(hidden), name="net")


def residual() -> keras.Model:
    inputs = keras.Input((6, 6, 1))
    stem = layers.ReLU()(
        layers.BatchNormalization(name="norm")(layers.Conv2D(3, 3, padding="same", name="stem")(inputs))
    )
    branch = layers.Conv2D(4, 3, padding="same", activation="relu", name="inner")(stem)
    branch = layers.BatchNormalization(name="outer_norm")(layers.Conv2D(3, 3, padding="same", name="outer")(branch))
    hidden = layers.GlobalAveragePooling2D()(layers.Add()([stem, branch]))
    return keras.Model(inputs, layers.Dense(2, name="head")(hidden), name="net")


def separable() -> keras.Model:
    inputs = keras.Input((6, 6, 1))
    hidden = layers.Conv2D(3, 3, activation="relu", name="first")(inputs)
    hidden = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="deep")(hidden)
    hidden = layers.SeparableConv2D(3, 2, activation="relu", name="apart")(hidden)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(hidden)), name="net")


def attention() -> keras.Model:
    inputs = keras.Input((5, 4))
    hidden = layers.Add()([inputs, layers.MultiHeadAttention(3, 2, name="attend")(inputs, inputs)])
    normal = layers.LayerNormalization(name="norm")(hidden)
    hidden = layers.Dense(6, activation="gelu", name="wide")(normal)
    hidden = layers.Add()([normal, layers.Dense(4, name="narrow")(hidden)])
    return keras.Model(inputs, layers.Dense(2, name="head")(hidden), name="net")


def recurrent() -> keras.Model:
    inputs = keras.Input((5, 3))
    hidden = layers.GRU(4, return_sequences=True, name="below")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.LSTM(3, name="above")(hidden)), name="net")


MODELS = [dense_chain, normalized_convolutions, residual, separable, attention, recurrent]


def groups_of(model) -> Any:
    """[{path of a variable: mask of its entries}] of every group."""
    members = poise.unit_sparsity(model).penalty.members
    count = 1 + max(max(groups) for _, _, groups in members.values())
    result = [{} for _ in range(count)]
    for path, (shape, axis, groups) in members.items():
        along = np.reshape(groups, [-1 if i == axis else 1 for i in range(len(shape))])
        for number, group in enumerate(result):
            if (np.asarray(groups) == number).any():
                group[path] = np.broadcast_to(along == number, shape)
    return result


@pytest.mark.parametrize("make", MODELS)
def test_each_group_at_zero_is_units_that_go(make) -> None:
    model = make()
    groups = groups_of(model)
    rows = np.random.default_rng(1).normal(size=(3, *model.input_shape[1:])).astype("float32")
    for group in groups:
        randomized(model, seed=0)
        assert poise.dead_units(model)["dead"].sum() == 0
        for variable in model.trainable_variables:
            if variable.path in group:
                variable.assign(np.where(group[variable.path], 0.0, keras.ops.convert_to_numpy(variable)))

        smaller = poise.compact(model)

        assert poise.dead_units(model)["dead"].sum() >= 1
        assert smaller.count_params() < model.count_params()
        assert_same(model, smaller, [rows])


def test_a_dense_unit_has_its_column_and_bias_and_the_rows_of_the_head() -> None:
    members = poise.unit_sparsity(dense_chain()).penalty.members

    axes = {path.removeprefix("net/"): axis for path, (_, axis, _) in members.items()}
    assert axes == {"first/kernel": 1, "first/bias": 0, "second/kernel": 1, "second/bias": 0, "head/kernel": 0}


def test_a_filter_takes_its_normalization_along() -> None:
    groups = groups_of(normalized_convolutions())

    first = [sorted(path.split("/")[-2] + "/" + path.split("/")[-1] for path in group) for group in groups]
    assert first.count(["first/kernel", "norm/beta", "norm/gamma"]) == 3
    assert first.count(["head/kernel", "second/bias", "second/kernel"]) == 2


def test_what_meets_in_a_sum_is_one_group() -> None:
    groups = groups_of(residual())

    shared = [group for group in groups if any(path.endswith("stem/kernel") for path in group)]
    assert len(shared) == 3
    for group in shared:
        assert any(path.endswith("outer/kernel") for path in group)
        assert any(path.endswith("outer_norm/gamma") for path in group)
        assert any(path.endswith("head/kernel") for path in group)


def test_a_head_is_one_group_through_all_its_projections() -> None:
    groups = groups_of(attention())

    heads = [group for group in groups if any("attend" in path for path in group)]
    assert len(heads) == 3
    assert all(sum("attend" in path for path in group) == 7 for group in heads)


def test_what_cannot_go_is_not_penalized() -> None:
    members = poise.unit_sparsity(attention()).penalty.members

    assert not any("norm" in path or "narrow/bias" in path for path in members)


@pytest.mark.parametrize(("weights", "price"), [(None, np.sqrt(4 + 1)), (1.0, 1.0), ([3.0] * 5, 3.0)])
def test_a_group_has_the_factor_that_was_set(weights, price) -> None:
    penalty = poise.unit_sparsity(dense_chain(), 2.0, weights).penalty
    only_one = np.zeros(sum(int(np.prod(shape)) for shape, _, _ in penalty.members.values()), "float32")
    only_one[0] = 1.0  # an entry of the first unit

    assert float(penalty.value(only_one, 2.0)) == pytest.approx(2.0 * price)


def test_a_model_without_removable_units_is_an_error() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])

    with pytest.raises(ValueError, match="No unit of the model"):
        poise.unit_sparsity(model)


def test_training_under_the_rule_makes_units_that_go() -> None:
    model = randomized(dense_chain())
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    target = np.stack([rows[:, 0], rows[:, 1]], axis=1)
    model.compile(
        poise.PenalizedOptimizer(keras.optimizers.Adam(0.03), poise.unit_sparsity(model, 0.05), update="proximal"),
        loss="mse",
    )
    model.fit(rows, target, epochs=60, batch_size=64, verbose=0)

    smaller = poise.compact(model)

    assert poise.dead_units(model)["dead"].sum() >= 1
    assert smaller.count_params() < model.count_params()
    assert_same(model, smaller, [rows])


def functional_tower(name) -> keras.Model:
    inputs = keras.Input((6,))
    hidden = layers.Dense(5, activation="relu", name="fc")(inputs)
    return keras.Model(inputs, layers.Dense(4, name="out")(hidden), name=name)


def sequential_tower(name) -> keras.Model:
    return keras.Sequential([layers.Dense(5, activation="relu", name="fc"), layers.Dense(4, name="out")], name=name)


def two_towers(tower) -> keras.Model:
    inputs = keras.Input((6,))
    both = layers.Concatenate()([tower("left")(inputs), tower("right")(inputs)])
    return randomized(keras.Model(inputs, layers.Dense(2, name="head")(both), name="net"))


TOWERS = pytest.mark.parametrize("tower", [functional_tower, sequential_tower])


def compiled(model, rule) -> Any:
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(0.01), rule, "proximal"), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def members_of(model) -> Any:
    """(position of the variable, groups) of every member, in the order of the penalty."""
    target = model.optimizer.targets[0]
    ((_, penalty),) = target.penalties
    return [
        (number, groups.tolist())
        for number, (_, _, groups) in zip(target.members, penalty.members.values(), strict=True)
    ]


@TOWERS
def test_towers_whose_layers_share_names_have_their_own_groups(tower, tmp_path) -> None:
    model = two_towers(tower)
    rule = poise.unit_sparsity(model, 0.01)
    expected = [(number, groups.tolist()) for number, (_, _, groups) in enumerate(rule.penalty.members.values())]
    assert len(expected) == len(model.trainable_variables) - 1  # all but the bias of the head
    assert members_of(compiled(model, rule)) == expected

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")  # where the paths of both towers are the same
    loaded.optimizer.build(loaded.trainable_variables)
    assert members_of(loaded) == expected

    restored = poise.Rule.from_config(rule.get_config())
    assert members_of(compiled(keras.models.clone_model(model), restored)) == expected


@TOWERS
def test_units_of_one_tower_vanish_and_those_of_the_other_stay(tower) -> None:
    model = two_towers(tower)
    for variable in model.trainable_variables[:4]:
        variable.assign(0.01 * variable)  # small in the left tower
    compiled(model, poise.unit_sparsity(model, 50.0, factors=1.0))
    model.fit(np.zeros((4, 6)), np.zeros((4, 2)), epochs=1, verbose=0)

    smaller = poise.compact(model)

    assert_same(model, smaller)
    left, right = (smaller.get_layer(name).get_layer("fc").units for name in ("left", "right"))
    assert (left, right) == (1, 5)


def test_members_whose_positions_are_lost_are_refused() -> None:
    model = two_towers(functional_tower)
    rule = poise.unit_sparsity(model)
    model.get_layer("left").trainable = False
    with pytest.raises(ValueError, match=r"the member 'fc/kernel \(1 of 2\)' is not one of the 6 trained variables"):
        compiled(model, rule)
