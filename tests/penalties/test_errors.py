"""Bad input: what was given, why it cannot be, and what to do instead, all three in the message."""

import re
from typing import Any

import keras
import numpy as np
import pytest
from oracles.compare import tensor
from oracles.penalties import MATRIX, ONE_EACH, Case

import poise

MEMBERS = {"hidden/kernel": ((2, 3), 1, [0, 1, 2]), "hidden/bias": ((3,), 0, [0, 1, 2])}
WITH_STRENGTH = [case for case in ONE_EACH if case.make(1.0).strength_argument == "strength"]
WITH_FACTORS = [penalty for penalty in (case.make(1.0) for case in WITH_STRENGTH) if "factors" in penalty.get_config()]


# ---------------------------------------------------------------- strength and factors


@pytest.mark.parametrize("strength", [-1.0, -1e-9, float("nan"), float("inf"), -float("inf")])
def test_strength_must_be_finite_and_not_negative(strength: float) -> None:
    for case in WITH_STRENGTH:
        with pytest.raises(ValueError, match=rf"(?s)strength.*{strength!r}"):
            case.make(strength)


@pytest.mark.parametrize("strength", [True, "0.1", None, [0.1], 1j])
def test_strength_must_be_a_number_or_a_schedule(strength: object) -> None:
    for case in WITH_STRENGTH:
        with pytest.raises(TypeError, match=r"(?s)strength.*(number|float).*LearningRateSchedule"):
            case.make(strength)


def test_strength_may_be_any_real_number_or_a_schedule() -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    for case in WITH_STRENGTH:
        for strength in (0, 1, 0.5, np.float32(0.25), np.int64(2)):
            assert case.make(strength).strength == strength
        assert case.make(schedule).strength is schedule


@pytest.mark.parametrize("factor", [-0.5, float("nan"), -float("inf")])
def test_factors_must_not_be_negative_or_nan(factor: float) -> None:
    for penalty in WITH_FACTORS:
        with pytest.raises(ValueError, match=rf"(?s)factors.*{factor!r}"):
            penalty.from_config({**penalty.get_config(), "factors": factor})


def test_factors_must_be_numbers() -> None:
    with pytest.raises(TypeError, match="factors must be a number or an array of numbers, got 'many'"):
        poise.L1(factors="many")


@pytest.mark.parametrize("case", [case for case in WITH_STRENGTH if case.exchangeable], ids=str)
def test_factors_of_entries_must_fit_the_variable(case: Case) -> None:
    penalty, w = case.make(1.0).with_factors(np.ones((2, 3))), tensor(np.ones(MATRIX))
    for method in ("value", "gradient", "prox", "residual"):
        arguments = {"prox": (w, 0.5, 1.0), "residual": (w, w, 1.0)}.get(method, (w, 1.0))
        with pytest.raises(ValueError, match=r"(?s)factors.*\(2, 3\).*\(4, 3\)"):
            getattr(penalty, method)(*arguments)


def test_factors_must_not_enlarge_the_variable() -> None:
    """(2, 4, 3) broadcasts with (4, 3), but the result is no longer of the variable's shape."""
    with pytest.raises(ValueError, match=r"(?s)factors.*\(2, 4, 3\).*\(4, 3\)"):
        poise.L1(1.0, factors=np.ones((2, 4, 3))).value(tensor(np.ones(MATRIX)), 1.0)


@pytest.mark.parametrize("kind", [poise.GroupLasso, poise.SparseGroupLasso])
def test_factors_of_groups_are_one_per_group(kind: type) -> None:
    with pytest.raises(ValueError, match=r"(?s)factors.*4.*3"):
        kind(1.0, groups="outputs", factors=np.ones(4)).value(tensor(np.ones(MATRIX)), 1.0)


@pytest.mark.parametrize("kind", [poise.GroupLasso, poise.SparseGroupLasso])
def test_factors_of_listed_groups_are_one_per_list(kind: type) -> None:
    with pytest.raises(ValueError, match=r"(?s)factors.*3.*2"):
        kind(1.0, groups=[[0], [1]], factors=np.ones(3)).value(tensor(np.ones(MATRIX)), 1.0)


def test_factors_of_joint_groups_are_one_per_group() -> None:
    with pytest.raises(ValueError, match=r"(?s)factors of shape \(2,\) for 3 groups"):
        poise.JointGroupLasso(1.0, MEMBERS, factors=np.ones(2)).value(tensor(np.ones(9)), 1.0)


@pytest.mark.parametrize("kind", [poise.NuclearNorm, poise.Orthogonal, poise.MutualCoherence])
def test_a_penalty_of_the_whole_matrix_takes_one_factor(kind: type) -> None:
    with pytest.raises(ValueError, match=r"(?s)one finite factor.*factors"):
        kind(1.0, factors=np.ones(3)).value(tensor(np.ones(MATRIX)), 1.0)


def test_factors_of_smoothness_fit_the_differences() -> None:
    with pytest.raises(ValueError, match=r"(?s)factors.*\(3, 3\).*\(4, 3\)"):
        poise.Smoothness(1.0, axis=0, factors=np.ones(MATRIX)).value(tensor(np.ones(MATRIX)), 1.0)


# ---------------------------------------------------------------- parameters of one penalty


@pytest.mark.parametrize("gamma", [1.0, 0.5, -3.0, float("nan"), float("inf")])
def test_gamma_of_mcp_is_above_one(gamma: float) -> None:
    with pytest.raises(ValueError, match=rf"gamma must be a finite number > 1, got {gamma!r}"):
        poise.MCP(1.0, gamma=gamma)


@pytest.mark.parametrize("gamma", [2.0, 1.5, -3.0, float("nan"), float("inf")])
def test_gamma_of_scad_is_above_two(gamma: float) -> None:
    with pytest.raises(ValueError, match=rf"gamma must be a finite number > 2, got {gamma!r}"):
        poise.SCAD(1.0, gamma=gamma)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_epsilon_of_log_sum_is_positive(epsilon: float) -> None:
    with pytest.raises(ValueError, match=rf"epsilon must be a finite number > 0, got {epsilon!r}"):
        poise.LogSum(1.0, epsilon=epsilon)


@pytest.mark.parametrize("share", ["l1", "l2"])
@pytest.mark.parametrize("number", [-0.5, float("nan"), float("inf")])
def test_shares_of_elastic_net_are_not_negative(share: str, number: float) -> None:
    with pytest.raises(ValueError, match=rf"(?s){share}.*{number!r}"):
        poise.ElasticNet(**{"l1": 0.5, "l2": 0.5, share: number})


@pytest.mark.parametrize("ratio", [-0.1, 1.5, float("nan")])
def test_l1_ratio_is_between_zero_and_one(ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"(?s)l1_ratio.*{ratio!r}"):
        poise.SparseGroupLasso(1.0, l1_ratio=ratio)


@pytest.mark.parametrize("ratio", [-0.1, 1.5, float("nan")])
def test_l1_ratio_of_sklearn_is_between_zero_and_one(ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"(?s)l1_ratio.*{ratio!r}"):
        poise.ElasticNet.from_sklearn(0.5, l1_ratio=ratio)


@pytest.mark.parametrize("number", ["0.5", None, True, [3.0]], ids=str)
def test_parameters_must_be_numbers(number: Any) -> None:
    for make, name in (
        (lambda: poise.MCP(gamma=number), "gamma"),
        (lambda: poise.LogSum(epsilon=number), "epsilon"),
        (lambda: poise.ElasticNet(l1=number), "l1"),
        (lambda: poise.ElasticNet.from_sklearn(0.5, l1_ratio=number), "l1_ratio"),
        (lambda: poise.SparseGroupLasso(l1_ratio=number), "l1_ratio"),
    ):
        with pytest.raises(TypeError, match=rf"{name} must be .*, got {re.escape(repr(number))}"):
            make()


def test_an_unknown_mode_of_coherence_is_named() -> None:
    with pytest.raises(ValueError, match=r"mode must be 'rows' or 'columns', got 'diagonals'"):
        poise.MutualCoherence(1.0, mode="diagonals")


@pytest.mark.parametrize("kind", [poise.NuclearNorm, poise.Orthogonal])
def test_a_vector_is_not_a_matrix(kind: type) -> None:
    with pytest.raises(ValueError, match=rf"(?s){kind.__name__}.*matrix.*\(6,\)"):
        kind(1.0).value(tensor(np.ones(6)), 1.0)


@pytest.mark.parametrize("kind", [poise.NuclearNorm, poise.Orthogonal, poise.MutualCoherence])
def test_a_whole_matrix_cannot_be_held_at_zero(kind: type) -> None:
    with pytest.raises(ValueError, match=r"(?s)finite.*inf"):
        kind(1.0, factors=np.inf).value(tensor(np.ones(MATRIX)), 1.0)


def test_differences_cannot_be_held_at_zero() -> None:
    with pytest.raises(ValueError, match="finite factors"):
        poise.Smoothness(1.0, factors=np.inf).value(tensor(np.ones(MATRIX)), 1.0)


def test_coherence_wants_a_matrix() -> None:
    with pytest.raises(ValueError, match=r"(?s)MutualCoherence.*\(2, 4, 3\)"):
        poise.MutualCoherence(1.0).value(tensor(np.ones((2, 4, 3))), 1.0)


def test_an_axis_that_smoothness_cannot_find_is_named() -> None:
    with pytest.raises(ValueError, match=r"(?s)axis.*2.*\(4, 3\)"):
        poise.Smoothness(1.0, axis=2).value(tensor(np.ones(MATRIX)), 1.0)


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_scales_of_others_are_checked(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"(?s)alpha.*{alpha!r}"):
        poise.L1.from_sklearn(alpha)
    with pytest.raises(ValueError, match=rf"(?s)alpha.*{alpha!r}"):
        poise.ElasticNet.from_sklearn(alpha, 0.5)
    with pytest.raises(ValueError, match=rf"(?s)weight_decay.*{alpha!r}"):
        poise.L2.from_weight_decay(alpha)


def test_an_unknown_loss_of_sklearn_is_named() -> None:
    with pytest.raises(ValueError, match=r"loss must be 'mse' .* or 'log_loss' .*, got 'hinge'"):
        poise.L1.from_sklearn(0.1, loss="hinge")


# ---------------------------------------------------------------- groups

every_group_kind = pytest.mark.parametrize("kind", [poise.GroupLasso, poise.SparseGroupLasso])


@every_group_kind
@pytest.mark.parametrize("axis", [2, -3, 7])
def test_a_group_axis_that_the_variable_lacks_is_named(kind: type, axis: int) -> None:
    w = tensor(np.ones(MATRIX))
    with pytest.raises(ValueError, match=rf"(?s)axis.*{axis}.*\(4, 3\)"):
        kind(1.0, groups=axis).value(w, 1.0)
    with pytest.raises(ValueError, match=rf"(?s)axis.*{axis}.*\(4, 3\)"):
        kind(1.0, groups=[[0], [1]], axis=axis).value(w, 1.0)


@every_group_kind
def test_an_unknown_kind_of_groups_is_named(kind: type) -> None:
    with pytest.raises(ValueError, match=r"groups must be 'outputs', 'inputs', .*, got 'units'"):
        kind(1.0, groups="units")


@every_group_kind
def test_overlapping_groups_are_named(kind: type) -> None:
    with pytest.raises(ValueError, match=r"(?s)(1.*(overlap|more than one|two groups|twice))|((overlap|twice).*1)"):
        kind(1.0, groups=[[0, 1], [1, 2]])
    with pytest.raises(ValueError, match=r"(?s)(1.*(overlap|more than one|two groups|twice))|((overlap|twice).*1)"):
        kind(1.0, groups=[[0, 1, 1]])


@every_group_kind
@pytest.mark.parametrize("groups", [[[0], [-1]], [[0, -2]]])
def test_negative_indices_are_refused(kind: type, groups: list) -> None:
    with pytest.raises(ValueError, match=r"(?s)-[12]"):
        kind(1.0, groups=groups)


@every_group_kind
@pytest.mark.parametrize("groups", [[], [[]], [[0], []]])
def test_empty_groups_are_refused(kind: type, groups: list) -> None:
    with pytest.raises(ValueError, match=r"(?s)(empty|no ind|at least one)"):
        kind(1.0, groups=groups)


@every_group_kind
@pytest.mark.parametrize("groups", [[[0.5]], [["age"]], [[True]], [0, 1], None, 1.5])
def test_groups_are_lists_of_whole_numbers(kind: type, groups: object) -> None:
    with pytest.raises((TypeError, ValueError), match="groups"):
        kind(1.0, groups=groups)


@every_group_kind
def test_group_indices_past_the_end_are_named(kind: type) -> None:
    with pytest.raises(ValueError, match=r"(?s)4.*\(4, 3\)|\(4, 3\).*4|index 4.*4"):
        kind(1.0, groups=[[0], [4]]).value(tensor(np.ones(MATRIX)), 1.0)


# ---------------------------------------------------------------- use


@pytest.mark.parametrize("kind", [poise.NuclearNorm, poise.Orthogonal])
def test_matrix_penalties_refuse_a_step_per_entry(kind: type) -> None:
    w = tensor(np.ones(MATRIX))
    with pytest.raises(ValueError, match=rf"(?s){kind.__name__}.*step.*\(4, 3\).*(SGD|scalar|decoupled)"):
        kind(1.0).prox(w, w, 1.0)


def test_coherence_without_a_prox_names_the_ways_out() -> None:
    with pytest.raises(ValueError, match=r"(?s)MutualCoherence.*(?=.*update=['\"]coupled['\"])(?=.*poise\.Orthogonal)"):
        poise.MutualCoherence(1.0).prox(tensor(np.ones(MATRIX)), 0.5, 1.0)


def test_a_scheduled_strength_is_refused_as_a_plain_regularizer() -> None:
    for case in WITH_STRENGTH:
        penalty = case.make(keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9))
        with pytest.raises(ValueError, match=r"(?s)schedule.*poise\.PenalizedOptimizer"):
            penalty(tensor(np.ones(MATRIX)))


def test_anchored_wants_a_penalty() -> None:
    with pytest.raises(TypeError, match=r"(?s)Anchored.*0.5|0.5.*penalty"):
        poise.Anchored(0.5)


def test_anchored_refuses_a_start_of_another_shape() -> None:
    penalty = poise.Anchored(poise.L1(1.0), start=np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"(?s)start.*\(2, 3\).*\(4, 3\)"):
        penalty.value(tensor(np.ones(MATRIX)), 1.0)


def test_anchored_refuses_a_start_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match=r"(?s)start.*(nan|NaN|finite)"):
        poise.Anchored(poise.L1(1.0), start=np.array([1.0, np.nan]))


def test_anchored_without_an_anchor_explains_who_sets_it() -> None:
    with pytest.raises(ValueError, match=r"(?s)start.*(PenalizedOptimizer|training)"):
        poise.Anchored(poise.L1(1.0)).value(tensor(np.ones(MATRIX)), 1.0)


# ---------------------------------------------------------------- members of joint groups


WRONG_MEMBERS = {
    "nothing": (None, TypeError, "members must be a dictionary .*, got None"),
    "empty": ({}, TypeError, "members must be a dictionary .*, got {}"),
    "a pair": ({"a": (0, [0, 1])}, TypeError, r"\(shape, axis, groups\)"),
    "a number for a path": ({3: ((2,), 0, [0, 1])}, TypeError, "members must map paths to"),
    "no shape": ({"a": ((), 0, [])}, ValueError, r"members\['a'\] has the shape \(\)"),
    "an axis too far": ({"a": ((2, 3), 2, [0, 1])}, ValueError, "has the axis 2, which a variable of shape"),
    "no axis": ({"a": ((2, 3), "outputs", [0, 1])}, ValueError, "has the axis 'outputs'"),
    "too few groups": ({"a": ((2, 3), 1, [0, 1])}, ValueError, r"has the groups \[0, 1\]. Use 3 integers"),
    "a group of -2": ({"a": ((2,), 0, [0, -2])}, ValueError, "-1 for no group"),
    "half a group": ({"a": ((2,), 0, [0.0, 1.5])}, ValueError, "integers"),
    "a gap": ({"a": ((2,), 0, [0, 2])}, ValueError, "group 1 has no entries, but the numbers run to 2"),
    "no group at all": ({"a": ((2,), 0, [-1, -1])}, ValueError, "every slice has the group -1"),
}


@pytest.mark.parametrize("case", WRONG_MEMBERS)
def test_members_are_shapes_axes_and_groups(case: str) -> None:
    members, error, message = WRONG_MEMBERS[case]
    with pytest.raises(error, match=message):
        poise.JointGroupLasso(1.0, members)


def test_a_joint_penalty_acts_on_as_many_entries_as_its_members_have() -> None:
    with pytest.raises(ValueError, match=r"acts on 9 entries.*got a tensor of shape \(4, 3\).*poise.Rule"):
        poise.JointGroupLasso(1.0, MEMBERS).value(tensor(np.ones(MATRIX)), 1.0)
