"""poise.TargetSparsity: the strength that it sets by the share of zeros, the share that it reaches, what it refuses."""

from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from oracles import by_hand
from oracles.autodiff import BACKEND
from oracles.models import assert_same_weights, compiled, counted_traces, fitted, net, weights
from sklearn.datasets import load_digits

import poise

UNITS = {
    "net/features/kernel": ((6, 5), 1, [0, 1, 2, 3, 4]),
    "net/features/bias": ((5,), 0, [0, 1, 2, 3, 4]),
}


def factor(missing: float, target: float, growth: float) -> float:
    return growth ** (missing / target if missing > 0 else missing / (1.0 - target))


KERNEL = np.ones((6, 5), "float32")
KERNEL[:, :2] = 0.0
KERNEL[0] = 0.0
"""2 of 5 units, 1 of 6 inputs and 15 of 30 entries are zero."""


@pytest.mark.parametrize(
    ("penalty", "share"),
    [
        (poise.L1(), 15 / 30),
        (poise.MCP(), 15 / 30),
        (poise.L1(factors=[0.0, 1.0, 1.0, 1.0, np.inf]), 9 / 24),
        (poise.GroupLasso(), 2 / 5),
        (poise.GroupLasso(groups="inputs"), 1 / 6),
        (poise.GroupLasso(groups="inputs", factors=[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]), 1 / 3),
        (poise.GroupLasso(groups=[[0, 1], [2]]), 0.0),
        (poise.SparseGroupLasso(), 15 / 30),
        (poise.SparseGroupLasso(groups=[[0], [3]]), 7 / 10),
    ],
    ids=["entries", "concave", "free-entries", "units", "inputs", "free-inputs", "lists", "sparse-groups", "outside"],
)
def test_what_vanishes_one_by_one_is_an_entry_or_a_group(penalty: poise.Penalty, share: float) -> None:
    sizes = ops.convert_to_numpy(penalty.sizes(ops.convert_to_tensor(KERNEL)))

    assert np.mean(sizes == 0) == pytest.approx(share)


@pytest.mark.parametrize(
    ("rule", "share"),
    [
        (poise.Rule("*/kernel", poise.GroupLasso(0.1), name="units"), (2 + 0) / (5 + 1)),
        (poise.Rule([*UNITS], poise.JointGroupLasso(0.1, members=UNITS), name="units"), 1 / 5),
    ],
    ids=["pooled", "joint"],
)
def test_share_is_that_over_all_variables_of_the_rule(rule: poise.Rule, share: float) -> None:
    """The kernel of two units is zero, and the bias of one of them."""
    model = net()
    model.set_weights([KERNEL, np.array([0.0, 1.0, 0.0, 1.0, 1.0]), np.ones((5, 1)), np.ones(1)])
    compiled(poise.PenalizedOptimizer(optimizers.SGD(0.0), rule, update="proximal"), model)

    history = fitted(model, 1, callbacks=[poise.TargetSparsity("units", 0.5)]).history.history

    assert history["zeros/units"][0] == pytest.approx(share)


def test_strength_of_every_epoch_follows_from_the_shares() -> None:
    model = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), poise.L1(0.2), update="proximal"))

    history = fitted(model, 30, callbacks=[poise.TargetSparsity("kernels", 0.4, growth=1.3)]).history.history

    shares, strength = history["zeros/kernels"], 0.2
    assert max(shares) > 0.4 > shares[0]
    for number, share in enumerate(shares):
        assert history["strength/kernels"][number] == pytest.approx(strength, rel=1e-5)
        strength *= factor(0.4 - share, 0.4, 1.3)
    assert model.optimizer.strength["kernels"] == pytest.approx(strength, rel=1e-5)


@pytest.mark.parametrize(("kernel", "expected"), [(np.ones, 1.5), (np.zeros, 1.0 / 1.5)])
def test_strength_grows_and_falls_by_no_more_than_growth(kernel: Any, expected: float) -> None:
    model = net()
    model.set_weights([kernel((6, 5)), np.ones(5), kernel((5, 1)), np.ones(1)])
    compiled(poise.PenalizedOptimizer(optimizers.SGD(0.0), poise.L1(0.1), update="proximal"), model)

    fitted(model, 3, callbacks=[poise.TargetSparsity("kernels", 0.25)])

    assert model.optimizer.strength["kernels"] == pytest.approx(0.1 * expected**3, rel=1e-5)


def test_share_at_the_target_leaves_the_strength() -> None:
    model = net()
    model.set_weights([KERNEL, np.ones(5), np.ones((5, 1)), np.ones(1)])
    rule = poise.Rule("features/kernel", poise.L1(0.1))
    compiled(poise.PenalizedOptimizer(optimizers.SGD(0.0), rule, update="proximal"), model)

    fitted(model, 3, callbacks=[poise.TargetSparsity("features/kernel", 0.5)])

    assert model.optimizer.strength["features/kernel"] == pytest.approx(0.1)


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = map(np.asarray, load_digits(return_X_y=True))
    return ((x - 8.0) / 6.0).astype("float32"), y


@pytest.mark.parametrize(
    ("inner", "penalty", "target"),
    [
        (lambda: optimizers.Adam(2e-3), poise.L1(1e-3), 0.8),
        (lambda: optimizers.SGD(0.05, 0.9), poise.GroupLasso(1e-3, groups="inputs"), 0.6),
    ],
    ids=["entries", "pixels"],
)
def test_target_sparsity_is_reached_on_the_digits_without_retracing(
    inner: Any, penalty: poise.Penalty, target: float
) -> None:
    hidden = layers.Dense(32, "relu", name="hidden")
    model = keras.Sequential([keras.Input((64,)), hidden, layers.Dense(10, name="head")])
    rules = [poise.Rule("hidden/kernel", penalty), poise.Rule("head/kernel", poise.L2(1e-3))]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compiled(poise.PenalizedOptimizer(inner(), rules, update="proximal"), model, loss=loss)
    traces = counted_traces(model)
    x, y = digits()

    watch = [poise.TargetSparsity("hidden/kernel", target)]
    history = model.fit(x[:1536], y[:1536], 256, 40, verbose=0, callbacks=watch).history

    kernel = weights(model)[0]
    vanished = kernel == 0 if isinstance(penalty, poise.L1) else np.all(kernel == 0, axis=1)
    shares = history["zeros/hidden/kernel"]
    assert shares[0] < 0.1
    assert shares[-1] == pytest.approx(np.mean(vanished))
    np.testing.assert_allclose(shares[-5:], target, atol=0.05)
    assert np.mean(np.argmax(model.predict(x[1536:], verbose=0), axis=1) == y[1536:]) > 0.8
    if BACKEND != "torch":
        assert len(traces) == 1


def test_strength_is_set_under_a_loss_scale() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(
            poise.PenalizedOptimizer(optimizers.SGD(0.0), by_hand.rules(0.1, 0.1), "proximal"), by_hand.side_by_side()
        )
    finally:
        keras.config.set_dtype_policy("float32")
    traces = counted_traces(model)

    model.fit(*by_hand.rows(8), epochs=3, verbose=0, callbacks=[poise.TargetSparsity("left/kernel", 0.5)])

    assert poise.get_penalized_optimizer(model).strength["left/kernel"] == pytest.approx(0.1 * 1.5**3, rel=1e-5)
    if BACKEND != "torch":
        assert len(traces) == 1


@pytest.mark.parametrize("warm_up", [True, False])
def test_strength_follows_a_schedule_without_retracing(warm_up: bool) -> None:
    """Warm-up and annealing; 12 steps."""
    begin, end = (0.0, 0.5) if warm_up else (0.5, 0.0)
    schedule = optimizers.schedules.PolynomialDecay(begin, 10, end)
    by_numpy = by_hand.ByHand("proximal", 0.0, 0.5, 0.0625)
    x, y = by_hand.rows(24)
    for number in range(12):
        part = slice(number % 3 * 8, number % 3 * 8 + 8)
        by_numpy.l1 = begin + (end - begin) * min(number / 10, 1.0)
        by_numpy.step(by_hand.gradients(x[part], y[part]))
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.0625), by_hand.rules(schedule, 0.5), update="proximal")
    model = compiled(optimizer, by_hand.side_by_side(), loss=by_hand.product)
    traces = counted_traces(model)

    model.fit(x, y, 8, 4, verbose=0, shuffle=False)

    assert_same_weights(model, by_numpy.weights)
    assert model.optimizer.strength["left/kernel"] == pytest.approx(end)
    if BACKEND != "torch":
        assert len(traces) == 1


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize("target", [0.0, 1.0, -0.5, 80, float("nan")])
def test_target_is_a_share(target: float) -> None:
    with pytest.raises(ValueError, match=rf"target must be between 0 and 1 \(exclusive\), got {target!r}"):
        poise.TargetSparsity("kernels", target)


@pytest.mark.parametrize("target", ["0.5", None, True])
def test_target_is_a_number(target: Any) -> None:
    with pytest.raises(TypeError, match=rf"target must be a number such as 0.8, got {target!r}"):
        poise.TargetSparsity("kernels", target)


@pytest.mark.parametrize("growth", [1.0, 0.5, float("inf"), float("nan")])
def test_growth_is_a_factor_above_one(growth: float) -> None:
    with pytest.raises(ValueError, match=rf"growth must be a finite number > 1, got {growth!r}"):
        poise.TargetSparsity("kernels", 0.5, growth)


RISING = optimizers.schedules.PolynomialDecay(0.0, 10, 0.1)


@pytest.mark.parametrize(
    ("penalty", "update", "message"),
    [
        (
            poise.L2(0.1),
            "proximal",
            r"TargetSparsity\('kernels'\): L2 sets nothing to exactly zero. Use a penalty that does, such as poise\.L1",
        ),
        (poise.ElasticNet(0.0, 0.1), "proximal", "ElasticNet sets nothing to exactly zero"),
        (poise.NuclearNorm(0.1), "proximal", "NuclearNorm sets nothing to exactly zero"),
        (poise.Anchored(poise.L1(0.1)), "proximal", "Anchored sets nothing to exactly zero"),
        (poise.L1(0.1), "coupled", r"update='coupled' sets nothing to exactly zero. Use update='auto'"),
        (poise.L1(RISING), "proximal", "the strength of this rule follows a schedule. Use a number"),
        (poise.L1(0.0), "proximal", "a strength of 0 cannot grow by a factor. Start with a small one"),
        (poise.L1(0.1, factors=0.0), "proximal", "all variables of this rule are frozen or have the factor 0"),
    ],
    ids=["L2", "ridge", "NuclearNorm", "Anchored", "coupled", "schedule", "zero", "factors"],
)
def test_rule_that_cannot_be_brought_to_a_share_of_zeros_is_refused(
    penalty: poise.Penalty, update: str, message: str
) -> None:
    model = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.1), penalty, update=update))
    with pytest.raises(ValueError, match=message):
        fitted(model, 1, callbacks=[poise.TargetSparsity("kernels", 0.5)])


@pytest.mark.filterwarnings("ignore:Rule 'features/kernel' has no effect:UserWarning")
def test_inactive_rule_is_refused() -> None:
    model = net()
    model.get_layer("features").trainable = False
    compiled(poise.PenalizedOptimizer("sgd", poise.Rule("features/kernel", poise.L1(0.1)), update="proximal"), model)
    with pytest.raises(ValueError, match="all variables of this rule are frozen or have the factor 0"):
        fitted(model, 1, callbacks=[poise.TargetSparsity("features/kernel", 0.5)])


def test_unknown_rule_is_refused() -> None:
    model = compiled(poise.PenalizedOptimizer("sgd", poise.L1(0.1), update="proximal"))
    with pytest.raises(KeyError, match=r"No rule is named 'head'. The rules are \['kernels'\]"):
        fitted(model, 1, callbacks=[poise.TargetSparsity("head", 0.5)])
