"""The penalty that contains those of a study is each of them, and their paths share one program."""

from typing import Any

import keras
import numpy as np
import pytest
from scipy.optimize import minimize

import poise
from poise.path.executors.base import Problem
from poise.path.lanes import common_penalty
from poise.path.lanes.common_penalty import COEFFICIENTS, CommonPenalty, find_common_form
from poise.path.lanes.programs import PROGRAMS
from poise.path.models import build_optimizer, resolve_rules
from poise.study.candidates.penalties import PENALTIES, make_rules
from poise.study.run import run_study

GROUPS: Any = {"groups": [[0, 1], [2], [3, 4]], "axis": "inputs"}
C = np.array([0.7, 1.0, 2.0], "float32")
PENALTY_OF_NAME = {
    "l1": poise.L1(),
    "l2": poise.L2(),
    "elastic net": poise.ElasticNet(l1=0.3, l2=0.6),
    "group": poise.GroupLasso(1.0, factors=C, **GROUPS),
    "sparse group": poise.SparseGroupLasso(1.0, l1_ratio=0.4, factors=C, **GROUPS),
}
COUNTS = {"max_iter": 40, "strengths": 4, "cv": 3, "hidden_layer_sizes": (8,)}


def common(l1: float, l2: float, c: Any) -> Any:
    return CommonPenalty(poise.GroupLasso(**GROUPS)).with_factors(np.array([l1, l2, *c], "float32"))


def draw(seed: int) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(seed)
    w, gradient, step = random.normal(size=(3, 5, 2)).astype("float32")
    w[2:] *= np.array([0.0, 0.01, 1.0], "float32")[:, None]
    return w, gradient, np.exp(step)


class TestFormulas:
    @pytest.mark.parametrize("name", PENALTY_OF_NAME)
    @pytest.mark.parametrize("strength", [0.0, 0.1, 0.8])
    def test_it_is_each_penalty(self, name, strength) -> None:
        penalty: Any = PENALTY_OF_NAME[name]
        l1, l2, group = COEFFICIENTS[type(penalty)](penalty)
        w, gradient, step = draw(0)

        same = common(l1, l2, group * C)

        np.testing.assert_allclose(same.value(w, strength), penalty.value(w, strength), rtol=1e-6)
        np.testing.assert_allclose(same.gradient(w, strength), penalty.gradient(w, strength), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(same.prox(w, step, strength), penalty.prox(w, step, strength), rtol=1e-5, atol=1e-7)
        residuals = [np.linalg.norm(each.residual(w, gradient, strength)) for each in (same, penalty)]
        assert residuals[0] == pytest.approx(residuals[1], rel=1e-5)

    @pytest.mark.parametrize("seed", range(3))
    def test_the_prox_of_the_sum_is_its_minimum(self, seed) -> None:
        w, _, step = draw(seed)
        penalty, strength = common(0.2, 0.5, C), 0.4

        u = np.asarray(penalty.prox(w, step, strength), "float64")

        def objective(flat: np.ndarray) -> float:
            at, groups = flat.reshape(w.shape), [[0, 1], [2], [3, 4]]
            norms = sum(c * np.linalg.norm(at[rows]) for c, rows in zip(C, groups, strict=True))
            penalty = 0.2 * np.abs(at).sum() + 0.5 * np.square(at).sum() + norms
            return float((np.square(at - w) / (2.0 * step)).sum() + strength * penalty)

        start = objective(u.ravel())
        found = minimize(objective, u.ravel(), method="Nelder-Mead", options={"maxiter": 20_000, "xatol": 1e-9})
        assert start <= found.fun + 1e-6
        random = np.random.default_rng(seed)
        others = [u.ravel() + 10.0 ** random.uniform(-4, 0) * random.normal(size=u.size) for _ in range(500)]
        assert start <= min(map(objective, others)) + 1e-6

    def test_groups_are_held_at_zero(self) -> None:
        w, gradient, step = draw(0)
        penalty = common(0.2, 0.5, [np.inf, 1.0, np.inf])

        u = np.asarray(penalty.prox(w, step, 0.0))

        assert not u[[0, 1, 3, 4]].any()
        np.testing.assert_array_equal(u[2], w[2])
        residual = np.asarray(penalty.residual(u, gradient, 0.0))
        assert residual[[0, 2]].tolist() == [0.0, 0.0]
        assert residual[1] == pytest.approx(np.linalg.norm(gradient[2]), rel=1e-6)


def table() -> Any:
    import pandas as pd

    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4))
    return pd.DataFrame(x, columns=[*"abcd"]).assign(y=x[:, 0] - x[:, 1] + 0.3 * random.normal(size=60))


def names_of_programs() -> list[str]:
    return [key[0].__name__ for key in PROGRAMS._futures]  # type: ignore[index]


class TestStudies:
    @pytest.mark.parametrize("encoding", ["standard", "piecewise"])
    def test_all_convex_penalties_share_one_program(self, encoding) -> None:
        PROGRAMS.clear()

        penalties = ["l2", "l1", "group", "adaptive", "elasticnet", "sparse_group"]
        run_study(table(), "y", penalties=penalties, encoding=encoding, **COUNTS)

        names = names_of_programs()
        assert names.count("settle_segment") == 1
        assert names.count("evaluate_penalties") == 1

    @pytest.mark.parametrize("name", ["l2", "l1", "adaptive", "elasticnet", "sparse_group"])
    def test_the_results_are_those_of_the_penalty(self, name, monkeypatch) -> None:
        findings = []
        for most in (common_penalty.MOST_WEIGHTS, 0):
            monkeypatch.setattr(common_penalty, "MOST_WEIGHTS", most)
            findings.append(run_study(table(), "y", penalties=[name], **COUNTS).findings[name])

        paths = [each.path for each in findings]
        for column in ("val_loss", "penalty", "loss"):
            values = [path.table[column].to_numpy() for path in paths]
            np.testing.assert_allclose(values[0], values[1], rtol=2e-3, atol=1e-5)
        assert paths[0].table["features"].tolist() == paths[1].table["features"].tolist()
        assert findings[0].selected == findings[1].selected
        for a, b in zip(paths[0].lanes.weights, paths[1].lanes.weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=0.05, atol=2e-3)

    def test_a_result_does_not_depend_on_the_other_penalties(self) -> None:
        alone = run_study(table(), "y", penalties=["l1"], **COUNTS).findings["l1"]
        beside = run_study(table(), "y", penalties=["l2", "adaptive", "l1"], **COUNTS).findings["l1"]

        np.testing.assert_array_equal(alone.path.table["val_loss"], beside.path.table["val_loss"])


class TestOthers:
    def form(self, rules: Any, update: str = "proximal", groups: bool = True, units: int = 3) -> Any:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        rules = rules(model)
        resolved = resolve_rules(model, rules)
        group_rules = make_rules("group", model, [*"abcd"]) if groups else None
        problem = Problem(model, rules, resolved, update, (np.zeros((2, 4)), np.zeros((2, 1)), None), 0, group_rules)
        return find_common_form(problem, build_optimizer(model, rules, update, resolved))

    @pytest.mark.parametrize("name", PENALTIES)
    def test_which_penalties_have_the_common_form(self, name) -> None:
        form = self.form(lambda model: make_rules(name, model, [*"abcd"]))

        assert (form is None) == (name in ("mcp", "scad"))

    @pytest.mark.parametrize(
        "changes", [{"update": "auto"}, {"groups": False}, {"units": common_penalty.MOST_WEIGHTS}]
    )  # fmt: skip
    def test_others_have_programs_of_their_own(self, changes) -> None:
        assert self.form(lambda model: make_rules("l1", model, [*"abcd"]), **changes) is None

    def test_a_penalty_with_factors_per_entry_does_too(self) -> None:
        assert self.form(lambda model: [poise.Rule(model.layers[0].kernel, poise.L1(factors=np.ones((4, 3))))]) is None

    def test_a_path_of_some_of_the_variables_does_too(self) -> None:
        assert self.form(lambda model: [poise.Rule(model.layers[0].kernel, poise.L1())]) is None
