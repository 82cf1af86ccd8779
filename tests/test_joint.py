"""A penalty of several variables together: what it does in a step, where it ends, and what is told of it."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from oracles.autodiff import BACKEND
from oracles.compare import array, assert_close, sample, spread_steps, tensor
from oracles.joint import (
    ByHand,
    flat,
    gradients,
    group_lasso,
    paired_table,
    pairs_of,
    two_inputs,
    unit_labels,
    units_of,
)
from oracles.models import assert_same_weights, batches, compiled, descend, fitted, net, table, weights

import poise

MEMBERS = ["net/features/kernel", "net/features/bias", "net/head/kernel"]

# ---------------------------------------------------------------- the penalty


def in_one_matrix(vector: Any) -> Any:
    """The columns of a kernel (2, 3, 4), over the rows of another (4, 5), over a bias (4,)."""
    first, second, bias = np.split(vector, [24, 44])
    return np.concatenate([first.reshape(6, 4), second.reshape(4, 5).T, bias.reshape(1, 4)])


@pytest.mark.parametrize("factors", [None, [0.5, 0.0, np.inf, 2.0]])
def test_it_is_group_lasso_on_the_members_put_into_one_matrix(factors: Any) -> None:
    every = [0, 1, 2, 3]
    members = {"a/kernel": ((2, 3, 4), 2, every), "b/kernel": ((4, 5), 0, every), "a/bias": ((4,), 0, every)}
    joint, each = poise.JointGroupLasso(1.0, members, factors), poise.GroupLasso(1.0, factors=factors)
    w, g = sample((48,), 0), sample((48,), 1)
    w[in_one_matrix(np.arange(48))[:, 1]] = 0.0
    there, force = tensor(in_one_matrix(w)), tensor(in_one_matrix(g))

    assert_close(joint.value(tensor(w), 0.5), array(each.value(there, 0.5)))
    assert_close(joint.critical_strength(tensor(g)), array(each.critical_strength(force)))
    assert_close(joint.residual(tensor(w), tensor(g), 0.5), array(each.residual(there, force, 0.5)))
    assert_close(in_one_matrix(array(joint.gradient(tensor(w), 0.5))), array(each.gradient(there, 0.5)))
    steps = spread_steps((48,), 2, 1e-3, 1e1)
    for own, other in ((0.75, 0.75), (steps, in_one_matrix(steps))):
        result = array(joint.prox(tensor(w), tensor(own), 0.5))
        assert_close(in_one_matrix(result), array(each.prox(there, tensor(other), 0.5)))


# ---------------------------------------------------------------- the optimizer

HAND = {
    "SGD": (lambda: optimizers.SGD(0.1), 2.0),
    "Adam": (lambda: optimizers.Adam(0.05), 0.4),
    "RMSprop": (lambda: optimizers.RMSprop(0.02, momentum=0.5), 0.4),
}


@pytest.mark.parametrize("update", ["coupled", "decoupled", "proximal"])
@pytest.mark.parametrize("kind", HAND)
def test_steps_are_those_of_numpy(kind: Any, update: str) -> None:
    make, strength = HAND[kind]
    model = net()
    optimizer = poise.PenalizedOptimizer(make(), units_of(model, strength), update)
    optimizer.build(model.trainable_variables)
    expected = [w.astype("float64") for w in weights(model)]
    hand = ByHand(kind, float(array(optimizer.learning_rate)), update, strength)

    for x, y in batches(epochs=1):
        here = [tensor(g, "float32") for g in gradients([w.astype("float64") for w in weights(model)], x, y)]
        optimizer.apply(here, model.trainable_variables)
        expected = hand.step(expected, x, y)

    assert_same_weights(model, expected, relative=2e-5)
    for result, by_hand in zip(weights(model), expected, strict=True):
        np.testing.assert_array_equal(result == 0, by_hand == 0)
    assert (expected[2] == 0).any() or update != "proximal"


EAGER = {"run_eagerly": BACKEND == "tensorflow"}
"""A few steps: there it is faster than compiling them."""


def accumulating() -> Any:
    return optimizers.Adam(0.05, gradient_accumulation_steps=2)


def averaging() -> Any:
    return optimizers.SGD(0.1, momentum=0.9, nesterov=True, use_ema=True, ema_momentum=0.5)


@pytest.mark.parametrize(
    ("inner", "update"),
    [(accumulating, "proximal"), (averaging, "proximal"), (averaging, "decoupled")],
)
def test_groups_of_one_variable_each_are_ordinary_rules(inner: Any, update: str) -> None:
    """Units that share nothing: a group lasso on each variable alone does the same, whatever the inner optimizer."""
    plain, joint = net(), net()
    rules = [poise.Rule("features/kernel", poise.GroupLasso(0.1)), poise.Rule("head/kernel", poise.GroupLasso(0.1, "inputs"))]  # fmt: skip
    members = {MEMBERS[0]: ((6, 5), 1, [*range(5)]), MEMBERS[2]: ((5, 1), 0, [*range(5, 10)])}
    together = poise.JointGroupLasso(0.1, {by_tail(joint, path): m for path, m in members.items()})
    for model, arguments in ((plain, rules), (joint, together)):
        fitted(
            compiled(poise.PenalizedOptimizer(inner(), arguments, update, observe_every=1), model, **EAGER), epochs=2
        )

    assert_same_weights(joint, plain, relative=1e-6)
    assert_same_weights([*map(array, joint.optimizer.inner_optimizer.variables)], [*map(array, plain.optimizer.inner_optimizer.variables)])  # fmt: skip
    sums = plain.optimizer.force_record().total.sum(0)
    np.testing.assert_allclose(joint.optimizer.force_record().total[0], sums, rtol=1e-4)


def by_tail(model: Any, path: Any) -> Any:
    (result,) = [v.path for v in model.trainable_variables if v.path.split("/")[-2:] == path.split("/")[-2:]]
    return result


def test_a_scaled_loss_steps_as_an_unscaled_one() -> None:
    """Powers of two scale without rounding."""
    plain, scaled = net(), net()
    for model in (plain, scaled):
        inner = poise.PenalizedOptimizer(optimizers.Adam(0.05), units_of(model, 0.2), "proximal")
        compiled(inner if model is plain else optimizers.LossScaleOptimizer(inner, initial_scale=64.0), model, **EAGER)
        fitted(model, epochs=2)
    assert_same_weights(scaled, plain, relative=1e-6)


def test_it_ends_at_the_group_lasso_of_both_designs() -> None:
    a, b, y = paired_table()
    model, strength = two_inputs(6), 0.25
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.2), pairs_of(model, strength), "proximal")
    model.compile(optimizer, "mse")
    names = [variable.path.split("/")[-2:] for variable in model.trainable_variables]

    def of_loss(trained: Any) -> Any:
        by = dict(zip(map("/".join, names), trained, strict=True))
        x = {"a": ops.convert_to_tensor(a), "b": ops.convert_to_tensor(b)}
        away = (
            x["a"] @ by["head_a/kernel"] + x["b"] @ by["head_b/kernel"] + by["head_a/bias"] - ops.convert_to_tensor(y)
        )
        away = away * (2.0 / len(y))
        result = {f"head_{name}/kernel": ops.transpose(x[name]) @ away for name in "ab"} | {"head_a/bias": ops.sum(away, axis=0)}  # fmt: skip
        return [result[name] for name in map("/".join, names)]

    descend(model, optimizer, of_loss, 300)

    expected, constant = group_lasso(a, b, y, strength)
    assert 0 < (expected[0] == 0).sum() < 6
    result = {"/".join(name): array(v)[..., 0] for name, v in zip(names, model.trainable_variables, strict=True)}
    np.testing.assert_allclose([result["head_a/kernel"], result["head_b/kernel"]], expected, atol=1e-5)
    np.testing.assert_allclose(result["head_a/bias"], constant, atol=1e-5)
    assert ((result["head_a/kernel"] == 0) == (expected[0] == 0)).all()
    row = poise.forces(model, {"a": a, "b": b}, y).iloc[0]
    assert row["relative_residual"] < 1e-5
    assert row["winner"] == "balanced" or (expected == 0).any()


def test_a_step_on_some_of_its_variables_is_refused() -> None:
    model = net()
    optimizer = poise.PenalizedOptimizer("sgd", units_of(model), "proximal")
    optimizer.build(model.trainable_variables)
    kernel = model.trainable_variables[0]
    with pytest.raises(
        ValueError, match=r"Rule 'joint groups' penalizes 3 variables jointly, but '.*bias' is missing from this call"
    ):
        optimizer.apply([ops.zeros(kernel.shape)], [kernel])


def test_a_constraint_on_any_member_is_refused() -> None:
    model = net(bias_constraint="non_neg")
    with pytest.raises(ValueError, match=r"NonNeg on '.*features/bias' cannot be combined"):
        poise.PenalizedOptimizer("sgd", units_of(model), "proximal").build(model.trainable_variables)


# ---------------------------------------------------------------- what is told, kept and saved


def test_forces_have_one_row_for_all_members() -> None:
    model = net()
    model.compile(poise.PenalizedOptimizer("adam", poise.Rule("**", units_of(model, 0.3), exclude="head/bias", name="units")), "mse")  # fmt: skip
    x, y = table(40)
    w, g = weights(model), gradients(weights(model), x, y)[:3]
    labels = unit_labels(6)
    lengths = np.sqrt(np.bincount(labels, flat(w[:3]) ** 2))
    pull = 0.3 * np.sqrt(8) * (flat(w[:3]) / lengths[labels])

    (row,) = poise.forces(model, x, y).to_dict("records")

    assert (row["variable"], row["rule"]) == ("units", "units")
    np.testing.assert_allclose(row["prediction"], np.linalg.norm(flat(g)), rtol=1e-4)
    np.testing.assert_allclose(row["penalty"], np.linalg.norm(pull), rtol=1e-4)
    np.testing.assert_allclose(row["residual"], np.linalg.norm(flat(g) + pull), rtol=1e-4)
    np.testing.assert_allclose(row["weight_norm"], np.linalg.norm(flat(w[:3])), rtol=1e-5)


def test_the_recorded_value_is_that_of_all_members() -> None:
    model = net()
    compiled(poise.PenalizedOptimizer(optimizers.SGD(0.0), units_of(model, 0.3)), model)
    history = fitted_history(model)
    lengths = np.sqrt(np.bincount(unit_labels(6), flat(weights(model)[:3]) ** 2))
    np.testing.assert_allclose(history["penalty"], 0.3 * np.sqrt(8) * lengths.sum(), rtol=1e-5)


def fitted_history(model: Any) -> Any:
    x, y = table(40)
    return model.fit(x, y, verbose=0, callbacks=[poise.PenaltyLogger()]).history


def test_summary_shows_the_rule_at_every_member() -> None:
    model = net()
    model.compile(poise.PenalizedOptimizer("sgd", units_of(model, 0.3)), "mse")
    shown = poise.summary(model).table
    assert shown["penalty"].tolist() == ["JointGroupLasso"] * 3 + [""]
    assert set(shown["note"][:3]) == {"rule 'joint groups'"}
    assert poise.summary(model).title == "net: 3 of 4 trained variables penalized, update='auto'"


def test_a_loaded_model_continues_like_the_saved_one(tmp_path: Path) -> None:
    """Also under other paths: what Keras rebuilds may lack the model's name in them."""
    model = net()
    compiled(poise.PenalizedOptimizer(optimizers.RMSprop(0.02, momentum=0.5), units_of(model, 0.3), "proximal"), model)
    fitted(model, epochs=1)
    model.optimizer.strength["joint groups"] = 0.125
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert loaded.optimizer.strength["joint groups"] == 0.125
    assert loaded.optimizer.targets[0].members == (0, 1, 2)
    assert_same_weights(fitted(loaded, epochs=1), fitted(model, epochs=1), relative=1e-6)


def test_adopt_puts_rules_beside_it_and_keeps_its_trace() -> None:
    head = keras.layers.Dense(1, name="head", bias_regularizer="l2")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, "tanh", name="features"), head], name="net")
    inner = optimizers.SGD(0.02, momentum=0.9)
    compiled(poise.PenalizedOptimizer(inner, units_of(model, 0.3), "proximal"), model)
    fitted(model, epochs=1)
    before = model.optimizer.targets[0]

    poise.adopt_regularizers(model)

    after = model.optimizer.targets[0]
    assert (after.members, after.path, len(model.optimizer.targets)) == (before.members, before.path, 2)
    assert float(array(after.trace)) == float(array(before.trace)) > 0


# ---------------------------------------------------------------- rules that do not fit


def frozen(model: Any) -> Any:
    model.layers[0].trainable = False
    return units_of_anywhere(model)


def units_of_anywhere(model: Any) -> Any:
    return poise.JointGroupLasso(1.0, {MEMBERS[0]: ((6, 5), 1, [*range(5)])})


def of(members: Any) -> Any:
    return lambda model: poise.JointGroupLasso(1.0, members)


KERNEL = {MEMBERS[0]: ((6, 5), 1, [*range(5)])}
WRONG = {
    "no such path": (
        of({"net/feature/kernel": ((6, 5), 1, [*range(5)])}),
        r"the member 'net/feature/kernel' is not one of the 4 trained variables\. Use paths as in variable.path",
    ),
    "frozen": (frozen, r"the member '.*features/kernel' is frozen \(trainable=False\) and cannot become zero"),
    "another shape": (
        of({MEMBERS[0]: ((5, 6), 1, [*range(6)])}),
        r"has the shape \(6, 5\), but its groups are for the shape \(5, 6\)",
    ),
    "any of two": (of({"kernel": ((6, 5), 1, [*range(5)])}), "the member 'kernel' is ambiguous: it matches '.*', '.*'"),
    "one twice": (
        of(KERNEL | {"features/kernel": ((6, 5), 0, [*range(6)])}),
        "the member 'features/kernel' and '.*features/kernel' name the same variable, '.*features/kernel'. Remove one of",
    ),
    "beside a smooth one": (
        lambda model: [units_of(model), poise.Rule("head/kernel", poise.L2())],
        r"Rules 'joint groups' and 'head/kernel' put a joint penalty and another penalty on '.*head/kernel'.*"
        r"Exclude the variable from rule 'head/kernel': poise.Rule\(..., exclude=\['.*head/kernel', ...\]\)",
    ),
    "two joint ones": (
        lambda model: [units_of(model), poise.Rule("features/kernel", units_of_anywhere(model), name="other")],
        r"put two joint penalties on '.*features/kernel'.*Leave the variable out of the members of one of the two penalties\.$",
    ),
    "a member that is not selected": (
        lambda model: poise.Rule("*/kernel", units_of(model)),
        r"Rule '\*/kernel' does not select '.*features/bias', a member of its penalty",
    ),
    "a member that is excluded": (
        lambda model: poise.Rule("**", units_of(model), exclude="bias"),
        "does not select '.*features/bias'",
    ),
    "one that is no member": (
        lambda model: poise.Rule("**", units_of(model)),
        r"selects '.*head/bias', which is not a member of its penalty",
    ),
    "a name that is a path": (
        lambda model: [
            poise.Rule(MEMBERS[0], units_of_anywhere(model), name=model.trainable_variables[2].path),
            poise.Rule("head/kernel", poise.L1()),
        ],
        r"name '.*head/kernel' of the joint rule is the path of another variable\. Pass another name=",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_rules_that_do_not_fit_are_refused_before_training(case: str) -> None:
    make, message = WRONG[case]
    model = net()
    rules = make(model)
    with pytest.raises(ValueError, match=message):
        poise.PenalizedOptimizer("sgd", rules, "proximal").build(model.trainable_variables, model)


def test_members_are_found_under_paths_that_are_longer_or_shorter() -> None:
    model = net()
    for members in (["net/features/kernel"], ["features/kernel"], ["outer/net/features/kernel"]):
        penalty = poise.JointGroupLasso(1.0, {path: ((6, 5), 1, [*range(5)]) for path in members})
        for rule in (penalty, poise.Rule(members, penalty)):
            optimizer = poise.PenalizedOptimizer("sgd", rule, "proximal")
            optimizer.build(model.trainable_variables)
            assert optimizer.targets[0].members == (0,)
