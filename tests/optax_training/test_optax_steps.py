"""What one step does: the step size of the prox, and the equality of the smooth updates with those of optax."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from optax_cases import CASES, apply_updates, linear_start, penalized

import poise
import poise.optax
from poise.optax.metrics import STEPS, step_of

every_optimizer = pytest.mark.parametrize("name", CASES)
GRADIENT = np.array([[2.0, -0.5], [0.7, 1.0]], "float32")


@every_optimizer
def test_step_of_the_prox_is_the_factor_of_a_constant_gradient(name: str) -> None:
    """At rest the inner optimizer moves by −h·g, and the prox of L1 by −h·strength·sign(w): h must be the same."""
    case, strength = CASES[name], 0.3
    tx, plain = case.penalized(poise.L1(strength)), case.plain()
    params, gradients = {"kernel": jnp.array([[3.0, -3.0], [2.0, 4.0]])}, {"kernel": jnp.array(GRADIENT)}
    state, plain_state = tx.init(params), plain.init(params)
    update, plain_update = jax.jit(tx.update), jax.jit(plain.update)
    for _ in range(6):
        updates, state = update(gradients, state, params)
        alone, plain_state = plain_update(gradients, plain_state, params)
        by_optimizer = np.asarray(alone["kernel"], "float64")
        by_prox = np.asarray(updates["kernel"], "float64") - by_optimizer
        h = -by_optimizer / GRADIENT
        assert np.all(np.abs(params["kernel"] + by_optimizer) > h * strength)  # no entry crosses zero
        np.testing.assert_allclose(by_prox, -h * strength * np.sign(params["kernel"]), rtol=2e-5, atol=5e-7)


def stepped(name: str, penalty: Any, gradient: list[float], steps: int = 3) -> np.ndarray:
    """Ones after steps along a constant gradient with the rate 0.01, and the prox."""
    case = CASES[name]
    tx = penalized(case.function, penalty, "proximal", learning_rate=0.01, **case.settings)
    params = {"kernel": jnp.ones((3, 1))}
    state = tx.init(params)
    update, gradients = jax.jit(tx.update), {"kernel": jnp.array(gradient)[:, None]}
    for _ in range(steps):
        updates, state = update(gradients, state, params)
        params = apply_updates(params, updates)
    return np.asarray(params["kernel"])[:, 0]


TRACES = {"sgd-momentum": 1 + 1.9 + 2.71, "sgd-nesterov": 1.9 + 2.71 + 3.439}
TRACES |= {"rmsprop-momentum": 1 + 1.5 + 1.75, "rmsprop-nesterov": 1.5 + 1.75 + 1.875}
"""The sums of the traces of three steps of 1."""
TRACES["radam-nesterov"] = sum(0.9 * (1 - 0.9**t) / (1 - 0.9 ** (t + 1)) + 0.1 / (1 - 0.9**t) for t in (1, 2, 3))
TRACES["adagrad"] = 3 / np.sqrt(0.1)  # it starts from a second moment of 0.1


@every_optimizer
def test_array_without_a_gradient_so_far_moves_by_the_learning_rate_times_the_strength(name: str) -> None:
    """And not by rate/ε times the strength, which would set it to zero at once."""
    kernel = stepped(name, poise.GroupLasso(0.5, groups="inputs"), [0.0, 0.0, 0.0])
    np.testing.assert_allclose(kernel, 1 - TRACES.get(name, 3.0) * 0.01 * 0.5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("adagrad", "adadelta")])
def test_entry_without_a_gradient_so_far_takes_the_step_of_the_others(name: str) -> None:
    """The first entry moves by h·(g + s) and the others by h·s. (Adagrad and Adadelta have finite steps.)"""
    gradient, strength = 0.1, 0.02
    kernel = stepped(name, poise.L1(strength), [gradient, 0.0, 0.0])
    assert kernel[0] > 0
    expected = (1 - kernel[0]) * strength / (gradient + strength)
    np.testing.assert_allclose(1 - kernel[1:], expected, rtol=1e-3)


def follow(transformation: Any) -> list[np.ndarray]:
    """The kernels of three steps along a gradient that depends on the weights."""
    params, kernels = linear_start(3), []
    state = transformation.init(params)
    for _ in range(3):
        gradients = jax.tree.map(lambda w: jnp.cos(3.0 * w), params)
        updates, state = transformation.update(gradients, state, params)
        params = apply_updates(params, updates)
        kernels.append(np.asarray(params["kernel"]))
    return kernels


KERNELS = {"kernel": True, "bias": False}


def test_decoupled_l2_is_adamw() -> None:
    rate = optax.exponential_decay(0.1, 2, 0.5)
    ours = penalized(optax.adam, poise.L2(0.15), "decoupled", learning_rate=rate)
    theirs = optax.adamw(rate, weight_decay=0.3, mask=KERNELS)
    np.testing.assert_allclose(follow(ours), follow(theirs), rtol=1e-6)


@pytest.mark.parametrize("update", ["auto", "coupled"])
def test_coupled_l2_is_a_decay_added_to_the_gradient(update: str) -> None:
    ours = penalized(optax.adam, poise.L2(0.15), update, learning_rate=0.1)
    theirs = optax.chain(optax.add_decayed_weights(0.3, mask=KERNELS), optax.adam(0.1))
    np.testing.assert_array_equal(follow(ours), follow(theirs))


def test_decoupled_l1_is_a_soft_threshold_by_the_learning_rate_after_the_step() -> None:
    tx = penalized(optax.adam, poise.L1(0.5), "decoupled", learning_rate=0.1)
    params, gradient = {"kernel": jnp.array([[1.0, 0.12]])}, {"kernel": jnp.array([[1.0, 1.0]])}
    updates, _ = tx.update(gradient, tx.init(params), params)
    np.testing.assert_allclose(apply_updates(params, updates)["kernel"], [[0.85, 0.0]], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_removed_weights_are_exact_zeros(dtype: str) -> None:
    tx = penalized(optax.sgd, poise.L1(0.5), learning_rate=0.1)
    w = jnp.asarray(np.random.default_rng(0).normal(0.0, 0.1, (40, 5)), dtype)
    updates, _ = tx.update({"kernel": jnp.zeros_like(w)}, tx.init({"kernel": w}), {"kernel": w})
    after = apply_updates({"kernel": w}, updates)["kernel"]
    assert after.dtype == dtype
    np.testing.assert_array_equal(np.asarray(after == 0), np.asarray(jnp.abs(w) <= 0.05))


def test_other_weights_are_those_of_the_prox_up_to_the_rounding_of_the_weight_before() -> None:
    tx = penalized(optax.sgd, poise.Box(-0.1, 0.3), learning_rate=0.1)
    w = np.random.default_rng(0).normal(0.0, 10.0, (40, 5)).astype("float32")
    updates, _ = tx.update({"kernel": jnp.zeros_like(w)}, tx.init({"kernel": w}), {"kernel": w})
    after = np.asarray(apply_updates({"kernel": w}, updates)["kernel"])
    exact = np.clip(w, np.float32(-0.1), np.float32(0.3))
    assert np.mean(after != exact) > 0
    assert (np.abs(after.astype("float64") - exact) <= np.spacing(np.maximum(np.abs(w), np.abs(exact)))).all()


def test_low_precision_gradients_of_full_precision_weights_give_exact_zeros() -> None:
    tx = penalized(optax.sgd, poise.L1(0.5), learning_rate=0.1)
    params = {"kernel": jnp.array([[0.01234567, 1.0]])}
    updates, _ = tx.update({"kernel": jnp.zeros((1, 2), "bfloat16")}, tx.init(params), params)
    np.testing.assert_allclose(apply_updates(params, updates)["kernel"], [[0.0, 0.95]], rtol=1e-6)
    assert apply_updates(params, updates)["kernel"][0, 0] == 0


def test_nuclear_norm_cuts_singular_values_by_the_learning_rate_times_the_strength() -> None:
    w = np.random.default_rng(0).normal(size=(4, 3))
    u, sizes, v = np.linalg.svd(w, full_matrices=False)
    tx = penalized(optax.sgd, poise.NuclearNorm(5.0), learning_rate=0.2)
    params = {"kernel": jnp.asarray(w, "float32")}
    updates, _ = tx.update({"kernel": jnp.zeros((4, 3))}, tx.init(params), params)
    expected = (u * np.maximum(sizes - 1.0, 0.0)) @ v
    np.testing.assert_allclose(apply_updates(params, updates)["kernel"], expected, atol=1e-5)


def test_joint_groups_take_the_steps_of_all_their_arrays() -> None:
    """With Adam's step h = 0.1/|g| per entry, the group lasso over a unit's column and bias solves its own equation."""
    members = {"hidden/kernel": ((2, 2), 1, [0, 1]), "hidden/bias": ((2,), 0, [0, 1])}
    penalty = poise.JointGroupLasso(0.4, members, factors=[1.0, 1.0])
    tx = penalized(optax.adam, penalty, learning_rate=0.1)
    params = {"hidden": {"kernel": jnp.array([[1.0, 0.01], [2.0, 0.02]]), "bias": jnp.array([0.5, 0.01])}}
    gradients = {"hidden": {"kernel": jnp.array([[0.5, 1.0], [1.0, 2.0]]), "bias": jnp.array([2.0, 1.0])}}
    updates, _ = tx.update(gradients, tx.init(params), params)
    after = apply_updates(params, updates)["hidden"]
    unit = np.concatenate([after["kernel"][:, 0], after["bias"][:1]])
    gradient = np.array([0.5, 1.0, 2.0])
    before = np.array([1.0, 2.0, 0.5]) - 0.1
    np.testing.assert_allclose(unit, before - 0.1 / gradient * 0.4 * unit / np.linalg.norm(unit), atol=1e-5)
    other = apply_updates(params, optax.adam(0.1).update(gradients, optax.adam(0.1).init(params), params)[0])
    assert np.abs(np.asarray(other["hidden"]["kernel"])[:, 1]).min() > 0
    assert after["bias"][1] != 0  # 0.01 − 0.1 = −0.09 is farther from zero than its step of 0.04


FORGETFUL = {
    *("adam", "adam-eps_root", "nadam", "adamw", "nadamw", "adamax", "adamaxw", "radam", "radam-nesterov", "lamb"),
    *("rmsprop", "rmsprop-momentum", "rmsprop-nesterov", "adabelief", "adabelief-nesterov", "adan"),
    *("adafactor", "adafactor-factored"),
}


@every_optimizer
def test_rare_rows_of_an_embedding_are_warned_of_where_the_step_forgets_them(name: str) -> None:
    tx = CASES[name].penalized(poise.L1(0.1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tx.init({"embed": {"embedding": jnp.ones((5, 3))}})
    messages = [str(each.message) for each in caught]
    assert len(messages) == (name in FORGETFUL)
    assert all("'embed/embedding'" in text and "Use optax.amsgrad" in text for text in messages)


def test_custom_optimizer_can_register_its_step() -> None:
    def half_sgd(learning_rate: float) -> Any:
        return optax.sgd(0.5 * learning_rate)

    step_of(half_sgd, kind="scalar")(lambda update: 0.5 * update.rate)
    try:
        tx = penalized(half_sgd, poise.L1(1.0), learning_rate=0.5)
        params = {"kernel": jnp.ones((1, 1))}
        updates, _ = tx.update({"kernel": jnp.ones((1, 1))}, tx.init(params), params)
        np.testing.assert_allclose(updates["kernel"], [[-0.5]])
    finally:
        del STEPS[half_sgd]


def test_strength_may_follow_a_schedule() -> None:
    warm_up = keras.optimizers.schedules.PolynomialDecay(0.0, 4, end_learning_rate=1.0)
    tx = penalized(optax.sgd, poise.L1(warm_up), learning_rate=0.1)
    params = {"kernel": jnp.ones((1, 1))}
    state = tx.init(params)
    moved = []
    for _ in range(3):
        assert float(state.strengths["kernels"]) == pytest.approx(float(warm_up(state.count)))
        updates, state = jax.jit(tx.update)({"kernel": jnp.zeros((1, 1))}, state, params)
        moved.append(float(updates["kernel"][0, 0]))
    np.testing.assert_allclose(moved, [0.0, -0.025, -0.05], atol=1e-7)
