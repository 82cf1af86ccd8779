"""What `PenalizedOptimizer` refuses, when, and what it says instead."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from oracles.models import assert_same_weights, compiled, fitted, net, train_by_hand, weights
from oracles.optimizers import multi_optimizer

import poise


def built(inner: Any, rules: Any, update: str, model: keras.Model | None = None) -> None:
    poise.PenalizedOptimizer(inner, rules, update=update).build((model or net()).trainable_variables)


# ---------------------------------------------------------------- when it is made


@pytest.mark.parametrize(
    ("observe_every", "error"),
    [(-1, ValueError), (1.0, TypeError), (True, TypeError), (None, TypeError), ("10", TypeError)],
)
def test_observe_every_is_a_number_of_steps(observe_every: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"observe_every must be an int >= 0, got {observe_every!r}"):
        poise.PenalizedOptimizer("sgd", poise.L2(0.1), observe_every=observe_every)


@pytest.mark.parametrize("update", ["Coupled", "", None, "prox"])
def test_update_is_one_of_four(update: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"update={update!r} is not one of 'auto', 'coupled', 'decoupled', 'proximal'"
    ):
        poise.PenalizedOptimizer("sgd", poise.L2(0.1), update=update)


@pytest.mark.parametrize("update", ["coupled", "decoupled", "proximal"])
def test_loss_scale_optimizer_goes_around_and_not_inside(update: str) -> None:
    with pytest.raises(
        ValueError, match=r"LossScaleOptimizer\(PenalizedOptimizer\(\.\.\.\)\); under a mixed_float16 policy"
    ):
        poise.PenalizedOptimizer(optimizers.LossScaleOptimizer(optimizers.SGD()), poise.L2(0.1), update=update)


def test_penalized_in_penalized_is_refused() -> None:
    inside = poise.PenalizedOptimizer("sgd", poise.L1(0.1))
    with pytest.raises(
        ValueError,
        match=r"Pass all rules to one PenalizedOptimizer: PenalizedOptimizer\(inner_optimizer, \[rule, rule\]\)",
    ):
        poise.PenalizedOptimizer(inside, poise.L2(0.1))


@pytest.mark.parametrize("update", ["decoupled", "proximal"])
def test_several_optimizers_in_one_have_no_one_learning_rate(update: str) -> None:
    with pytest.raises(ValueError, match=rf"update='{update}' needs one learning rate, and a MultiOptimizer.*coupled"):
        poise.PenalizedOptimizer(multi_optimizer(), poise.L1(0.1), update=update)


@pytest.mark.parametrize("inner", ["no such optimizer", 3.0])
def test_inner_is_an_optimizer(inner: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{inner}"):
        poise.PenalizedOptimizer(inner, poise.L2(0.1))


def test_two_rules_with_the_same_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 rules are named 'kernels L2'.*Pass a different name="):
        poise.PenalizedOptimizer("sgd", [poise.L2(0.1), poise.L2(0.2)])


# ---------------------------------------------------------------- when it is built


def test_l0_does_nothing_by_its_gradient() -> None:
    with pytest.raises(
        ValueError,
        match=r"'kernels' on '.*kernel': L0 has no effect with update='coupled', because its gradient is zero.*'proximal' or 'decoupled'",
    ):
        built("sgd", poise.L0(0.1), "coupled")
    built("sgd", poise.L0(0.1), "decoupled")
    built("adam", poise.L0(0.1), "proximal")


@pytest.mark.parametrize("update", ["decoupled", "proximal"])
def test_coherence_has_no_prox(update: str) -> None:
    with pytest.raises(
        ValueError, match=r"MutualCoherence has no proximal operator. Use update='coupled', or poise\.Orthogonal"
    ):
        built("sgd", poise.MutualCoherence(0.1), update)
    built("sgd", poise.MutualCoherence(0.1), "coupled")


def test_nuclear_needs_one_step_for_the_matrix() -> None:
    rule = poise.Rule("features/kernel", poise.NuclearNorm(0.1))
    message = r"NuclearNorm needs one step for the whole matrix, and Adam takes one step per coordinate. Use keras\.optimizers\.SGD"
    with pytest.raises(ValueError, match=message):
        built("adam", rule, "proximal")
    for inner, update in (("sgd", "proximal"), ("adam", "decoupled"), ("adam", "coupled")):
        built(inner, rule, update)


@pytest.mark.parametrize("update", ["coupled", "decoupled"])
def test_only_a_prox_holds_infinite_weights_at_zero(update: str) -> None:
    """The decoupled L2 acts by its gradient too."""
    rule = poise.Rule("features/kernel", poise.L2(0.1, factors=np.array([[1.0, np.inf, 1.0, 1.0, 1.0]])))
    with pytest.raises(ValueError, match=r"L2 has infinite factors.*Use update='auto' or 'proximal', without another"):
        built("sgd", rule, update)


def test_infinite_weights_hold_at_zero_in_the_proximal_update_unless_another_penalty_is_there() -> None:
    weighted = poise.Rule("features/kernel", poise.L2(0.1, factors=np.array([[1.0, np.inf, 1.0, 1.0, 1.0]])))
    model = fitted(compiled(poise.PenalizedOptimizer("sgd", weighted, update="proximal")), epochs=1)

    np.testing.assert_array_equal(weights(model)[0][:, 1], 0.0)
    with pytest.raises(ValueError, match="without another penalty on this variable"):
        built("sgd", [weighted, poise.L1(0.1)], "proximal")


@pytest.mark.parametrize("update", ["decoupled", "proximal"])
def test_constraint_is_refused_where_a_prox_follows_it(update: str) -> None:
    with pytest.raises(ValueError, match=r"The constraint NonNeg on .*features/kernel.*Remove the constraint"):
        built("sgd", poise.L1(0.1), update, net(kernel_constraint="non_neg"))
    built("sgd", poise.L2(0.1), "decoupled", net(kernel_constraint="non_neg"))
    built("sgd", poise.L1(0.1), update, net(bias_constraint="non_neg"))


@pytest.mark.parametrize("update", ["coupled", "decoupled", "proximal"])
def test_two_penalties_that_are_not_smooth_are_refused(update: str) -> None:
    rules = [poise.L1(0.1), poise.Rule("head/kernel", poise.GroupLasso(0.1))]
    with pytest.raises(ValueError, match=r"'kernels' and 'head/kernel' put 2 non-smooth.*SparseGroupLasso"):
        built("sgd", rules, update)


def test_rule_that_matches_nothing_fails_at_the_first_step_and_names_what_is_near() -> None:
    model = compiled(poise.PenalizedOptimizer("sgd", poise.Rule("head/kernell", poise.L2(0.1))))
    with pytest.raises(
        ValueError, match=r"Rule 'head/kernell' matches none of the 4 trained.*Did you mean 'head/kernel'"
    ):
        fitted(model, epochs=1)


def test_group_axis_that_the_variable_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'kernels' cannot act on 'net/features/kernel': .*axis"):
        built("sgd", poise.GroupLasso(0.1, groups=2), "coupled")


def test_variable_with_a_keras_regularizer_points_to_adopt() -> None:
    model = compiled(poise.PenalizedOptimizer("sgd", poise.L2(0.1)), net(kernel_regularizer="l2"))
    with pytest.raises(ValueError, match=r"still has the Keras regularizer L2.*poise\.adopt_regularizers\(model\)"):
        fitted(model, epochs=1)


def test_regularizer_of_a_variable_without_a_rule_stays_in_the_loss() -> None:
    regularized: dict[str, Any] = {"kernel_regularizer": {"features": None, "head": keras.regularizers.L2(0.1)}}
    stock = fitted(compiled("sgd", net(**regularized)))
    rule = poise.Rule("features/kernel", poise.L1(0.0))
    ours = fitted(compiled(poise.PenalizedOptimizer("sgd", rule), net(**regularized)))

    assert_same_weights(ours, stock)


def test_integer_variable_in_a_rule_is_refused() -> None:
    counts = keras.Variable([1, 2], dtype="int32", trainable=False, name="counts")
    with pytest.raises(
        ValueError, match=r"Rule 'all' matches 'counts', which is int32 and has no gradient. Exclude it"
    ):
        poise.PenalizedOptimizer("sgd", poise.Rule(poise.Role.ALL, poise.L2(0.1))).build([counts])


def test_unknown_variable_is_refused() -> None:
    model, other = net(), net()
    optimizer = poise.PenalizedOptimizer("sgd", poise.L2(0.1))
    optimizer.build(model.trainable_variables)
    with pytest.raises(
        ValueError,
        match=r"built for 4 variables and cannot update 'net/features/kernel'. Either layers were frozen or unfrozen",
    ):
        optimizer.apply([ops.zeros(v.shape) for v in other.trainable_variables], other.trainable_variables)


# ---------------------------------------------------------------- frozen layers


def frozen_features() -> keras.Model:
    model = net()
    model.get_layer("features").trainable = False
    return model


def test_rule_for_only_frozen_layers_is_inactive_and_warns() -> None:
    rules = [poise.Rule("features/kernel", poise.L1(0.1)), poise.Rule("head/kernel", poise.L2(0.01))]
    model = compiled(poise.PenalizedOptimizer("sgd", rules), frozen_features())

    with pytest.warns(
        UserWarning, match=r"Rule 'features/kernel' has no effect: every variable that it matches is frozen"
    ):
        fitted(model)

    stock = frozen_features()
    stock.get_layer("head").kernel.regularizer = keras.regularizers.L2(0.01)
    assert_same_weights(model, fitted(compiled("sgd", stock)))
    assert model.optimizer.strength["features/kernel"] == 0.1


def test_rule_for_some_frozen_layers_acts_on_the_others_in_silence() -> None:
    model = fitted(compiled(poise.PenalizedOptimizer("sgd", poise.L2(0.01)), frozen_features()))

    assert [target.path for target in model.optimizer.targets] == ["net/head/kernel"]


def test_rule_for_frozen_layers_only_sleeps_in_a_loop_by_hand_too() -> None:
    """The model is found in the function that trains it."""
    model = frozen_features()
    optimizer = poise.PenalizedOptimizer("sgd", poise.Rule("features/kernel", poise.L1(0.1)))
    x, y = np.zeros((4, 6), "float32"), np.zeros((4, 1), "float32")
    with pytest.warns(UserWarning, match=r"Rule 'features/kernel' has no effect"):
        train_by_hand(model, optimizer, [(x, y)])


def test_rule_for_frozen_layers_is_an_error_where_the_model_is_not_found() -> None:
    """There the optimizer never hears of the variables that do not train."""

    def variables() -> list:
        return frozen_features().trainable_variables

    optimizer = poise.PenalizedOptimizer("sgd", poise.Rule("features/kernel", poise.L1(0.1)))
    with pytest.raises(ValueError, match=r"matches none of the 2 trained variables.*Frozen variables are not counted"):
        optimizer.build(variables())


# ---------------------------------------------------------------- models that are not ready


def test_model_that_is_not_built_has_no_summary_no_forces_and_nothing_to_adopt() -> None:
    model = keras.Sequential([layers.Dense(1)], name="empty")
    model.compile(poise.PenalizedOptimizer("sgd", poise.L2(0.1)), loss="mse")
    for act in (poise.summary, poise.adopt_regularizers, lambda m: poise.forces(m, np.ones((2, 3)), np.ones((2, 1)))):
        with pytest.raises(ValueError, match=r"'empty' is not built yet.*keras\.Input"):
            act(model)


@pytest.mark.parametrize("optimizer", ["sgd", None])
def test_model_without_penalized_is_named(optimizer: str | None) -> None:
    model = net()
    if optimizer:
        model.compile(optimizer, loss="mse")
    for act in (poise.get_penalized_optimizer, poise.forces):
        with pytest.raises(ValueError, match=r"'net' is not compiled with poise\.PenalizedOptimizer. Compile it with"):
            act(model)


def test_gradients_for_no_variable_change_nothing() -> None:
    optimizer = poise.PenalizedOptimizer("sgd", poise.L2(0.1))
    optimizer.build(net().trainable_variables)

    optimizer.apply([])

    assert int(optimizer.iterations) == 0


def test_records_before_training_are_named() -> None:
    optimizer = poise.PenalizedOptimizer("sgd", poise.L2(0.1), observe_every=1)
    for read in (optimizer.penalty_record, optimizer.force_record):
        with pytest.raises(ValueError, match=r"is not built and has recorded nothing. Train the model"):
            read()
    optimizer.reset_values()
    optimizer.reset_forces()
