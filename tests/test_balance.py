"""poise.forces against gradients by autodiff, by finite differences and in closed form."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from oracles import models
from oracles.models import compiled, fitted, net, table, weights

import poise

COLUMNS = [
    *("variable", "rule", "prediction", "penalty", "ratio", "cosine", "winner"),
    *("residual", "relative_residual", "zeros", "weight_norm"),
]


def mean_squares_gradient(x: np.ndarray, y: np.ndarray, w: np.ndarray, b: np.ndarray, share: Any = 1.0) -> np.ndarray:
    """∇_w of mean share·(xw + b − y)² in double precision, for one output."""
    x, y, w = (a.astype("float64") for a in (x, y, w))
    return 2.0 * x.T @ (np.reshape(share, (-1, 1)) * (x @ w + b - y)) / len(x)


def linear_model(rules: Any, observe: int = 0, update: str = "coupled", inner: Any = "sgd") -> keras.Model:
    model = models.linear(6)
    model.set_weights([np.random.default_rng(3).normal(size=(6, 1)), np.full(1, 0.2)])
    return compiled(poise.PenalizedOptimizer(inner, rules, update=update, observe_every=observe), model)


def by_differences(loss: Any, w: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """∇loss(w) by central differences."""
    gradient = np.zeros(w.shape)
    for i in np.ndindex(w.shape):
        there, back = w.copy(), w.copy()
        there[i] += step
        back[i] -= step
        gradient[i] = (loss(there) - loss(back)) / (2.0 * step)
    return gradient


# ---------------------------------------------------------------- exact, on given data


def test_columns_of_a_linear_model_in_closed_form() -> None:
    x, y = table(40)
    model = linear_model(poise.L1(0.3))
    w, b = weights(model)
    w[2] = 0.0
    model.set_weights([w, b])
    prediction, penalty = mean_squares_gradient(x, y, w, b), 0.3 * np.sign(w)
    residual = np.where(w == 0, np.maximum(np.abs(prediction) - 0.3, 0.0), prediction + penalty)

    forces = poise.forces(model, x, y)

    assert forces.columns.tolist() == COLUMNS
    [row] = forces.to_dict("records")
    assert (row["variable"], row["rule"]) == ("linear/head/kernel", "kernels")
    norm = np.linalg.norm
    for column, expected in {
        "prediction": norm(prediction),
        "penalty": norm(penalty),
        "ratio": norm(penalty) / norm(prediction),
        "cosine": np.sum(prediction * penalty) / norm(prediction) / norm(penalty),
        "residual": norm(residual),
        "relative_residual": norm(residual) / norm(prediction),
        "zeros": 1 / 6,
        "weight_norm": norm(w),
    }.items():
        assert row[column] == pytest.approx(expected, rel=1e-4), column
    assert row["winner"] == ("prediction" if norm(prediction) > norm(penalty) else "penalty")


def test_forces_of_a_net_are_the_derivatives_of_its_two_losses() -> None:
    x, y = table(24)
    rules = [poise.Rule("features/kernel", poise.L2(0.2)), poise.Rule("head/kernel", poise.MCP(0.1, 2.0))]
    model = compiled(poise.PenalizedOptimizer("sgd", rules))
    start = weights(model)

    forces = poise.forces(model, x, y).set_index("variable")

    for path, place, penalty in (
        ("net/features/kernel", 0, lambda w: 0.2 * np.sum(w**2)),
        ("net/head/kernel", 2, lambda w: np.sum(np.where(np.abs(w) <= 0.2, 0.1 * np.abs(w) - w**2 / 4, 0.01))),
    ):

        def prediction(w: np.ndarray, place: int = place) -> float:
            features, features_bias, head, head_bias = [*start[:place], w, *start[place + 1 :]]
            return float(np.mean((np.tanh(x @ features + features_bias) @ head + head_bias - y) ** 2))

        each = by_differences(prediction, start[place].astype("float64"))
        other = by_differences(penalty, start[place].astype("float64"))
        row: Any = forces.loc[path]
        assert row["prediction"] == pytest.approx(np.linalg.norm(each), rel=1e-4)
        assert row["penalty"] == pytest.approx(np.linalg.norm(other), rel=1e-4, abs=1e-6)
        assert row["residual"] == pytest.approx(np.linalg.norm(each + other), rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
def test_batch_size_does_not_change_the_forces(batch_size: int) -> None:
    x, y = table(40)
    model = compiled(poise.PenalizedOptimizer("sgd", poise.L1(0.1)))
    numbers = ["prediction", "penalty", "cosine", "residual"]

    expected = poise.forces(model, x, y)[numbers].to_numpy()
    result = poise.forces(model, x, y, batch_size=batch_size)[numbers].to_numpy()

    np.testing.assert_allclose(result, expected, rtol=2e-5)


def test_sample_weights_weigh_the_rows() -> None:
    x, y = table(40)
    share = np.random.default_rng(0).uniform(size=40).astype("float32")
    model = linear_model(poise.L2(0.1))
    w, b = weights(model)

    forces = poise.forces(model, x, y, sample_weight=share, batch_size=16)

    expected = np.linalg.norm(mean_squares_gradient(x, y, w, b, share))
    assert forces["prediction"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_may_be_given_instead_of_arrays(weighted: bool) -> None:
    x, y = table(40)
    share = np.linspace(0.5, 1.5, 40).astype("float32") if weighted else None
    parts = [slice(0, 16), slice(16, 32), slice(32, 40)]
    arguments = [(x[p], y[p]) if share is None else (x[p], y[p], share[p]) for p in parts]
    model = compiled(poise.PenalizedOptimizer("sgd", poise.L1(0.1)))

    expected = poise.forces(model, x, y, sample_weight=share)["prediction"]

    np.testing.assert_allclose(poise.forces(model, iter(arguments))["prediction"], expected, rtol=2e-5)


def test_model_of_two_inputs_and_two_outputs() -> None:
    x, y = table(30)
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    a, b = layers.Dense(1, name="a")(left), layers.Dense(1, name="b")(right)
    model = keras.Model({"left": left, "right": right}, {"a": a, "b": b}, name="two")
    model.compile(
        poise.PenalizedOptimizer("sgd", poise.L2(0.1)),
        loss={"a": "mse", "b": "mse"},
        loss_weights={"a": 1.0, "b": 3.0},
    )
    w_a, b_a, w_b, b_b = weights(model)

    forces = poise.forces(model, {"left": x[:, :4], "right": x[:, 4:]}, {"a": y, "b": y}, batch_size=8)

    expected = [
        np.linalg.norm(mean_squares_gradient(x[:, :4], y, w_a, b_a)),
        3.0 * np.linalg.norm(mean_squares_gradient(x[:, 4:], y, w_b, b_b)),
    ]
    np.testing.assert_allclose(forces["prediction"], expected, rtol=1e-4)


def test_dropout_is_off_and_normalization_uses_its_moving_statistics() -> None:
    x, y = table(16)
    stack = [layers.BatchNormalization(name="norm"), layers.Dropout(0.9), layers.Dense(1, name="head")]
    model = compiled(poise.PenalizedOptimizer("sgd", poise.L2(0.1)), keras.Sequential([keras.Input((6,)), *stack]))
    model.get_layer("norm").moving_mean.assign(np.arange(6.0))
    model.get_layer("norm").moving_variance.assign(np.full(6, 4.0))
    before = weights(model)
    w, b = weights(model.get_layer("head"))
    normal = (x - np.arange(6.0)) / np.sqrt(4.0 + model.get_layer("norm").epsilon)

    forces = poise.forces(model, x, y)

    expected = np.linalg.norm(mean_squares_gradient(normal, y, w, b))
    assert forces["prediction"].item() == pytest.approx(expected, rel=1e-4)
    for now, then in zip(weights(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_regularizer_that_stays_in_the_loss_is_part_of_its_gradient() -> None:
    """Of a variable without a rule: the loss is differentiated as it stands, which the other rows do not feel."""
    x, y = table(24)
    regularized = net(kernel_regularizer={"features": keras.regularizers.L2(0.3), "head": None})
    rule = poise.Rule("head/kernel", poise.L2(0.1))

    forces = poise.forces(compiled(poise.PenalizedOptimizer("sgd", rule), regularized), x, y)

    plain = poise.forces(compiled(poise.PenalizedOptimizer("sgd", rule)), x, y)
    np.testing.assert_allclose(forces["prediction"], plain["prediction"], rtol=1e-5)


def test_residual_is_zero_at_the_least_squares_solution_without_penalty() -> None:
    x, y = table(40)
    model = linear_model(poise.L2(0.0))
    solution = np.linalg.lstsq(np.c_[x, np.ones(40)].astype("float64"), y, rcond=None)[0]
    model.set_weights([solution[:6], solution[6]])

    [row] = poise.forces(model, x, y).to_dict("records")

    assert row["residual"] < 1e-5
    assert row["penalty"] == 0.0
    assert np.isnan(row["cosine"])


@pytest.mark.parametrize("strength", [0.02, 0.3])
def test_residual_is_zero_at_the_ridge_solution_where_the_forces_cancel(strength: float) -> None:
    x, y = table(40)
    design = np.c_[x, np.ones(40)].astype("float64")
    ridge = np.diag([strength] * 6 + [0.0])
    solution = np.linalg.solve(design.T @ design / 40 + ridge, design.T @ y / 40)
    model = linear_model(poise.L2(strength))
    model.set_weights([solution[:6], solution[6]])

    [row] = poise.forces(model, x, y).to_dict("records")

    assert row["relative_residual"] < 1e-4
    assert row["cosine"] == pytest.approx(-1.0, abs=1e-5)
    assert row["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert row["winner"] == "balanced"


@pytest.mark.parametrize(("strength", "winner"), [(1e-4, "prediction"), (1e3, "penalty")])
def test_winner_is_the_larger_force(strength: float, winner: str) -> None:
    assert poise.forces(linear_model(poise.L2(strength)), *table(40))["winner"].item() == winner


def test_several_rules_on_a_variable_are_one_row() -> None:
    x, y = table(40)
    model = linear_model([poise.L1(0.3), poise.L2(0.1)])
    w = weights(model)[0]

    [row] = poise.forces(model, x, y).to_dict("records")

    assert row["rule"] == "kernels L1, kernels L2"
    assert row["penalty"] == pytest.approx(np.linalg.norm(0.3 * np.sign(w) + 0.2 * w), rel=1e-5)


def test_strength_that_was_changed_counts() -> None:
    model = linear_model(poise.L2(0.1))
    before = poise.forces(model, *table(40))["penalty"].item()

    model.optimizer.strength["kernels"] = 0.5

    assert poise.forces(model, *table(40))["penalty"].item() == pytest.approx(5.0 * before, rel=1e-5)


def test_no_rules_have_no_forces() -> None:
    forces = poise.forces(linear_model([]), *table(40))

    assert forces.columns.tolist() == COLUMNS
    assert len(forces) == 0


def test_no_rows_are_refused() -> None:
    x, y = table(4)
    with pytest.raises(ValueError, match="no rows"):
        poise.forces(linear_model(poise.L2(0.1)), x[:0], y[:0])


def test_rule_for_frozen_layers_only_has_no_row() -> None:
    model = net()
    model.get_layer("features").trainable = False
    rules = [poise.Rule("features/kernel", poise.L1(0.1)), poise.Rule("head/kernel", poise.L2(0.1))]
    model = compiled(poise.PenalizedOptimizer("sgd", rules), model)

    forces = poise.forces(model, *table(8))

    assert forces["variable"].tolist() == ["net/head/kernel"]


def test_forces_of_mixed_precision_are_those_of_the_float32_weights() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = models.linear(6)
    finally:
        keras.config.set_dtype_policy("float32")
    w = np.linspace(-1.0, 1.0, 6)[:, None].astype("float32")
    model.set_weights([w, np.zeros(1)])
    x, y = table(32)

    [row] = poise.forces(compiled(poise.PenalizedOptimizer("sgd", poise.L2(0.1)), model), x, y).to_dict("records")

    assert row["penalty"] == pytest.approx(np.linalg.norm(0.2 * w), rel=1e-6)
    expected = np.linalg.norm(mean_squares_gradient(x, y, w, np.zeros(1)))
    assert row["prediction"] == pytest.approx(expected, rel=1e-2)


# ---------------------------------------------------------------- recorded in training


def replayed(rate: float, l1: float, steps: list, w: np.ndarray, b: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(∇prediction, ∇penalty) at every step of coupled SGD on a linear model, in double precision."""
    seen = []
    for x, y in steps:
        away = 2.0 * np.mean(x.astype("float64") @ w + b - y)
        prediction, penalty = mean_squares_gradient(x, y, w, b), l1 * np.sign(w)
        seen.append((prediction, penalty))
        w, b = w - rate * (prediction + penalty), b - rate * away
    return seen


@pytest.mark.parametrize("observe_every", [1, 2, 5])
def test_recorded_forces_are_those_of_every_so_many_batches(observe_every: int) -> None:
    model = linear_model(poise.L1(0.1), observe_every, inner=optimizers.SGD(0.05))
    w, b = (a.astype("float64") for a in weights(model))
    steps = models.batches(epochs=3)
    seen = replayed(0.05, 0.1, steps, w, b)[::observe_every]

    fitted(model, epochs=3)

    sums, samples = model.optimizer.force_record().total, model.optimizer.force_record().samples
    assert samples == len(seen) == len(steps[::observe_every])
    expected = np.mean([[np.sum(g * g), np.sum(p * p), np.sum(g * p), np.sum((g + p) ** 2)] for g, p in seen], axis=0)
    np.testing.assert_allclose(sums[0] / samples, expected, rtol=1e-3)
    [row] = poise.forces(model).to_dict("records")
    assert row["prediction"] == pytest.approx(np.sqrt(expected[0]), rel=1e-3)
    assert row["penalty"] == pytest.approx(np.sqrt(expected[1]), rel=1e-3)
    assert row["cosine"] == pytest.approx(expected[2] / np.sqrt(expected[0] * expected[1]), rel=1e-3)
    assert row["residual"] == pytest.approx(np.sqrt(expected[3]), rel=1e-3)
    assert row["weight_norm"] == pytest.approx(np.linalg.norm(weights(model)[0]), rel=1e-6)


def test_recorded_forces_restart_after_a_reset() -> None:
    model = fitted(linear_model(poise.L1(0.1), 1), epochs=2)
    assert model.optimizer.force_record().samples == 6.0

    model.optimizer.reset_forces()

    assert not model.optimizer.force_record().total.any()
    fitted(model, epochs=1)
    assert model.optimizer.force_record().samples == 3.0


@pytest.mark.parametrize("observe_every", [0, 3])
def test_nothing_recorded_is_an_error_that_explains_how_to_record(observe_every: int) -> None:
    model = linear_model(poise.L2(0.1), observe_every)
    with pytest.raises(
        ValueError, match=r"Compile with poise\.PenalizedOptimizer\(\.\.\., observe_every=10\) and train, or pass"
    ):
        poise.forces(model)


def test_recorded_values_are_the_penalties_before_every_step() -> None:
    model = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), [poise.L1(0.1), poise.L2(0.2)]))
    model.optimizer.keep_values()
    worth = []
    for x, y in models.batches(epochs=2):
        kernels = weights(model)[::2]
        worth.append([0.1 * sum(np.abs(w).sum() for w in kernels), 0.2 * sum((w**2).sum() for w in kernels)])
        model.train_on_batch(x, y)

    record = model.optimizer.penalty_record()

    expected = np.array(worth)
    assert record.steps == len(worth)
    np.testing.assert_allclose(record.total, expected.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(record.last, expected[-1], rtol=1e-5)
    model.optimizer.reset_values()
    assert not model.optimizer.penalty_record().total.any()


def test_forces_by_autodiff_of_the_total() -> None:
    """∇prediction + ∇penalty is the gradient of the loss of the same model with the penalty as a Keras regularizer."""
    x, y = table(24)
    smooth = poise.forces(compiled(poise.PenalizedOptimizer("sgd", poise.L2(0.2))), x, y)
    total = compiled(optimizers.SGD(1.0), net(kernel_regularizer=keras.regularizers.L2(0.2)))
    before = weights(total)

    total.train_on_batch(x, y)

    moved = [np.linalg.norm(a - b) for a, b in zip(weights(total)[::2], before[::2], strict=True)]
    np.testing.assert_allclose(smooth["residual"], moved, rtol=1e-4)
    assert ops.is_tensor(total.trainable_variables[0].value)
