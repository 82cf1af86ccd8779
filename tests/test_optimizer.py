"""The three updates against optimizers that know nothing of poise, and every way of training against `fit`."""

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops, optimizers
from oracles import models
from oracles.autodiff import BACKEND
from oracles.models import assert_same_weights, compiled, fitted, net, weights
from oracles.optimizers import PLAIN

import poise

UPDATES = ("coupled", "decoupled", "proximal")
HUNDRED = {"rows": 270, "epochs": 6}
"""102 steps."""
every_update = pytest.mark.parametrize("update", UPDATES)


def soft_threshold(w: np.ndarray, by: float) -> np.ndarray:
    return np.sign(w) * np.maximum(np.abs(w) - by, 0.0)


def falling() -> optimizers.schedules.LearningRateSchedule:
    return optimizers.schedules.ExponentialDecay(0.05, 50, 0.1)


def mixed_rules() -> list[poise.Rule]:
    return [
        poise.Rule("features/kernel", poise.GroupLasso(0.01)),
        poise.Rule("features/kernel", poise.L2(0.02)),
        poise.Rule("head/kernel", poise.L1(0.01)),
    ]


# ---------------------------------------------------------------- what coupled and decoupled must be


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_coupled_is_the_keras_regularizer(make: Callable) -> None:
    """L1L2 as one penalty and as two, 102 steps."""
    regularizers = {"features": keras.regularizers.L1L2(0.01, 0.02), "head": keras.regularizers.L1L2(0.003, 0.03)}
    rules = [
        poise.Rule("features/kernel", poise.L1(0.01)),
        poise.Rule("features/kernel", poise.L2(0.02)),
        poise.Rule("head/kernel", poise.ElasticNet(0.003, 0.03)),
    ]

    stock = fitted(compiled(make(0.01), net(kernel_regularizer=regularizers)), **HUNDRED)
    ours = fitted(compiled(poise.PenalizedOptimizer(make(0.01), rules, update="coupled")), **HUNDRED)

    assert_same_weights(ours, stock)


@pytest.mark.parametrize(
    ("penalty", "regularizer"),
    [
        (poise.L1(0.02), keras.regularizers.L1(0.02)),
        (poise.L2(0.02), keras.regularizers.L2(0.02)),
        (poise.ElasticNet(0.01, 0.02), keras.regularizers.L1L2(0.01, 0.02)),
    ],
    ids=lambda arguments: type(arguments).__name__,
)
def test_coupled_bare_penalty_is_the_keras_regularizer_of_all_kernels(penalty: Any, regularizer: Any) -> None:
    stock = fitted(compiled("adam", net(kernel_regularizer=regularizer)), **HUNDRED)
    ours = fitted(compiled(poise.PenalizedOptimizer("adam", penalty, update="coupled")), **HUNDRED)

    assert_same_weights(ours, stock)


@pytest.mark.parametrize(
    ("stock", "inner"),
    [
        (lambda: optimizers.AdamW(0.01, weight_decay=0.04), lambda: optimizers.Adam(0.01)),
        (lambda: optimizers.SGD(0.01, 0.9, weight_decay=0.04), lambda: optimizers.SGD(0.01, 0.9)),
        (
            lambda: optimizers.Lion(0.01, weight_decay=0.04, gradient_accumulation_steps=3),
            lambda: optimizers.Lion(0.01, gradient_accumulation_steps=3),
        ),
        (
            lambda: optimizers.AdamW(falling(), weight_decay=0.04, clipnorm=0.1),
            lambda: optimizers.Adam(falling(), clipnorm=0.1),
        ),
    ],
    ids=["AdamW", "SGDW", "LionW-accumulation", "AdamW-clipnorm-schedule"],
)
def test_decoupled_l2_is_weight_decay(stock: Callable, inner: Callable) -> None:
    decaying = stock()
    decaying.exclude_from_weight_decay(var_names=["bias"])

    expected = fitted(compiled(decaying), **HUNDRED)
    ours = fitted(
        compiled(poise.PenalizedOptimizer(inner(), poise.L2.from_weight_decay(0.04), update="decoupled")), **HUNDRED
    )

    assert_same_weights(ours, expected)


def test_decoupled_l1_is_a_soft_threshold_by_the_learning_rate_after_every_step() -> None:
    rate = optimizers.schedules.ExponentialDecay(0.05, 5, 0.5)
    stock, steps = compiled(optimizers.Adam(rate)), models.batches(epochs=4)

    for number, (x, y) in enumerate(steps):
        stock.train_on_batch(x, y)
        threshold = 1.0 * 0.05 * 0.5 ** (number / 5)
        stock.set_weights([soft_threshold(w, threshold) if w.ndim == 2 else w for w in stock.get_weights()])
    ours = fitted(
        compiled(poise.PenalizedOptimizer(optimizers.Adam(rate), poise.L1(1.0), update="decoupled")), epochs=4
    )

    assert_same_weights(ours, stock)
    assert any((w == 0.0).any() for w in weights(ours))


def test_proximal_l1_with_sgd_is_a_soft_threshold_by_the_step_after_every_step() -> None:
    """With momentum μ the step is the trace s ← μ·s + rate of this schedule."""
    rate = optimizers.schedules.ExponentialDecay(0.05, 5, 0.5)
    stock, trace = compiled(optimizers.SGD(rate, momentum=0.8)), 0.0

    for number, (x, y) in enumerate(models.batches(epochs=4)):
        stock.train_on_batch(x, y)
        trace = 0.8 * trace + 0.05 * 0.5 ** (number / 5)
        stock.set_weights([soft_threshold(w, 0.1 * trace) if w.ndim == 2 else w for w in stock.get_weights()])
    inner = optimizers.SGD(rate, momentum=0.8)
    ours = fitted(compiled(poise.PenalizedOptimizer(inner, poise.L1(0.1), update="proximal")), epochs=4)

    assert_same_weights(ours, stock)
    assert any((w == 0.0).any() for w in weights(ours))


@cache
def by_the_inner_optimizer() -> list[np.ndarray]:
    return weights(fitted(compiled(optimizers.SGD(0.01, 0.9))))


@every_update
def test_no_rules_is_the_inner_optimizer(update: str) -> None:
    ours = fitted(compiled(poise.PenalizedOptimizer(optimizers.SGD(0.01, 0.9), [], update=update, observe_every=2)))

    assert_same_weights(ours, by_the_inner_optimizer(), relative=0.0)


def test_strength_zero_is_the_inner_optimizer() -> None:
    rules = [poise.Rule("features/kernel", poise.L1(0.0)), poise.Rule("head/*", poise.L2(0.0))]
    ours = fitted(compiled(poise.PenalizedOptimizer(optimizers.SGD(0.01, 0.9), rules, update="proximal")))

    assert_same_weights(ours, by_the_inner_optimizer(), relative=1e-6)


def test_coupled_penalty_of_a_multi_optimizer_is_the_keras_regularizer() -> None:
    def several() -> Any:
        return optimizers.MultiOptimizer(
            optimizers.OptimizerMap(optimizers.SGD(0.01), {"head/.*": optimizers.Adam(0.01)})
        )

    stock = fitted(compiled(several(), net(kernel_regularizer="l2")))
    ours = fitted(compiled(poise.PenalizedOptimizer(several(), poise.L2(0.01))))

    assert_same_weights(ours, stock)


def test_coupled_respects_weight_constraints() -> None:
    stock = net(kernel_regularizer="l2", kernel_constraint="non_neg")
    ours = net(kernel_constraint="non_neg")

    fitted(compiled("adam", stock))
    fitted(compiled(poise.PenalizedOptimizer("adam", poise.L2(0.01)), ours))

    assert_same_weights(ours, stock)
    assert all((w >= 0).all() for w in weights(ours) if w.ndim == 2)


# ---------------------------------------------------------------- every way of training gives the same


def penalized(update: str, **arguments: Any) -> poise.PenalizedOptimizer:
    optimizer = poise.PenalizedOptimizer(optimizers.Adam(0.01), mixed_rules(), update=update, **arguments)
    optimizer.keep_values()
    return optimizer


@cache
def by_fit(update: str) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The weights, the recorded forces and the recorded values after 12 steps by `fit`."""
    model = fitted(compiled(penalized(update, observe_every=2)), epochs=4, rows=48)
    return weights(model), model.optimizer.force_record().total, model.optimizer.penalty_record().total


def assert_same_training(model: keras.Model, optimizer: Any, update: str) -> None:
    expected, forces, values = by_fit(update)
    assert_same_weights(model, expected)
    np.testing.assert_allclose(optimizer.force_record().total, forces, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(optimizer.penalty_record().total, values, rtol=1e-4)


@every_update
def test_train_on_batch_gives_what_fit_gives(update: str) -> None:
    model = compiled(penalized(update, observe_every=2))

    for x, y in models.batches(epochs=4, rows=48):
        model.train_on_batch(x, y)

    assert_same_training(model, model.optimizer, update)


@pytest.mark.parametrize("update", ["proximal"] if BACKEND == "jax" else UPDATES)
def test_running_eagerly_gives_what_fit_gives(update: str) -> None:
    model = compiled(penalized(update, observe_every=2), run_eagerly=True, jit_compile=False)

    fitted(model, epochs=4, rows=48)

    assert_same_training(model, model.optimizer, update)


@every_update
@pytest.mark.backends("jax", "tensorflow")
def test_several_steps_per_execution_give_what_fit_gives(update: str) -> None:
    model = compiled(penalized(update, observe_every=2), steps_per_execution=3)

    fitted(model, epochs=4, rows=48)

    assert_same_training(model, model.optimizer, update)


@every_update
@pytest.mark.backends("tensorflow")
def test_compiling_with_xla_gives_what_fit_gives(update: str) -> None:
    model = compiled(penalized(update, observe_every=2), jit_compile=True)

    fitted(model, epochs=4, rows=48)

    assert_same_training(model, model.optimizer, update)


@pytest.mark.backends("torch")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiling_with_torch_gives_what_running_eagerly_gives() -> None:
    def two_steps(**settings: Any) -> keras.Model:
        inner = poise.PenalizedOptimizer(optimizers.SGD(0.1), poise.L1(0.1), update="proximal")
        model = compiled(inner, models.linear(3), **settings)
        x, y = models.table(8, 3)
        for _ in range(2):
            model.train_on_batch(x, y)
        return model

    assert_same_weights(two_steps(jit_compile=True), two_steps(run_eagerly=True))


@every_update
def test_a_loop_written_by_hand_gives_what_fit_gives(update: str) -> None:
    model, optimizer = net(), penalized(update, observe_every=2)

    models.train_by_hand(model, optimizer, models.batches(epochs=4, rows=48))

    assert_same_training(model, optimizer, update)


def test_a_subclassed_model_is_trained_the_same() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inside = net()

        def call(self, x: Any) -> Any:
            return self.inside(x)

    own = compiled(penalized("proximal", observe_every=2), Own())
    own.fit(*models.table(48), 16, 4, verbose=0, shuffle=False)

    assert_same_training(own.inside, own.optimizer, "proximal")


def test_two_fits_continue_as_one() -> None:
    model = compiled(penalized("proximal", observe_every=2))

    fitted(fitted(model, epochs=1, rows=48), epochs=3, rows=48)

    assert_same_training(model, model.optimizer, "proximal")


# ---------------------------------------------------------------- strengths


def test_strength_is_read_and_set_by_name_before_and_after_build() -> None:
    optimizer = penalized("coupled")
    assert dict(optimizer.strength) == {
        "features/kernel GroupLasso": 0.01,
        "features/kernel L2": 0.02,
        "head/kernel": 0.01,
    }
    optimizer.strength["head/kernel"] = 0.5
    assert optimizer.strength["head/kernel"] == 0.5

    model = fitted(compiled(optimizer), epochs=1)
    assert optimizer.strength["head/kernel"] == 0.5
    model.optimizer.strength["features/kernel L2"] = 0.25

    assert optimizer.strength["features/kernel L2"] == 0.25
    assert repr(optimizer.strength).endswith("'features/kernel L2': 0.25, 'head/kernel': 0.5}")
    assert len(optimizer.strength) == 3


def test_strength_set_before_build_is_trained_with() -> None:
    set_later, arguments = (poise.PenalizedOptimizer(optimizers.SGD(0.01), poise.L1(s)) for s in (0.1, 0.5))
    set_later.strength["kernels"] = 0.5

    assert_same_weights(fitted(compiled(set_later)), fitted(compiled(arguments)), relative=0.0)


@every_update
def test_strength_set_in_a_callback_acts_from_the_next_epoch_without_retracing(update: str) -> None:
    traced = []

    def loss(y: Any, predicted: Any) -> Any:
        traced.append(1)
        return ops.mean(ops.square(y - predicted))

    class Raise(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            before.append(len(traced))
            strength = self.model.optimizer.strength
            strength["kernels"] = 0.1 * (epoch + 2)
            read.append(strength["kernels"])

    before, read = [], []
    model = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.02), poise.L2(0.1), update=update), loss=loss)
    fitted(model, epochs=4, callbacks=[Raise()])
    expected = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.02), poise.L2(0.1), update=update))
    for number in range(4):
        expected.optimizer.strength["kernels"] = 0.1 * (number + 1)
        fitted(expected, epochs=1)

    assert_same_weights(model, expected)
    np.testing.assert_allclose(read, [0.2, 0.3, 0.4, 0.5], rtol=1e-6)
    if BACKEND != "torch":
        assert before[0] == before[-1]


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_bad_strength_cannot_be_set(built: bool, strength: float) -> None:
    optimizer = poise.PenalizedOptimizer("sgd", poise.L2(0.1))
    if built:
        optimizer.build(net().trainable_variables)
    with pytest.raises(ValueError, match=rf"strength must be a finite number >= 0, got {strength!r}"):
        optimizer.strength["kernels"] = strength
    with pytest.raises(TypeError, match=r"strength must be a number >= 0 or a keras LearningRateSchedule, got '0\.1'"):
        optimizer.strength["kernels"] = "0.1"
    with pytest.raises(TypeError, match="Pass a schedule to the penalty when the rule is created"):
        optimizer.strength["kernels"] = optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    assert optimizer.strength["kernels"] == pytest.approx(0.1)


def test_unknown_rule_has_no_strength() -> None:
    optimizer = penalized("coupled")
    with pytest.raises(KeyError, match=r"No rule is named 'head'. The rules are .*'head/kernel'"):
        optimizer.strength["head"]
    with pytest.raises(KeyError, match="No rule is named 'head'"):
        optimizer.strength["head"] = 0.1


@every_update
def test_scheduled_strength_is_that_of_every_step(update: str) -> None:
    schedule = optimizers.schedules.ExponentialDecay(0.4, 7, 0.5)
    manual = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), poise.L1(0.1), update=update))
    for number, (x, y) in enumerate(models.batches(epochs=4)):
        manual.optimizer.strength["kernels"] = 0.4 * 0.5 ** (number / 7)
        manual.train_on_batch(x, y)

    scheduled = fitted(
        compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), poise.L1(schedule), update=update)), epochs=4
    )

    assert_same_weights(scheduled, manual)
    assert scheduled.optimizer.strength["kernels"] == pytest.approx(0.4 * 0.5 ** (12 / 7), rel=1e-5)
    with pytest.raises(ValueError, match="'kernels' follows a schedule and cannot be set"):
        scheduled.optimizer.strength["kernels"] = 0.1


# ---------------------------------------------------------------- what the inner optimizer brings along


@every_update
def test_accumulated_small_batches_are_one_large_batch(update: str) -> None:
    def make(**accumulation: Any) -> keras.Model:
        inner = optimizers.Adam(optimizers.schedules.ExponentialDecay(0.05, 20, 0.5), **accumulation)
        return compiled(poise.PenalizedOptimizer(inner, mixed_rules(), update=update))

    large = fitted(make(), epochs=8, rows=48, batch_size=24)
    small = compiled(
        poise.PenalizedOptimizer(
            optimizers.Adam(_every_third(0.05, 20, 0.5), gradient_accumulation_steps=3), mixed_rules(), update=update
        )
    )
    fitted(small, epochs=8, rows=48, batch_size=8)

    assert_same_weights(small, large)


@keras.saving.register_keras_serializable("poise-tests")
class _every_third(optimizers.schedules.LearningRateSchedule):  # noqa: N801
    """An exponential decay by updates, where three steps make an update: Keras counts the steps."""

    def __init__(self, rate: float, steps: int, fall: float) -> None:
        self.decay = optimizers.schedules.ExponentialDecay(rate, steps, fall)

    def __call__(self, step: Any) -> Any:
        return self.decay(ops.floor_divide(step, 3))

    def get_config(self) -> dict:
        return {}


def test_accumulation_with_momentum_is_one_large_batch() -> None:
    def make(**accumulation: Any) -> keras.Model:
        inner = optimizers.SGD(0.05, 0.9, **accumulation)
        return compiled(poise.PenalizedOptimizer(inner, mixed_rules(), update="proximal"))

    large = fitted(make(), epochs=8, rows=48, batch_size=24)
    small = fitted(make(gradient_accumulation_steps=3), epochs=8, rows=48, batch_size=8)

    assert_same_weights(small, large)


@pytest.mark.parametrize(
    ("update", "overwrite"), [("coupled", None), ("decoupled", 4), ("proximal", 4), ("proximal", None)]
)
def test_average_of_the_weights_is_that_of_what_the_update_left(update: str, overwrite: int | None) -> None:
    def make(**average: Any) -> keras.Model:
        inner = optimizers.SGD(0.05, **average)
        return compiled(poise.PenalizedOptimizer(inner, poise.L1(0.1), update=update))

    plain, mean = make(), None
    for number, (x, y) in enumerate(models.batches(epochs=4)):
        plain.train_on_batch(x, y)
        now = weights(plain)
        mean = now if mean is None else [0.8 * m + 0.2 * w for m, w in zip(mean, now, strict=True)]
        if overwrite and (number + 1) % overwrite == 0:
            plain.set_weights(mean)
    averaged = fitted(make(use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=overwrite), epochs=4)

    assert_same_weights(averaged, mean)


def test_average_without_rules_is_that_of_keras() -> None:
    def make() -> Any:
        return optimizers.SGD(0.05, use_ema=True, ema_momentum=0.8)

    assert_same_weights(fitted(compiled(poise.PenalizedOptimizer(make(), []))), fitted(compiled(make())))


def test_a_second_fit_with_averaged_weights_runs() -> None:
    """Stock Keras donates a buffer twice here on JAX."""
    inner = optimizers.SGD(0.05, use_ema=True, ema_momentum=0.8)
    model = compiled(poise.PenalizedOptimizer(inner, poise.L1(0.1), update="proximal"))

    fitted(fitted(model, epochs=2), epochs=2)

    assert all(np.isfinite(w).all() for w in weights(model))


@every_update
def test_static_loss_scale_changes_nothing(update: str) -> None:
    inner = optimizers.Adam(0.01, loss_scale_factor=128.0)
    model = compiled(poise.PenalizedOptimizer(inner, mixed_rules(), update=update, observe_every=2))
    model.optimizer.keep_values()

    fitted(model, epochs=4, rows=48)

    assert model.optimizer.loss_scale_factor == 128.0
    assert_same_training(model, model.optimizer, update)


def test_learning_rate_is_that_of_the_inner_optimizer() -> None:
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.25), poise.L2(0.1))

    assert float(ops.convert_to_numpy(optimizer.learning_rate)) == 0.25
    optimizer.learning_rate = 0.5

    assert float(ops.convert_to_numpy(optimizer.inner_optimizer.learning_rate)) == 0.5


@pytest.mark.parametrize("update", ["decoupled", "proximal"])
def test_learning_rate_lowered_in_a_callback_is_the_step_of_the_penalty_too(update: str) -> None:
    def slower(epoch: int, rate: float) -> float:
        return 0.05 * 0.5**epoch

    callback = keras.callbacks.LearningRateScheduler(slower)
    changed = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), poise.L1(0.1), update=update))
    fitted(changed, epochs=3, callbacks=[callback])
    expected = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), poise.L1(0.1), update=update))
    for epoch in range(3):
        expected.optimizer.learning_rate = 0.05 * 0.5**epoch
        fitted(expected, epochs=1)

    assert_same_weights(changed, expected)


def test_set_weights_restores_the_whole_state() -> None:
    model = fitted(compiled(penalized("proximal", observe_every=1)), epochs=2)
    assert int(model.optimizer.iterations) == int(model.optimizer.inner_optimizer.iterations) == 6
    state = [np.array(ops.convert_to_numpy(v)) for v in model.optimizer.variables]
    fitted(model, epochs=2)

    model.optimizer.set_weights(state)

    for variable, value in zip(model.optimizer.variables, state, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


# ---------------------------------------------------------------- gradients that are missing or sparse


def embedding_model(**of_embedding: Any) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(12, 4, name="words", **of_embedding),
            keras.layers.Flatten(),
            keras.layers.Dense(1, name="head"),
        ]
    )
    random = np.random.default_rng(5)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    return model


def fit_words(model: keras.Model) -> keras.Model:
    random = np.random.default_rng(0)
    x, y = random.integers(0, 6, size=(24, 3)), random.normal(size=(24, 1))
    model.fit(x.astype("int32"), y.astype("float32"), 8, 6, verbose=0, shuffle=False)
    return model


@pytest.mark.parametrize("inner", ["adam", "sgd"])
def test_embedding_that_is_penalized_is_dense(inner: str) -> None:
    """Also the rows that no batch asked for are shrunk; TensorFlow's gradient of an embedding is sparse."""
    stock = fit_words(compiled(inner, embedding_model(embeddings_regularizer="l2")))
    rule = poise.Rule(poise.Role.EMBEDDINGS, poise.L2(0.01))
    ours = fit_words(compiled(poise.PenalizedOptimizer(inner, rule), embedding_model()))

    assert_same_weights(ours, stock)


@pytest.mark.parametrize("update", ["decoupled", "proximal"])
def test_embedding_under_a_prox_has_its_unused_rows_shrunk(update: str) -> None:
    rule = poise.Rule(poise.Role.EMBEDDINGS, poise.L1(0.5))
    model = embedding_model()
    before = weights(model)[0]
    model = fit_words(compiled(poise.PenalizedOptimizer(optimizers.SGD(0.1), rule, update=update), model))

    np.testing.assert_allclose(weights(model)[0][6:], soft_threshold(before[6:], 18 * 0.1 * 0.5), rtol=0.0, atol=1e-5)


@every_update
def test_embedding_that_is_not_penalized_is_trained_as_by_the_inner_optimizer(update: str) -> None:
    stock = fit_words(compiled("sgd", embedding_model()))
    rule = poise.Rule("head/kernel", poise.L2(0.0))
    ours = fit_words(compiled(poise.PenalizedOptimizer("sgd", rule, update=update), embedding_model()))

    assert_same_weights(ours, stock)


@every_update
def test_missing_gradient_of_a_penalized_variable_is_zero(update: str) -> None:
    model = net()
    variables, before = model.trainable_variables, weights(model)
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.1), poise.Rule("*/kernel", poise.L2(0.5)), update=update)
    gradients = [None if "kernel" in v.path else ops.zeros(v.shape) for v in variables]

    optimizer.apply(gradients, variables)

    share = 1.0 / (1.0 + 0.1) if update == "proximal" else 1.0 - 0.1
    assert_same_weights(model, [w * share if w.ndim == 2 else w for w in before])


def test_missing_gradient_of_another_variable_is_left_to_keras() -> None:
    model = net()
    variables = model.trainable_variables
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.1), poise.Rule("*/kernel", poise.L2(0.5)))
    gradients = [ops.zeros(v.shape) if "kernel" in v.path else None for v in variables]

    with pytest.warns(UserWarning, match="Gradients do not exist for variables"):
        optimizer.apply(gradients, variables)


@every_update
def test_apply_to_some_of_the_variables_changes_only_those(update: str) -> None:
    model = net()
    variables, before = model.trainable_variables, weights(model)
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.1), poise.L2(0.5), update=update, observe_every=1)
    optimizer.build(variables)

    optimizer.apply([ops.zeros(variables[2].shape)], [variables[2]])

    share = 1.0 / (1.0 + 0.1) if update == "proximal" else 1.0 - 0.1
    assert_same_weights(model, [w * share if i == 2 else w for i, w in enumerate(before)])
    assert np.count_nonzero(optimizer.force_record().total.sum(axis=1)) == 1


# ---------------------------------------------------------------- penalties of their own kind


def test_anchored_pulls_to_the_weights_when_training_began() -> None:
    """Under a large decoupled L2-SP the weights stay; under plain L2 they vanish."""
    start = weights(net())
    rule = poise.Rule("*/kernel", poise.Anchored(poise.L2(5.0)))
    model = fitted(compiled(poise.PenalizedOptimizer(optimizers.SGD(0.01), rule), net()), **HUNDRED)
    stock = net(
        kernel_regularizer={name: _Towards(w) for name, w in zip(("features", "head"), start[::2], strict=True)}
    )
    fitted(compiled(optimizers.SGD(0.01), stock), **HUNDRED)

    assert_same_weights(model, stock)


class _Towards(keras.regularizers.Regularizer):
    def __init__(self, start: np.ndarray) -> None:
        self.start = start

    def __call__(self, w: Any) -> Any:
        return 5.0 * ops.sum(ops.square(w - self.start))


def test_anchor_is_the_weights_of_the_first_step_and_not_of_the_compilation() -> None:
    model = compiled(
        poise.PenalizedOptimizer(optimizers.SGD(0.1), poise.Anchored(poise.L1(100.0)), update="proximal"), net()
    )
    later = weights(net(seed=9))
    model.set_weights(later)

    fitted(model, epochs=2)

    assert_same_weights(weights(model)[::2], later[::2], relative=0.0)


def test_half_precision_weights_are_penalized_in_float32() -> None:
    """L2 of 300 weights of 20 is 1.2e6 times the strength: beyond float16."""
    keras.config.set_dtype_policy("float16")
    try:
        model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(1, use_bias=False)])
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights([np.full((300, 1), 20.0)])
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.5), poise.L2(0.5))
    optimizer.keep_values()

    optimizer.apply([ops.zeros((300, 1), "float16")], model.trainable_variables)

    np.testing.assert_allclose(weights(model)[0], 10.0)
    np.testing.assert_allclose(optimizer.penalty_record().total, [0.5 * 300 * 400])


@every_update
def test_mixed_precision_penalizes_the_float32_weights(update: str) -> None:
    """A pair of twins: the penalty of zero data is exact, whatever the compute dtype and the loss scale."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = models.linear(4)
    finally:
        keras.config.set_dtype_policy("float32")
    start = np.array([[1.0], [-2.0], [0.3], [0.0001]])
    model.set_weights([start, np.zeros(1)])
    compiled(poise.PenalizedOptimizer(optimizers.SGD(0.1), poise.L2(0.5), update=update), model)
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)

    model.fit(np.zeros((4, 4)), np.zeros((4, 1)), epochs=1, verbose=0)

    share = 1.0 / (1.0 + 0.1) if update == "proximal" else 1.0 - 0.1
    np.testing.assert_allclose(weights(model)[0], start * share, rtol=1e-6)
    assert poise.get_penalized_optimizer(model).strength["kernels"] == 0.5


@pytest.mark.parametrize("update", ["coupled", "proximal"])
def test_listed_groups_with_factors_train_in_a_compiled_step(update: str) -> None:
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    groups = poise.GroupLasso(5.0, groups=[[0, 1], [3]], axis="inputs", factors=[1.0, 2.0])
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(0.1), groups, update=update), "mse")

    model.fit(x, x[:, :3], epochs=20, batch_size=32, verbose=0)

    norms = np.linalg.norm(model.get_weights()[0], axis=1)
    assert norms[2] > 0.1
    if update == "proximal":
        assert norms[[0, 1, 3]].tolist() == [0.0, 0.0, 0.0]
