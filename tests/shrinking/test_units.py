"""What is known about the units that can be removed: their weights, costs, importance, and the choice among them."""

import itertools

import keras
import numpy as np
import pytest
from compaction.zeroing import randomized
from keras import layers

import poise
from poise.shrinking.costs import FLOPS, PARAMETERS, Costs
from poise.shrinking.data import Rows
from poise.shrinking.importance import measure_gradients, norm_gradients, rate_units
from poise.shrinking.selection import add_within_layers, choose_units
from poise.shrinking.training import Trainer
from poise.shrinking.unit_sets import RemovableUnits


def dense(*widths: int, activation: str = "relu") -> keras.Model:
    hidden = [layers.Dense(units, activation=activation) for units in widths]
    return randomized(keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(2)]))


def convolutional() -> keras.Model:
    inputs = keras.Input((6, 6, 2))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(5, 3, padding="same", use_bias=False)(inputs)))
    branch = layers.Conv2D(5, 3, padding="same")(layers.Conv2D(4, 3, padding="same", activation="relu")(x))
    x = layers.DepthwiseConv2D(3)(layers.Add()([x, branch]))
    return randomized(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.MaxPooling2D()(x)))))


def attention() -> keras.Model:
    inputs = keras.Input((4, 6))
    x = layers.Add()([inputs, layers.MultiHeadAttention(3, 5)(inputs, inputs)])
    x = layers.Add()([x, layers.Dense(6)(layers.Dense(7, activation="gelu")(layers.LayerNormalization()(x)))])
    return randomized(keras.Model(inputs, layers.Dense(2)(layers.GRU(4)(x))))


def choose(units: RemovableUnits, share: float) -> np.ndarray:
    """Random removable sets, of which one per layer stays."""
    removable = np.random.default_rng(0).permutation(np.flatnonzero(units.is_removable))
    chosen = np.zeros(len(units.is_removable), bool)
    chosen[removable[: round(share * len(removable))]] = True
    for sets in units.widths:
        chosen[sets[0]] = False
    return chosen


@pytest.mark.parametrize("make", [dense, convolutional, attention])
def test_a_removal_is_the_compaction_of_zeros(make) -> None:
    model = make() if make is not dense else dense(6, 5)
    before = model.get_weights()
    units = RemovableUnits(model)
    chosen = choose(units, 0.5)
    assert chosen.sum() >= 3

    smaller = units.remove(chosen)

    for weight, original in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, original)
    left = RemovableUnits(smaller)
    assert left.is_removable.sum() == (units.is_removable & ~chosen).sum()
    x = np.random.default_rng(0).normal(size=(5, *model.inputs[0].shape[1:])).astype("float32")
    cleared = keras.models.clone_model(model)
    cleared.set_weights(before)
    copies = dict(zip(map(id, model.weights), cleared.weights, strict=True))
    for variable, part in units.parts:  # every weight that reads a chosen unit
        along = units.sets_of(part.reads)
        if along is not None:
            value = np.array(keras.ops.convert_to_numpy(variable))
            np.moveaxis(value, along[0], 0)[chosen[along[1]]] = 0
            copies[id(variable)].assign(value)
    if make is not attention:  # the units of a GRU read each other
        np.testing.assert_allclose(
            *(np.asarray(m.predict(x, verbose=0)) for m in (smaller, cleared)), rtol=1e-4, atol=1e-5
        )


def test_a_sigmoid_unit_without_weights_leaves_its_constant() -> None:
    model = dense(4, activation="sigmoid")
    units = RemovableUnits(model)
    chosen = np.zeros(len(units.is_removable), bool)
    chosen[np.flatnonzero(units.is_removable)[:2]] = True

    smaller = units.remove(chosen)

    first, second = smaller.layers
    assert first.units == 2
    kernel, bias = model.layers[1].get_weights()
    np.testing.assert_allclose(second.get_weights()[1], bias + 0.5 * kernel[:2].sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize("make", [dense, convolutional, attention])
@pytest.mark.parametrize("quantity", [FLOPS, PARAMETERS])
def test_costs_are_those_of_the_smaller_model(make, quantity) -> None:
    model = make() if make is not dense else dense(6, 5)
    units = RemovableUnits(model)
    chosen = choose(units, 0.4)
    table = poise.compare_models(model, units.remove(chosen))
    row = table.loc["FLOPs per sample" if quantity == FLOPS else "parameters"]
    costs = Costs(units, quantity)

    assert costs.total(np.ones(len(chosen), bool)) == pytest.approx(row["before"])
    is_exact = quantity == PARAMETERS or make is not attention
    # The products of queries and keys are attributed to the kernels of the attention.
    assert costs.total(~chosen) == pytest.approx(row["after"], rel=1e-9 if is_exact else 0.1)


@pytest.mark.parametrize("quantity", [FLOPS, PARAMETERS])
def test_a_marginal_cost_is_the_cost_of_one_unit(quantity) -> None:
    units = RemovableUnits(convolutional())
    costs = Costs(units, quantity)
    stays = np.ones(len(units.is_removable), bool)
    for number in np.flatnonzero(units.is_removable):
        without = stays.copy()
        without[number] = False
        difference = costs.total(stays) - costs.total(without)
        # A layer that reads and makes the same set loses a product of both shares, of which this is the first order.
        assert costs.marginal()[number] == pytest.approx(difference, rel=0.15)


def trainer_of(model: keras.Model, x: np.ndarray, y: np.ndarray, batch_size: int) -> Trainer:
    model.compile(keras.optimizers.SGD(0.1), "mse")
    rows = Rows({"x": x, "y": y, "batch_size": batch_size}, -(-len(x) // batch_size))
    return Trainer(model, rows, rows, None, 0)


def test_importance_is_the_expected_change_of_the_loss() -> None:
    """Σ w²·g² with the gradient of the mean squared error, written out for a network of two layers."""
    model = dense(4)
    x = np.random.default_rng(1).normal(size=(8, 3)).astype("float32")
    y = np.random.default_rng(2).normal(size=(8, 2)).astype("float32")
    before = model.get_weights()

    gradients = measure_gradients(model, trainer_of(model, x, y, 8))
    units = RemovableUnits(model)
    importance = rate_units(units, gradients)[units.is_removable]
    norms = norm_gradients(units, gradients)[units.is_removable]

    w, b, v, c = before
    hidden = np.maximum(x @ w + b, 0)
    error = 2 * (hidden @ v + c - y) / y.size
    back = (error @ v.T) * (hidden > 0)
    of_w, of_b, of_v = x.T @ back, back.sum(axis=0), hidden.T @ error
    expected = ((w * of_w) ** 2).sum(axis=0) + (b * of_b) ** 2 + ((v * of_v) ** 2).sum(axis=1)
    np.testing.assert_allclose(importance, expected, rtol=1e-4)
    np.testing.assert_allclose(norms**2, (of_w**2).sum(axis=0) + of_b**2 + (of_v**2).sum(axis=1), rtol=1e-4)
    for weight, original in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, original)


def test_measuring_gradients_keeps_moving_statistics() -> None:
    model = convolutional()
    x, y = np.random.default_rng(0).normal(size=(4, 6, 6, 2)), np.zeros((4, 3))
    before = model.get_weights()
    measure_gradients(model, trainer_of(model, x, y, 2))
    for weight, original in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, original)


def test_a_unit_that_no_row_activates_has_no_importance() -> None:
    model = dense(4)
    model.layers[0].set_weights([model.layers[0].get_weights()[0], np.array([9.0, 9.0, -1e3, 9.0])])
    x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    units = RemovableUnits(model)
    importance = rate_units(units, measure_gradients(model, trainer_of(model, x, np.zeros((16, 2)), 4)))
    assert np.flatnonzero(importance[units.is_removable] == 0).tolist() == [2]


def test_the_importance_of_units_of_one_layer_adds_before_it_is_squared() -> None:
    units = RemovableUnits(dense(4, 3))
    importance = np.zeros(len(units.is_removable))
    first, second = units.widths
    importance[first], importance[second] = [4.0, 1.0, 1.0, 9.0], [16.0, 16.0, 0.0]
    added = add_within_layers(units, importance)
    assert added[first].tolist() == [12.0, 1.0, 3.0, 33.0]  # 1², 2² - 1², 4² - 2², 7² - 4²
    assert added[second].tolist() == [16.0, 48.0, 0.0]


def test_units_that_two_layers_share_count_once() -> None:
    units = RemovableUnits(convolutional())
    importance = np.random.default_rng(0).random(len(units.is_removable))
    added = add_within_layers(units, importance)
    shared = np.flatnonzero(units.is_removable & np.isin(np.arange(len(importance)), units.widths[0]))
    assert np.isin(shared, units.widths[2]).all()
    np.testing.assert_allclose(added[shared].sum(), np.sqrt(importance[shared]).sum() ** 2, rtol=1e-12)


def test_the_choice_meets_the_target_and_leaves_no_room_for_another_unit() -> None:
    for make in (lambda: dense(6, 5), convolutional, attention):
        units = RemovableUnits(make())
        importance = np.random.default_rng(0).random(len(units.is_removable))
        costs = Costs(units, PARAMETERS)
        whole = costs.total(np.ones(len(importance), bool))
        for share in (0.9, 0.7, 0.5):
            chosen = choose_units(units, importance, costs, share * whole, 1)
            assert costs.total(~chosen) <= share * whole
            for number in np.flatnonzero(chosen):
                fewer = chosen.copy()
                fewer[number] = False
                assert costs.total(~fewer) > share * whole
            for sets in [*units.widths, *units.heads]:  # every layer loses its least important units
                sets = np.unique(sets[units.is_removable[sets]])
                removed, kept = importance[sets[chosen[sets]]], importance[sets[~chosen[sets]]]
                assert not removed.size or removed.max() < kept.min()


def test_units_of_a_cheap_layer_are_not_all_removed_before_an_expensive_one_loses_any() -> None:
    units = RemovableUnits(dense(8, 8))
    importance = np.where(units.is_removable, 1.0, 0.0)
    first, second = units.widths
    importance[second] *= 1.5  # each unit of the second layer is more important, and costs a little less
    costs = Costs(units, PARAMETERS)
    chosen = choose_units(units, importance, costs, 0.5 * costs.total(np.ones(len(importance), bool)), 1)
    assert 2 <= chosen[first].sum() <= 5
    assert 2 <= chosen[second].sum() <= 5


@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_widths_are_multiples_and_at_least_one_unit_stays(multiple) -> None:
    units = RemovableUnits(dense(8, 7))
    importance = np.random.default_rng(3).random(len(units.is_removable))
    costs = Costs(units, FLOPS)
    for target in (0.0, 20.0, 60.0, 100.0, 1e9):
        chosen = choose_units(units, importance, costs, target, multiple)
        widths = [int((~chosen[sets]).sum()) for sets in units.widths]
        for width, whole in zip(widths, (8, 7), strict=True):
            assert width == whole or (width % multiple == 0 and width > 0)
    assert widths == [8, 7]


def test_heads_are_removed_one_by_one_whatever_the_multiple() -> None:
    model = attention()
    units = RemovableUnits(model)
    importance = np.ones(len(units.is_removable))
    (heads,) = units.heads
    importance[heads[1:]] = 0.0
    costs = Costs(units, PARAMETERS)
    chosen = choose_units(units, importance, costs, costs.total(np.ones(len(importance), bool)) - 1, 8)
    assert chosen[heads].tolist() == [False, True, False]
    assert units.remove(chosen).get_layer(model.layers[1].name).num_heads == 2


def test_units_of_frozen_layers_stay() -> None:
    model = dense(4, 4)
    model.layers[0].trainable = model.layers[1].trainable = False
    units = RemovableUnits(model)
    # The units of the second layer are read by weights that are trained; those of the first are not.
    assert [int(units.is_removable[sets].sum()) for sets in units.widths] == [4]


def test_joined_units_go_together() -> None:
    units = RemovableUnits(convolutional())
    for number, pair in enumerate(itertools.pairwise(units.widths)):
        shared = set(pair[0]) & set(pair[1])
        assert not shared or shared == set(pair[0]), number
