"""Kernels that read the same columns: groups that count as one in adaptive stages, and groups held at zero."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import poise
from poise.compaction.input_groups import make_input_rules
from poise.path.executors.registry import check_executor
from poise.path.fit import _prepare_arrays
from poise.path.models import build_optimizer, resolve_rules
from poise.path.shared_groups import find_shared_groups
from poise.path.solve import solve_path
from poise.path.stages import adaptive_factors
from poise.penalties import GroupLasso

GROUPS = [[0, 3, 4], [1], [2, 5]]


def skip_model(taken=(0, 1), units=3) -> keras.Model:
    """A network whose hidden layer reads some of 6 inputs, and whose skip connection reads all."""
    inputs = keras.Input((6,))
    hidden = layers.Dense(units, activation="relu", name="hidden")(keras.ops.take(inputs, [*taken], axis=1))
    top, curves = layers.Dense(1, name="top")(hidden), layers.Dense(1, use_bias=False, name="curves")(inputs)
    model = keras.Model(inputs, layers.Add()([top, curves]))
    model.compile(keras.optimizers.Adam(0.03), "mse")
    return model


def targets_of(model, groups=None) -> Any:
    groups = GROUPS if groups is None else groups
    rules = make_input_rules(model, GroupLasso(1.0, groups, axis="inputs", factors=[1.0] * len(groups)))
    return build_optimizer(model, rules, "proximal", resolve_rules(model, rules)).targets


def test_the_rules_have_the_groups_of_each_kernel() -> None:
    rules = make_input_rules(skip_model(), GroupLasso(2.0, GROUPS, axis="inputs", factors=[1.0, 5.0, 1.0]))
    by_kernel = {rule.select[0].split("/")[0]: rule for rule in rules[:2]}

    assert by_kernel["hidden"].penalty.groups == [[0], [1]]
    np.testing.assert_array_equal(by_kernel["hidden"].penalty.factors, [1.0, 5.0])
    assert by_kernel["curves"].penalty.groups == GROUPS
    assert len({rule.name for rule in rules}) == 3
    assert [float(rule.penalty.strength) for rule in rules] == pytest.approx([2.0, 2.0, 0.3])


def test_groups_that_read_the_same_column_have_the_same_number() -> None:
    model = skip_model(taken=(1, 2))
    targets = {target.path.split("/")[-2]: target.index for target in targets_of(model)}

    shared = find_shared_groups(model, targets_of(model))

    curves, hidden = shared[targets["curves"]], shared[targets["hidden"]]
    assert len(set(curves)) == 3
    assert hidden.tolist() == curves[[1, 2]].tolist()


def test_a_single_kernel_shares_nothing() -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2), layers.Dense(1)])
    model.compile("adam", "mse")
    assert find_shared_groups(model, targets_of(model)) == {}


def test_adaptive_factors_of_a_column_count_all_its_weights() -> None:
    model = skip_model(taken=(0, 1))
    targets = targets_of(model)
    index = {target.path.split("/")[-2]: target.index for target in targets}
    path = {target.index: target.path for target in targets}
    sizes = {path[target.index]: np.zeros((1, 1, 1)) for target in targets}
    sizes[path[index["hidden"]]] = np.array([[[3.0, 0.0]]])
    sizes[path[index["curves"]]] = np.array([[[4.0, 0.0, 1.0]]])

    factors = adaptive_factors(targets, sizes, 0, find_shared_groups(model, targets))

    by_kernel = {
        name: next(value for key, value in factors.items() if key[0] == index[name]) for name in sizes_of(index)
    }
    weak = 1.03 / (1.0 / 5.0 + 0.03)  # the norm of the first column is √(3² + 4²) = 5
    np.testing.assert_allclose(by_kernel["hidden"][0, 0], [1.0, np.inf], rtol=1e-6)
    np.testing.assert_allclose(by_kernel["curves"][0, 0], [1.0, np.inf, weak], rtol=1e-6)


def sizes_of(index) -> list[str]:
    return [name for name in index if name != "top"]


@pytest.mark.parametrize("adaptive", [0, 1])
def test_groups_held_at_zero_stay_there_in_all_stages(adaptive) -> None:
    keras.utils.set_random_seed(0)
    model = skip_model(taken=(0, 1, 2))
    x = np.random.default_rng(0).normal(size=(80, 6)).astype("float32")
    y = (x[:, 0] * x[:, 1] + x[:, 2])[:, None]
    data, replicas = _prepare_arrays(model, x, y, None, None, 2, None, 1)
    rules = poise.input_sparsity(model, groups=GROUPS)
    kernel = model.get_layer("hidden").kernel
    held = np.array([[True, False, False], [False, False, True], [False, True, False]])

    path = solve_path(
        model, rules, data, replicas,
        executor=check_executor("auto"), strengths=np.array([1e-4, 1e-3]), adaptive=adaptive, relax=False,
        training=poise.Training.full_batch(60), checkpoint=None, report=lambda share: None,
        held_groups={kernel.path: held},
    )  # fmt: skip

    sizes = next(size for name, size in path.lanes.sizes.items() if name == kernel.path)
    assert (sizes[np.broadcast_to(held[:, None], sizes.shape)] == 0).all()
    assert (sizes[:, 0] == 0).sum() == held.sum()
    for fold, row in ((0, 0), (None, 2)):  # the rules to train with again hold the same groups
        of_hidden = next(rule for rule in path.rules_at(1e-3, fold) if rule.select.endswith("hidden/kernel"))
        np.testing.assert_array_equal(np.isinf(of_hidden.penalty.factors), held[row])


def test_the_rules_of_an_adaptive_stage_count_all_weights_of_a_column() -> None:
    keras.utils.set_random_seed(0)
    model = skip_model(taken=(0, 1, 2))
    x = np.random.default_rng(0).normal(size=(80, 6)).astype("float32")
    path = poise.fit_path(
        model, x, x[:, :1] + x[:, 1:2] ** 2, poise.input_sparsity(model, groups=GROUPS),
        strengths=[1e-3, 1e-2], cv=2, adaptive=1, training=poise.Training.full_batch(60), progress=False,
    )  # fmt: skip

    by_path = {rule.select.split("/")[-2]: rule.penalty for rule in path.rules_at(1e-2)}

    (before,) = path.stages
    at = int(np.flatnonzero(before.strengths <= before.best_strength / 1.5)[-1]) if before.best_strength > 1e-3 else 0
    curves, hidden = (
        next(size[2, at] for name, size in before.lanes.sizes.items() if f"{layer}/" in name)
        for layer in ("curves", "hidden")
    )
    norms = np.hypot(curves, hidden)
    expected = 1.03 / (norms / norms.max() + 0.03)
    for layer in ("curves", "hidden"):
        np.testing.assert_allclose(by_path[layer].factors, expected, rtol=1e-5)
