"""An adaptive stage without the inputs that it holds at zero gives the numbers of the whole stage."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import poise
from poise.path import reduction
from poise.path.training import Training

INPUTS = 24
LISTED = [[0, 1, 2], *[[i] for i in range(3, 20)]]
x = np.random.default_rng(0).normal(size=(80, INPUTS)).astype("float32")
y = x[:, :1] + np.abs(x[:, 1:2]) + 0.3 * np.random.default_rng(1).normal(size=(80, 1)).astype("float32")


def built(has_skip: bool = False) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((INPUTS,))
    outputs = layers.Dense(1, name="head")(layers.Dense(6, "tanh", name="hidden")(inputs))
    if has_skip:
        outputs = layers.Add()([outputs, layers.Dense(1, name="skip")(inputs)])
    model = keras.Model(inputs, outputs, name="net")
    model.compile(optimizers.Adam(0.01), "mse")
    return model


def run(monkeypatch, least: float, model: keras.Model, penalty: Any, **settings: Any) -> tuple[Any, list[int]]:
    """Return a path whose reductions must leave out `least` weights, and how many inputs its stages keep."""
    kept: list[int] = []
    reduce_problem = reduction.InputReduction.reduce_problem

    def note(self, inputs) -> Any:
        smaller = reduce_problem(self, inputs)
        kept.append(len(inputs))
        return smaller

    monkeypatch.setattr(reduction, "WORTHWHILE", least)
    monkeypatch.setattr(reduction.InputReduction, "reduce_problem", note)
    first = [f"{layer.name}/kernel" for layer in model.layers if layer.name in ("hidden", "skip")]
    rules = [poise.Rule(first, penalty), poise.Rule("head/kernel", poise.L2(0.5))]
    training = Training(epochs=0, settle=60)
    path = poise.fit_path(model, x, y, rules, cv=2, training=training, progress=False, **settings)
    monkeypatch.undo()
    return path, kept


@pytest.mark.parametrize(
    ("penalty", "has_skip"),
    [
        (poise.GroupLasso(groups="inputs", factors=1.0), False),
        (poise.GroupLasso(groups="inputs", factors=1.0), True),
        (poise.GroupLasso(groups=LISTED, axis="inputs"), False),
        (poise.SparseGroupLasso(groups="inputs", factors=1.0), False),
    ],
    ids=["group", "skip", "listed", "sparse_group"],
)
def test_smaller_stages_equal_whole_ones(penalty, has_skip, monkeypatch) -> None:
    settings = {"strengths": 5, "adaptive": 2, "n_init": 2, "relax": True}
    whole, none = run(monkeypatch, np.inf, built(has_skip), penalty, **settings)
    smaller, kept = run(monkeypatch, 1, built(has_skip), penalty, **settings)
    assert not none
    assert kept
    assert max(kept) < INPUTS
    for a, b in zip([*whole.stages, whole, whole.relaxed], [*smaller.stages, smaller, smaller.relaxed], strict=True):
        for v, w in zip(a.lanes.weights, b.lanes.weights, strict=True):
            assert v.shape == w.shape
            np.testing.assert_allclose(w, v, rtol=1e-3, atol=2e-4)
        for name, size in a.lanes.sizes.items():
            np.testing.assert_array_equal(size == 0, b.lanes.sizes[name] == 0)
        np.testing.assert_array_equal(a.lanes.features, b.lanes.features)
        columns = ["loss", "held_loss", "penalty", "zeros", "units", "is_empty"]
        tables = [part.lanes.table[columns].astype("float64") for part in (b, a)]
        np.testing.assert_allclose(*tables, rtol=1e-3, atol=1e-4)


def test_dropped_inputs_are_exact_zeros(monkeypatch) -> None:
    path, kept = run(monkeypatch, 1, built(), poise.GroupLasso(groups="inputs"), strengths=5, adaptive=2)
    assert kept
    (size, _) = path.lanes.sizes.values()
    assert size.shape[2] == INPUTS
    assert (size > 0).any(axis=(0, 1)).sum() <= kept[-1]
    assert path.model(path.best_strength).input_shape == (None, INPUTS)


def test_one_input_is_left_if_all_are_dropped(monkeypatch) -> None:
    model, penalty = built(), poise.GroupLasso(groups="inputs")
    path, kept = run(monkeypatch, 1, model, penalty, strengths=[50.0, 100.0, 200.0], adaptive=0, relax=True)
    assert kept == [1]
    assert not np.any(path.relaxed.lanes.features)
    assert path.lanes.table["is_empty"].all()


@pytest.mark.parametrize("case", ["single weights", "normalized inputs", "units"])
def test_other_models_and_penalties_are_trained_whole(case, monkeypatch) -> None:
    model, penalty = built(), poise.GroupLasso(groups="inputs")
    if case == "single weights":
        penalty = poise.L1()
    elif case == "normalized inputs":
        inputs = keras.Input((INPUTS,))
        scaled = layers.BatchNormalization()(inputs)
        model = keras.Model(inputs, layers.Dense(1, name="head")(layers.Dense(6, "tanh", name="hidden")(scaled)))
        model.compile(optimizers.Adam(0.01), "mse")
    else:
        penalty = poise.GroupLasso(groups="outputs")
    _, kept = run(monkeypatch, 1, model, penalty, strengths=4, adaptive=1)
    assert not kept
