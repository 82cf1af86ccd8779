"""Variables without entries, models of which nothing is trained, and strengths that float32 does not hold."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from oracles.autodiff import BACKEND
from oracles.compare import array
from oracles.penalties import CASES, Case

import poise

X, Y = np.ones((8, 2), "float32"), np.zeros((8, 1), "float32")
EMPTY = [(0, 3), (3, 0), (2, 0, 3)]

# ---------------------------------------------------------------- no entries


def plain(case: Case) -> bool:
    """Whether it is made for any shape: without factors, lists of indices or a start of one shape."""
    penalty = case.make(1.0)
    inner: Any = getattr(penalty, "penalty", penalty)
    return penalty.members is None and inner.factors is None and not isinstance(getattr(inner, "groups", None), list)


ANY_SHAPE = [case for case in CASES if plain(case) and np.ndim(case.start) == 0]


@pytest.mark.parametrize("shape", EMPTY, ids=str)
@pytest.mark.parametrize("case", ANY_SHAPE, ids=[case.name for case in ANY_SHAPE])
def test_a_penalty_of_nothing_is_zero(case: Case, shape: tuple) -> None:
    penalty, w = case.make(0.5), ops.zeros(shape)

    assert float(penalty.value(w, 0.5)) == 0.0
    assert penalty.gradient(w, 0.5).shape == w.shape
    assert array(penalty.residual(w, w, 0.5)).sum() == 0.0
    if penalty.metric is not None:
        assert penalty.prox(w, 0.1, 0.5).shape == w.shape
    if penalty.metric == "diagonal":
        assert penalty.prox(w, w, 0.5).shape == w.shape
    critical = penalty.critical_strength(w)
    assert critical is None if not case.has_critical else float(critical) == 0.0
    if penalty.sizes(w) is not None:
        assert array(penalty.sizes(w)).sum() == 0.0
    if not penalty.is_constraint:
        assert float(penalty(w)) == 0.0


class WithNothing(layers.Layer):
    """A linear layer with a kernel that has no entries beside it."""

    def build(self, shape: Any) -> None:
        self.nothing = self.add_weight((0, 3), name="kernel")
        self.w = self.add_weight((shape[-1], 1), name="w", initializer="ones")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.w) + ops.sum(self.nothing)


@pytest.mark.parametrize(
    "penalty",
    [poise.L2(0.1), poise.L1(0.1), poise.GroupLasso(0.1), poise.SparseGroupLasso(0.1), poise.NuclearNorm(0.1),
     poise.Anchored(poise.L1(0.1))],
    ids=lambda penalty: type(penalty).__name__,
)  # fmt: skip
@pytest.mark.parametrize("update", ["coupled", "proximal"])
def test_a_variable_without_entries_trains_beside_the_others(penalty: poise.Penalty, update: str) -> None:
    def trained(rule: poise.Rule, callbacks: Any = ()) -> Any:
        model = keras.Sequential([keras.Input((2,)), WithNothing(name="layer")])
        inner = keras.optimizers.SGD(0.1, 0.9)
        model.compile(poise.PenalizedOptimizer(inner, rule, update=update, observe_every=1), loss="mse")
        return model, model.fit(X, Y, epochs=2, verbose=0, callbacks=[*callbacks]).history

    model, history = trained(poise.Rule(poise.Role.KERNELS, penalty), [poise.PenaltyLogger()])
    other, _ = trained(poise.Rule("w", penalty))

    np.testing.assert_allclose(array(model.layers[0].w), array(other.layers[0].w), rtol=1e-6)
    assert np.isfinite([*history.values()]).all()
    table = poise.forces(model, X, Y)
    assert table["prediction"].tolist()[0] == 0.0
    assert np.isnan(table["zeros"][0])
    assert len(poise.forces(model)) == 2
    assert len(poise.summary(model).table) == 2


# On TensorFlow an empty variable fails in the steps of these three, also without poise.
FAILING = ["RMSprop", "Adadelta", "Nadam"] if BACKEND == "tensorflow" else []
INNER = [name for name in ("Adam", "Adagrad", "Adamax", "Lamb", "Adafactor", "RMSprop", "Adadelta", "Nadam")
         if name not in FAILING]  # fmt: skip


@pytest.mark.parametrize("inner", INNER)
def test_the_step_of_every_optimizer_takes_a_variable_without_entries(inner: str) -> None:
    model = keras.Sequential([keras.Input((2,)), WithNothing()])
    optimizer = poise.PenalizedOptimizer(
        getattr(keras.optimizers, inner)(0.1), poise.GroupLasso(0.1), update="proximal"
    )
    optimizer.build(model.trainable_variables, model)
    before = array(model.layers[0].w)
    for _ in range(2):
        optimizer.apply([ops.ones(variable.shape) for variable in model.trainable_variables])

    assert (array(model.layers[0].w) < before).all()
    assert model.layers[0].nothing.shape == (0, 3)


# ---------------------------------------------------------------- nothing that is trained


@pytest.mark.parametrize("update", ["coupled", "decoupled", "proximal"])
@pytest.mark.filterwarnings(
    "ignore:Rule 'kernels' has no effect", "ignore:The model does not have any trainable weights"
)
def test_a_frozen_model_has_no_penalty_and_warns(update: str) -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.trainable = False
    before = [array(weight) for weight in model.weights]
    model.compile(poise.PenalizedOptimizer("sgd", poise.L1(0.1), update=update, observe_every=1), loss="mse")
    history = model.fit(
        X, Y, epochs=2, verbose=0, callbacks=[poise.PenaltyLogger(per_rule=True), poise.ForceHistory()]
    ).history

    assert history["penalty"] == history["penalty/kernels"] == [0.0, 0.0]
    np.testing.assert_allclose(history["total_loss"], history["loss"])
    assert all((array(weight) == old).all() for weight, old in zip(model.weights, before, strict=True))
    assert len(poise.forces(model)) == len(poise.forces(model, X, Y)) == 0
    notes = poise.summary(model).table["note"].tolist()
    assert notes[0].startswith("frozen; rule 'kernels'")
    assert notes[1] == "not trained"


# ---------------------------------------------------------------- strengths


@pytest.mark.parametrize(
    "make",
    [
        lambda: poise.L2(1e39),
        lambda: poise.ElasticNet(l1=1e39),
        lambda: poise.L1(1.0, factors=[1.0, 1e39]),
        lambda: poise.L1().value(ops.zeros((2,)), 1e39),
    ],
    ids=["strength", "share", "factor", "method"],
)
def test_what_float32_does_not_hold_is_refused_and_not_taken_for_infinite(make: Any) -> None:
    with pytest.raises(ValueError, match=r"must be at most 3\.4e\+38, the largest float32, got 1e\+39"):
        make()


def test_a_strength_beyond_float32_cannot_be_set() -> None:
    optimizer = poise.PenalizedOptimizer("sgd", poise.L2(0.1))
    with pytest.raises(ValueError, match="the largest float32"):
        optimizer.strength["kernels"] = 1e39
    assert optimizer.strength["kernels"] == 0.1


@pytest.mark.parametrize("strength", [1e-50, 1e-40])
def test_a_strength_too_small_for_float32_reads_as_given_and_acts_as_none(strength: float) -> None:
    def trained(strength: float) -> Any:
        model = keras.Sequential([keras.Input((2,)), layers.Dense(1, kernel_initializer="ones")])
        model.compile(poise.PenalizedOptimizer("sgd", poise.L1(strength), update="proximal"), loss="mse")
        model.fit(X, Y, verbose=0)
        return model

    model = trained(strength)
    assert model.optimizer.strength["kernels"] == strength
    np.testing.assert_array_equal(array(model.layers[0].kernel), array(trained(0.0).layers[0].kernel))


@pytest.mark.backends("tensorflow", "torch")
@pytest.mark.parametrize("update", ["coupled", "proximal"])
def test_a_strength_keeps_the_digits_of_float64_weights(update: str) -> None:
    """0.1 in float32 differs from 0.1 in the ninth digit."""
    inputs = keras.Input((2,), dtype="float64")
    model = keras.Model(inputs, layers.Dense(1, kernel_initializer="ones", dtype="float64")(inputs))
    # Off TensorFlow Keras gives gradients of another dtype to an optimizer as they are.
    optimizer = poise.PenalizedOptimizer(keras.optimizers.SGD(1.0), poise.L2(0.1), update=update)
    optimizer.build(model.trainable_variables, model)
    optimizer.apply([ops.zeros(v.shape, "float64") for v in model.trainable_variables])

    expected = 1.0 - 0.2 if update == "coupled" else 1.0 / 1.2
    kernel = ops.convert_to_numpy(model.layers[1].kernel)
    assert kernel.dtype == "float64"
    if BACKEND == "tensorflow":
        np.testing.assert_allclose(kernel, expected, rtol=1e-14)
    variable = next(iter(optimizer.strength.variables.values()))
    assert float(ops.convert_to_numpy(variable)) == 0.1
