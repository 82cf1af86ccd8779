"""The rules of poise.input_sparsity: which kernels read the inputs, in which groups, and what the others get."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import poise
from poise.compaction.inputs import read_inputs

from .zeroing import randomized

pytestmark = pytest.mark.backends("jax")  # the graph of the layers is the same on every backend


def dense(hidden: int = 5) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(hidden, name="hidden"), layers.Dense(1, name="head")])


def wide_and_deep() -> keras.Model:
    inputs = keras.Input((4,))
    deep = layers.Dense(1, name="head")(layers.Dense(5, activation="relu", name="deep")(inputs))
    return keras.Model(inputs, layers.Add()([layers.Dense(1, name="wide")(inputs), deep]))


def convolution() -> keras.Model:
    hidden = layers.Conv2D(2, 3, name="filters")
    return keras.Sequential([keras.Input((6, 6, 4)), hidden, layers.Flatten(), layers.Dense(1, name="head")])


def penalties(model: keras.Model, rules: list[poise.Rule]) -> dict[str, Any]:
    """Return the penalty of every penalized variable."""
    optimizer = poise.PenalizedOptimizer("sgd", rules)
    optimizer.build(model.trainable_variables, model)
    return {"/".join(target.path.split("/")[-2:]): target.penalties[0][1] for target in optimizer.targets}


@pytest.mark.parametrize(
    ("make", "first", "later"),
    [
        (dense, ["hidden/kernel"], ["head/kernel"]),
        (wide_and_deep, ["deep/kernel", "wide/kernel"], ["head/kernel"]),
        (convolution, ["filters/kernel"], ["head/kernel"]),
    ],
)
def test_kernels_that_read_the_inputs_are_in_groups_and_later_kernels_have_l2(make, first, later) -> None:
    model = make()

    by_path = penalties(model, poise.input_sparsity(model, 2.0))

    assert sorted(by_path) == sorted(first + later)
    assert {type(by_path[path]) for path in first} == {poise.GroupLasso}
    assert [(type(by_path[path]), by_path[path].strength) for path in later] == [(poise.L2, pytest.approx(0.3))]


@pytest.mark.parametrize("make", [dense, wide_and_deep, convolution])
def test_an_input_whose_groups_are_zero_is_not_read(make) -> None:
    model = randomized(make())
    for path, penalty in penalties(model, poise.input_sparsity(model)).items():
        if isinstance(penalty, poise.GroupLasso):
            kernel = next(w for w in model.weights if w.path.endswith(path))
            value = keras.ops.convert_to_numpy(kernel).copy()
            value[..., 1, :] = 0.0
            kernel.assign(value)
            assert (np.asarray(penalty.sizes(kernel.value)) > 0).tolist() == [True, False, True, True]

    reads = read_inputs(model, model.get_weights())
    assert reads is not None
    assert reads.tolist() == [True, False, True, True]


def test_the_value_is_the_formula() -> None:
    model = randomized(dense())
    first, head = (np.asarray(model.get_layer(name).kernel) for name in ("hidden", "head"))
    expected = 0.3 * (np.linalg.norm(first, axis=1).sum() + 0.15 * np.square(head).sum())

    by_path = penalties(model, poise.input_sparsity(model, 0.3))

    value = by_path["hidden/kernel"](first) + by_path["head/kernel"](head)
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_listed_inputs_are_one_group() -> None:
    rules = poise.input_sparsity(dense(), groups=[[0], [1, 2]])

    assert rules[0].penalty.groups == [[0], [1, 2]]
    assert np.asarray(rules[0].penalty.factors).tolist() == [1.0, 1.0]


def test_a_linear_model_has_no_later_kernel() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])

    assert [rule.name for rule in poise.input_sparsity(model)] == ["input_sparsity"]


def test_a_kernel_that_reads_no_group_is_not_penalized() -> None:
    inputs = keras.Input((6,))
    few = layers.Dense(1, name="few")(keras.ops.take(inputs, [0, 1], axis=1))
    model = keras.Model(inputs, layers.Add()([few, layers.Dense(1, name="all")(inputs)]))

    (rule,) = poise.input_sparsity(model, groups=[[3, 4]])

    assert rule.select == ["all/kernel"]
    assert rule.penalty.groups == [[3, 4]]


class TestRefuses:
    def test_a_model_whose_inputs_go_elsewhere(self) -> None:
        inputs = keras.Input((4,))
        model = keras.Model(inputs, layers.Add()([inputs, layers.Dense(4)(inputs)]), name="skip")
        with pytest.raises(ValueError, match="cannot determine which kernels of the model 'skip' read its inputs"):
            poise.input_sparsity(model)

    def test_lists_for_a_convolution(self) -> None:
        with pytest.raises(ValueError, match="groups needs a model with one input"):
            poise.input_sparsity(convolution(), groups=[[0, 1]])

    def test_what_is_not_a_model(self) -> None:
        with pytest.raises(TypeError, match="input_sparsity needs a Keras model, got 3"):
            poise.input_sparsity(3)

    @pytest.mark.parametrize(("strength", "error"), [(0.0, ValueError), ("1", TypeError), (True, TypeError)])
    def test_a_strength_that_is_not_a_positive_number(self, strength, error) -> None:
        with pytest.raises(error, match="strength must be a number > 0"):
            poise.input_sparsity(dense(), strength)
