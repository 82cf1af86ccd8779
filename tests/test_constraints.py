"""Constraints, the fused lasso and SLOPE in training: they end at the solutions of independent solvers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from scipy.optimize import lsq_linear, minimize
from skglm.penalties import SLOPE
from sklearn.linear_model import LinearRegression

import poise

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 8)).astype("float32")
Y = (X @ [2.0, -1.0, 0.0, 1.5, 0.0, 0.25, -0.5, 0.75] + 0.25 * RANDOM.normal(size=40)).astype("float32")
on_jax = pytest.mark.backends("jax")


def linear_model(penalty: Any, inner: Any = "adam", **settings: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, use_bias=False, name="line")])
    model.compile(poise.PenalizedOptimizer(inner, penalty, **settings), loss="mse")
    return model


def train(model: keras.Model, steps: int, **settings: Any) -> dict[str, list[float]]:
    """Train on whole batches, 100 steps per epoch."""
    x, y = np.tile(X, (100, 1)), np.tile(Y, 100)
    return model.fit(x, y, batch_size=len(X), epochs=steps // 100, shuffle=False, verbose=0, **settings).history


def weights(model: keras.Model) -> np.ndarray:
    return np.concatenate([array.ravel() for array in model.get_weights()])


def mean_square(w: np.ndarray) -> float:
    return float(np.mean((X.astype("float64") @ w - Y) ** 2))


def solve_nonnegative() -> np.ndarray:
    return LinearRegression(positive=True, fit_intercept=False).fit(X.astype("float64"), Y).coef_


def solve_box() -> np.ndarray:
    return lsq_linear(X.astype("float64"), Y, bounds=(-0.25, 1.0), tol=1e-14).x


def solve_max_norm() -> np.ndarray:
    ball = {"type": "ineq", "fun": lambda w: 1.0 - w @ w}
    return minimize(mean_square, np.zeros(8), method="SLSQP", constraints=[ball], options={"ftol": 1e-14}).x


def solve_simplex() -> np.ndarray:
    total = {"type": "eq", "fun": lambda w: w.sum() - 2.0}
    settings = {"method": "SLSQP", "bounds": [(0, None)] * 8, "options": {"ftol": 1e-14, "maxiter": 500}}
    return minimize(mean_square, np.full(8, 0.25), constraints=[total], **settings).x


def solve_fused_lasso() -> np.ndarray:
    """w = start + Σ rises − Σ falls, which makes the penalty linear in variables with bounds."""
    steps = np.tril(np.ones((8, 8)))
    basis = np.concatenate([steps, -steps[:, 1:]], axis=1)
    prices = np.r_[0.0, np.ones(14)]
    bounds = [(None, None), *[(0, None)] * 14]
    settings: dict[str, Any] = {"method": "L-BFGS-B", "bounds": bounds, "options": {"ftol": 1e-15, "gtol": 1e-9}}

    def cost(z: np.ndarray) -> tuple[float, np.ndarray]:
        error = X.astype("float64") @ (basis @ z) - Y
        return np.mean(error**2) + prices @ z, 2 / len(X) * basis.T @ (X.T @ error) + prices

    return basis @ minimize(cost, np.zeros(15), jac=True, **settings).x


def solve_slope() -> np.ndarray:
    """Proximal gradient steps with the prox of skglm."""
    peer, w = SLOPE(np.arange(8, 0, -1) / 4.0), np.zeros(8)
    step = len(X) / (2 * np.linalg.norm(X, 2) ** 2)
    for _ in range(3000):
        w = peer.prox_vec(w - step * 2 / len(X) * X.T @ (X @ w - Y), step)
    return w


SGD, ADAM = keras.optimizers.SGD, keras.optimizers.Adam
SOLUTIONS: dict[str, tuple[poise.Penalty, Callable[[], np.ndarray], Any]] = {
    "non-negative": (poise.NonNegative(), solve_nonnegative, ADAM),
    "box": (poise.Box(-0.25, 1.0), solve_box, ADAM),
    "max-norm": (poise.MaxNorm(1.0), solve_max_norm, ADAM),
    "simplex": (poise.Simplex(2.0), solve_simplex, ADAM),
    "fused-lasso": (poise.TotalVariation(), solve_fused_lasso, ADAM),
    "fused-lasso-sgd": (poise.TotalVariation(), solve_fused_lasso, SGD),
    "slope": (poise.Slope(alphas=np.arange(8, 0, -1) / 4.0), solve_slope, SGD),
}


@pytest.mark.parametrize("name", SOLUTIONS)
def test_training_ends_at_the_solution_of_an_independent_solver(name: str) -> None:
    penalty, solve, kind = SOLUTIONS[name]
    rate = 0.1 if kind is SGD else keras.optimizers.schedules.CosineDecay(0.05, 800)
    model = linear_model(penalty, kind(rate))

    train(model, 800)

    np.testing.assert_allclose(weights(model), solve(), atol=2e-4)
    report = poise.forces(model, X, Y)
    assert report["residual"].max() < 2e-3


@pytest.mark.parametrize("kind", [SGD, ADAM])
def test_topk_trains_what_it_keeps_to_the_least_squares_of_its_columns(kind: Any) -> None:
    model = linear_model(poise.TopK(0.5), kind(0.05))

    train(model, 1000)

    w = weights(model)
    kept = np.flatnonzero(w)
    assert len(kept) == 4
    np.testing.assert_allclose(w[kept], np.linalg.lstsq(X[:, kept], Y, rcond=None)[0], atol=1e-3)


def test_sparsity_follows_its_schedule_and_continues_after_loading(tmp_path: Path) -> None:
    schedule = poise.PolynomialSparsity(0.75, end_step=300, begin_step=100, initial_sparsity=0.25, frequency=50)
    model = linear_model(poise.TopK(schedule), ADAM(0.01))
    zeros = []
    for _ in range(2):
        train(model, 100)
        zeros.append(np.sum(weights(model) == 0))
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert restored.optimizer.rules[0].penalty.strength.get_config() == schedule.get_config()
    assert restored.optimizer.strength["kernels"] == pytest.approx(0.25 * 0.5**3 * -1 + 0.75 - 0.25 * 0.5**3)
    for _ in range(2):
        train(restored, 100)
        zeros.append(np.sum(weights(restored) == 0))

    # Step 99 is before the schedule; steps 199 and 299 have the sparsity of steps 150 and 250.
    expected = [0.0, *(0.75 - 0.5 * (1 - share) ** 3 for share in (0.25, 0.75)), 0.75]
    assert zeros == [round(8 * sparsity) for sparsity in expected]


def test_polynomial_sparsity_is_the_formula_of_zhu_and_gupta() -> None:
    schedule = poise.PolynomialSparsity(0.9, end_step=110, begin_step=10, initial_sparsity=0.5, frequency=20)
    for step in range(130):
        share = min(max((step - 10) // 20 * 20 / 100, 0.0), 1.0)
        formula = 0.9 + (0.5 - 0.9) * (1.0 - share) ** 3
        expected = 0.0 if step < 10 else 0.9 if step >= 110 else formula
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-6)


def test_a_sparsity_set_by_hand_is_saved(tmp_path: Path) -> None:
    model = linear_model(poise.TopK(0.25), ADAM(0.01))
    model.optimizer.strength["kernels"] = 0.5
    train(model, 100)
    assert np.sum(weights(model) == 0) == 4
    model.save(tmp_path / "model.keras")

    restored = keras.models.load_model(tmp_path / "model.keras")

    assert restored.optimizer.strength["kernels"] == 0.5
    assert restored.optimizer.get_config()["rules"][0]["config"]["penalty"]["config"]["sparsity"] == 0.5


def test_a_constraint_is_saved(tmp_path: Path) -> None:
    model = linear_model(poise.Box(-0.25, 1.0), ADAM(0.01))
    train(model, 100)
    model.save(tmp_path / "model.keras")

    (rule,) = keras.models.load_model(tmp_path / "model.keras").optimizer.rules

    assert repr(rule.penalty) == "Box(lower=-0.25, upper=1.0)"


def test_blocks_of_four_inputs_keep_two_weights() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4, 8)), keras.layers.Conv1D(4, 2), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    rules = [poise.Rule(["conv1d*/kernel", "dense*/kernel"], poise.NofM())]
    model.compile(poise.PenalizedOptimizer("adam", rules), loss="mse")
    x = RANDOM.normal(size=(16, 4, 8))

    model.fit(x, x[:, 0, 0], epochs=2, verbose=0)

    conv, _, dense, _ = model.get_weights()
    assert (np.count_nonzero(np.moveaxis(conv, 1, -1).reshape(-1, 4), axis=-1) == 2).all()
    assert (np.count_nonzero(dense.reshape(-1, 4), axis=-1) == 2).all()


def test_whole_units_are_pruned_and_compacted() -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, activation="relu", name="hidden"), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    rules = [
        poise.Rule("hidden/kernel", poise.TopK(0.75, groups="outputs")),
        poise.Rule("hidden/bias", poise.Box(upper=0.0)),
    ]
    model.compile(poise.PenalizedOptimizer("adam", rules), loss="mse")
    train(model, 100)

    small = poise.compact(model)

    assert small.get_layer("hidden").units == 2
    np.testing.assert_allclose(small.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-5)


def test_the_first_step_projects_and_the_logs_are_finite() -> None:
    model = linear_model(poise.NonNegative(), SGD(0.0))
    assert (weights(model) < 0).any()
    history = train(model, 100, callbacks=[poise.PenaltyLogger()])
    assert (weights(model) >= 0).all()
    assert history["penalty"] == [0.0]
    assert history["total_loss"] == history["loss"]


def test_accumulated_gradients_and_a_smooth_penalty_on_the_same_variable() -> None:
    rules = [poise.Rule("line/kernel", poise.NonNegative()), poise.Rule("*/kernel", poise.L2(0.1))]
    model = linear_model(rules, SGD(0.1, gradient_accumulation_steps=2))
    train(model, 400)

    wide = np.concatenate([X, np.sqrt(0.1 * len(X)) * np.eye(8)])
    ridge = LinearRegression(positive=True, fit_intercept=False).fit(wide, np.concatenate([Y, np.zeros(8)]))
    np.testing.assert_allclose(weights(model), ridge.coef_, atol=1e-4)


@pytest.mark.parametrize("update", ["decoupled", "proximal"])
@on_jax
def test_other_updates_project_too(update: str) -> None:
    model = linear_model(poise.NonNegative(), ADAM(0.05), update=update)
    train(model, 800)
    np.testing.assert_allclose(weights(model), solve_nonnegative(), atol=2e-3)


@on_jax
def test_anchored_constraints_bound_the_change() -> None:
    for penalty in (poise.Box(-0.25, 0.25), poise.TopK(0.75)):
        model = linear_model(poise.Anchored(penalty), ADAM(0.05))
        start = weights(model)
        train(model, 200)
        change = weights(model) - start
        if isinstance(penalty, poise.Box):
            assert np.abs(change).max() == pytest.approx(0.25, abs=1e-6)
        else:
            assert np.count_nonzero(change) == 2
            assert model.optimizer.strength["kernels"] == 0.75


@on_jax
def test_summary_shows_a_sparsity_and_no_strength_of_a_constraint() -> None:
    sparse, bounded = (linear_model(penalty) for penalty in (poise.TopK(0.75), poise.NonNegative()))
    assert poise.summary(sparse).table["strength"].tolist() == [0.75]
    assert poise.summary(bounded).table["strength"].tolist() == [None]
    assert "NonNegative" in str(poise.summary(bounded))


@on_jax
def test_what_a_constraint_cannot_do_is_refused() -> None:
    model = linear_model(poise.NonNegative(), update="coupled")
    with pytest.raises(
        ValueError, match="NonNegative has no effect with update='coupled', because its gradient is zero"
    ):
        model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match=r"NonNegative\(\) is a constraint, which cannot act as a regularizer"):
        poise.NonNegative()(ops.ones((2, 2)))
    with pytest.raises(ValueError, match=r"NonNegative\(\) is a constraint, which has no strength"):
        linear_model(poise.NonNegative()).optimizer.strength["kernels"] = 2.0
    with pytest.raises(ValueError, match=r"sparsity must be between 0 and 1, got 80"):
        linear_model(poise.TopK(0.5)).optimizer.strength["kernels"] = 80
    with pytest.raises(ValueError, match=r"TopK\(sparsity=0.5\) is a constraint, which has no strength to adapt"):
        train(linear_model(poise.TopK(0.5)), 100, callbacks=[poise.TargetSparsity("kernels", 0.5)])


@on_jax
def test_a_path_varies_the_strength_of_a_penalty_next_to_a_constraint() -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, activation="relu", name="hidden"), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile(loss="mse", optimizer=ADAM(0.02))
    training = poise.Training(epochs=10, settle=5)
    rules = [poise.Rule("hidden/kernel", poise.L1(0.1)), poise.Rule("head/kernel", poise.NonNegative())]

    path = poise.fit_path(model, X, Y, rules, strengths=[0.01, 0.1, 10.0], cv=2, training=training, progress=False)

    zeros = path.table["zeros"].tolist()
    assert zeros == sorted(zeros)
    assert zeros[-1] >= 32
    for strength in (0.01, 0.1):
        assert (path.model(strength).get_layer("head").get_weights()[0] >= 0).all()
    constraint_first = [rules[1], rules[0]]
    sparsity_last = [rules[0], poise.Rule("head/kernel", poise.TopK(0.5))]
    for wrong, kind in ((constraint_first, "NonNegative"), (sparsity_last, "TopK")):
        with pytest.raises(ValueError, match=f"has the constraint {kind}.*A path varies the strength"):
            poise.fit_path(model, X, Y, wrong, training=training)
