"""Networks of the kinds that people train: what a step of each update must give, from one of plain SGD, in NumPy."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from oracles import models
from oracles.penalties import CASES, Case
from oracles.real import CONVOLUTIONAL, RATE, REAL, is_penalized, values

import poise
from poise.diagnostics.force_balance import build_penalized, current_values

Array = np.ndarray
UPDATES = ("coupled", "decoupled", "proximal")
L1, L2 = 0.2, 0.1


def soft_threshold(w: Array, by: float) -> Array:
    return np.sign(w) * np.maximum(np.abs(w) - by, 0.0)


def assert_close(actual: Array, expected: Array, what: str = "") -> None:
    """To 1e-5 of the largest entry."""
    atol = 1e-5 * max(float(np.abs(expected).max()), 1e-3)
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=atol, err_msg=what)


def assert_trained(model: keras.Model, expected: dict[str, Array]) -> None:
    for path, w in values(model).items():
        assert_close(w, expected[path], path)


def apply_gradient_of(step: tuple[dict[str, Array], dict[str, Array]], model: keras.Model) -> None:
    before, after = step
    gradients = [ops.convert_to_tensor((before[v.path] - after[v.path]) / RATE) for v in model.trainable_variables]
    models.descend(model, model.optimizer, lambda _: gradients, steps=1)


# ---------------------------------------------------------------- small ones of every kind


@functools.cache
def plain_step(name: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """The weights before and after a step of SGD alone."""
    model = REAL[name].compiled(optimizers.SGD(RATE))
    before = values(model)
    return before, values(REAL[name].stepped(model))


def l1_and_l2(update: str) -> poise.PenalizedOptimizer:
    """Both on all kernels and embeddings."""
    return poise.PenalizedOptimizer(optimizers.SGD(RATE), [poise.L1(L1), poise.L2(L2)], update=update, observe_every=1)


def with_l1_and_l2(before: dict[str, Array], after: dict[str, Array], update: str) -> dict[str, Array]:
    """What the update makes of a step of SGD."""
    result = dict(after)
    for path in filter(is_penalized, before):
        pulled = after[path] - RATE * 2 * L2 * before[path]
        if update == "coupled":
            result[path] = pulled - RATE * L1 * np.sign(before[path])
        else:
            result[path] = soft_threshold(pulled, RATE * L1)
    return result


def assert_forces(table: Any, before: dict[str, Array], after: dict[str, Array]) -> None:
    assert sorted(table["variable"]) == sorted(filter(is_penalized, before))
    for row in table.to_dict("records"):
        w = before[row["variable"]]
        prediction, penalty = (w - after[row["variable"]]) / RATE, L1 * np.sign(w) + 2 * L2 * w
        for key, force in {"prediction": prediction, "penalty": penalty, "residual": prediction + penalty}.items():
            assert row[key] == pytest.approx(np.linalg.norm(force), rel=1e-5), (row["variable"], key)


@pytest.mark.parametrize("name", REAL)
def test_a_step_is_sgd_plus_the_penalty_on_kernels_and_embeddings_only(name: str) -> None:
    """One update through the trainer, the others with the gradient of the plain step; biases and scales as in it."""
    through_the_trainer = UPDATES[list(REAL).index(name) % 3]
    for update in UPDATES:
        model = REAL[name].compiled(l1_and_l2(update))
        if update == through_the_trainer:
            REAL[name].stepped(model)
        else:
            apply_gradient_of(plain_step(name), model)

        assert_trained(model, with_l1_and_l2(*plain_step(name), update))
        assert_forces(poise.forces(model), *plain_step(name))


@pytest.mark.parametrize("name", ["Transformer", "LSTM", "two outputs", "LoRA and int8"])
def test_forces_on_data_are_the_gradient_of_the_loss_and_that_of_the_penalty(name: str) -> None:
    model = REAL[name].compiled(l1_and_l2("proximal"))

    assert_forces(poise.forces(model, REAL[name].x, REAL[name].y), *plain_step(name))


@pytest.mark.parametrize("name", REAL)
def test_summary_names_every_variable_and_penalizes_kernels_and_embeddings(name: str) -> None:
    model = REAL[name].compiled(l1_and_l2("proximal"))

    table = poise.summary(model).table

    trained = [v.path for v in model.trainable_variables]
    assert set(table["variable"]) == {v.path for v in [*model.trainable_variables, *model.non_trainable_variables]}
    for path, rows in table.groupby("variable"):
        is_ours = path in trained and is_penalized(str(path))
        assert sorted(rows["penalty"]) == (["L1", "L2"] if is_ours else [""]), path


@pytest.mark.parametrize("name", ["Transformer", "LSTM", "LoRA and int8", "own train_step"])
def test_an_adopted_model_is_trained_as_with_its_keras_regularizers(name: str) -> None:
    """The custom step looks at no regularizer: there the adopted model has them, and the untouched one does not."""
    network = REAL[name]
    untouched, adopted = (carrying(network.compiled(optimizers.SGD(RATE))) for _ in range(2))

    [rule] = poise.adopt_regularizers(adopted)

    assert repr(rule.penalty) == f"ElasticNet(l1={L1}, l2={L2}, strength=1.0)"
    assert all(v.regularizer is None for v in adopted.variables)
    if name == "own train_step":
        assert_trained(network.stepped(adopted), with_l1_and_l2(*plain_step(name), "coupled"))
    else:
        assert_trained(network.stepped(adopted), values(network.stepped(untouched)))


def carrying(model: keras.Model) -> keras.Model:
    for variable in model.trainable_variables:
        if is_penalized(variable.path):
            variable.regularizer = keras.regularizers.L1L2(L1, L2)
    return model


def test_a_quantized_model_has_nothing_to_penalize() -> None:
    """int8 kernels are not trained: the rule sleeps, and says so."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, name="features")])
    model.get_layer("features").quantize("int8")
    kernel = ops.convert_to_numpy(model.get_layer("features").kernel)
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(RATE), poise.L1(L1), update="proximal")

    with pytest.warns(UserWarning, match="Rule 'kernels' has no effect: every variable that it matches is frozen"):
        optimizer.build(model.trainable_variables, model)
    models.compiled(optimizer, model).train_on_batch(np.ones((2, 6)), np.ones((2, 5)))

    np.testing.assert_array_equal(ops.convert_to_numpy(model.get_layer("features").kernel), kernel)


# ---------------------------------------------------------------- convolutional ones, every penalty in one step


@dataclass(frozen=True)
class Kind:
    """A penalty as `Case` of the table of oracles, and what of a variable can be computed apart from the rest."""

    case: Case
    strength: float
    part: Callable[[Array], Array]
    fits: Callable[[tuple[int, ...]], bool]
    is_anchored: bool = False

    @property
    def penalty(self) -> poise.Penalty:
        made = self.case.make(self.strength)
        return poise.Anchored(made) if self.is_anchored else made


def some_entries(w: Array) -> Array:
    return w.reshape(-1)[:64]


def two_outputs(w: Array) -> Array:
    return w[..., :2]


def six_lines(w: Array) -> Array:
    return w.reshape(len(w), -1)[:, :6]


def whole(w: Array) -> Array:
    return w.reshape(-1, w.shape[-1])


def is_any(shape: tuple[int, ...]) -> bool:
    return True


def has_outputs(shape: tuple[int, ...]) -> bool:
    return shape[-1] > 1


def is_small(shape: tuple[int, ...]) -> bool:
    return shape[-1] > 1 and math.prod(shape) < 20_000


def is_matrix(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2


_CASE = {case.name: case for case in CASES}
KINDS: dict[str, Kind] = {
    "Smoothness": Kind(_CASE["Smoothness"], 0.5, six_lines, is_any),
    "NuclearNorm": Kind(_CASE["NuclearNorm"], 1.0, whole, is_small),
    "Orthogonal": Kind(_CASE["Orthogonal"], 0.1, whole, is_small),
    "MutualCoherence": Kind(_CASE["MutualCoherence-columns"], 1.0, whole, is_matrix),
    "GroupLasso": Kind(_CASE["GroupLasso-outputs"], 0.4, two_outputs, has_outputs),
    "SparseGroupLasso": Kind(_CASE["SparseGroupLasso-outputs"], 0.2, two_outputs, has_outputs),
    "Anchored": Kind(_CASE["L2"], 0.2, some_entries, is_any, is_anchored=True),
    "L0": Kind(_CASE["L0"], 0.01, some_entries, is_any),
    **{
        name: Kind(_CASE[name], 0.1, some_entries, is_any)
        for name in ("L1", "L2", "ElasticNet", "MCP", "SCAD", "LogSum")
    },
}
JOINT = Kind(_CASE["GroupLasso-outputs"], 0.6, two_outputs, is_any)
"""Of a scale and a shift of a normalization, as the rows of one matrix: a group for each channel."""
ACTING = {
    "coupled": set(KINDS) - {"L0"},
    "decoupled": set(KINDS) - {"MutualCoherence"},
    "proximal": set(KINDS) - {"MutualCoherence"},
}


def places(model: keras.Model) -> dict[str, str]:
    """The path of the kernel that each kind gets: the first that fits and is not taken."""
    result: dict[str, str] = {}
    for name, kind in KINDS.items():
        for variable in model.trainable_variables:
            shape = tuple(variable.shape)
            if is_penalized(variable.path) and kind.fits(shape) and variable.path not in result.values():
                result[name] = variable.path
                break
    return result


def channels(model: keras.Model) -> list[str]:
    """The paths of the scale and the shift of the last normalization."""
    last = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)][-1]
    return [last.gamma.path, last.beta.path]


def every_rule(model: keras.Model, update: str) -> list[poise.Rule]:
    at = {name: path for name, path in places(model).items() if name in ACTING[update]}
    shape = {v.path: tuple(v.shape) for v in model.trainable_variables}
    members = {path: (shape[path], 0, list(range(*shape[path]))) for path in channels(model)}
    return [
        *(poise.Rule(path, KINDS[name].penalty, name=name) for name, path in at.items()),
        poise.Rule(list(members), poise.JointGroupLasso(JOINT.strength, members), name="joint"),
        poise.Rule(poise.Role.KERNELS, poise.L2(L2), exclude=list(at.values()), name="rest"),
    ]


def assert_kind(kind: Kind, update: str, before: Array, after: Array, actual: Array, what: str) -> None:
    """What the update must make of a part of a variable, of a step of SGD from `before` to `after`."""
    before, after, actual = (kind.part(w).astype("float64") for w in (before, after, actual))
    start = before if kind.is_anchored else np.zeros_like(before)
    if update == "proximal" or (update == "decoupled" and not kind.case.smooth):
        assert kind.case.prox is not None
        expected, is_sure = kind.case.prox(after - start, np.full(after.shape, RATE), kind.strength)
        assert_close(np.where(is_sure, actual, 0.0), np.where(is_sure, start + expected, 0.0), what)
        return
    chosen = np.flatnonzero(np.abs(before) > 1e-3)[:20]
    pulls = slopes(lambda w: kind.case.value(w - start, kind.strength), before, chosen)
    assert_close(actual.flat[chosen], after.flat[chosen] - RATE * pulls, what)


def slopes(value: Callable[[Array], float], w: Array, chosen: Array) -> Array:
    """∂value/∂w_i at some entries, by central differences in float64."""
    width, result = 1e-6, []
    for i in chosen:
        ahead, behind = w.copy(), w.copy()
        ahead.flat[i] += width
        behind.flat[i] -= width
        result.append((value(ahead) - value(behind)) / (2 * width))
    return np.array(result)


@functools.cache
def convolutional(name: str) -> tuple[keras.Model, dict[str, Array], dict[str, Array]]:
    """A network, its weights before, and those after a step of SGD alone."""
    model = CONVOLUTIONAL[name].compiled(optimizers.SGD(RATE))
    before = values(model)
    return model, before, values(CONVOLUTIONAL[name].stepped(model))


def begun_again(name: str) -> keras.Model:
    model, before, _ = convolutional(name)
    for variable in model.trainable_variables:
        variable.assign(before[variable.path])
    return model


@pytest.mark.parametrize(
    ("name", "update"), [("ResNet50V2", update) for update in UPDATES] + [("MobileNetV2", "proximal")]
)
def test_every_penalty_on_a_convolutional_network(name: str, update: str) -> None:
    """A kernel for each, scale and shift of a normalization together, L2 on all other kernels."""
    _, before, after = convolutional(name)
    model = begun_again(name)
    model.optimizer = poise.PenalizedOptimizer(optimizers.SGD(RATE), every_rule(model, update), update=update)

    apply_gradient_of((before, after), model)

    result, joint = values(model), channels(model)
    at = {kind: path for kind, path in places(model).items() if kind in ACTING[update]}
    assert at.keys() == ACTING[update]
    for kind, path in at.items():
        assert_kind(KINDS[kind], update, before[path], after[path], result[path], f"{kind} on {path}")
    first, second, third = (np.stack([w[path] for path in joint]) for w in (before, after, result))
    assert_kind(JOINT, update, first, second, third, "joint")
    for path in set(before) - {*at.values(), *joint}:
        expected = after[path]
        if is_penalized(path) and update == "proximal":
            expected = after[path] / (1 + 2 * L2 * RATE)
        elif is_penalized(path):
            expected = after[path] - RATE * 2 * L2 * before[path]
        assert_close(result[path], expected, path)


def test_a_convolutional_network_through_the_trainer() -> None:
    """Weights, forces and the summary of MobileNetV2."""
    network = CONVOLUTIONAL["MobileNetV2"]
    _, before, after = convolutional("MobileNetV2")
    model = network.trained(l1_and_l2("proximal"))

    assert_trained(model, with_l1_and_l2(before, after, "proximal"))
    assert_forces(poise.forces(model), before, after)
    summed_up = poise.summary(model).table
    assert set(summed_up.loc[summed_up["penalty"] != "", "variable"]) == set(filter(is_penalized, before))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_convolutional_network_is_adopted(name: str) -> None:
    """Its loss loses what the rule is worth, and the gradient of the prediction gives the coupled step."""
    _, before, after = convolutional(name)
    model = carrying(models.compiled(optimizers.SGD(RATE), begun_again(name), **CONVOLUTIONAL[name].settings))
    kernels = [w.astype("float64") for path, w in before.items() if is_penalized(path)]
    worth = sum(L1 * np.abs(w).sum() + L2 * np.square(w).sum() for w in kernels)
    assert float(ops.convert_to_numpy(sum(model.losses))) == pytest.approx(worth, rel=1e-5)

    [rule] = poise.adopt_regularizers(model)

    assert model.losses == []
    assert current_values(build_penalized(model), model) == {rule.name: pytest.approx(worth, rel=1e-5)}
    apply_gradient_of((before, after), model)
    assert_trained(model, with_l1_and_l2(before, after, "coupled"))
