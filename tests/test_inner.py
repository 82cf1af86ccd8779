"""The optimizer inside: its settings are reached through the wrapper, it is not changed, its overrides are honored."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops, optimizers
from oracles.models import assert_same_weights, compiled, fitted, net, table, weights

import poise

RULE = poise.Rule("*/kernel", poise.L2(0.05))
MODES = ["coupled", "decoupled", "proximal"]


def with_regularizers() -> keras.Model:
    return net(kernel_regularizer=keras.regularizers.L2(0.05))


def settings_of(optimizer: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(optimizer).items() if not name.startswith("_") and name != "built"}


def _number(setting: Any) -> float:
    return 0.0 if setting is None else float(ops.convert_to_numpy(setting))


# ---------------------------------------------------------------- settings

SETTINGS = {
    "weight_decay": (optimizers.AdamW, 0.5),
    "clipnorm": (optimizers.SGD, 0.01),
    "clipvalue": (optimizers.SGD, 0.01),
    "global_clipnorm": (optimizers.SGD, 0.01),
    "learning_rate": (optimizers.SGD, 0.0625),
    "gradient_accumulation_steps": (optimizers.SGD, 2),
    "use_ema": (optimizers.SGD, True),
    "beta_1": (optimizers.Adam, 0.5),
    "beta_2": (optimizers.Adam, 0.5),
    "epsilon": (optimizers.Adam, 0.25),
    "rho": (optimizers.RMSprop, 0.5),
    "momentum": (optimizers.SGD, 0.5),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_on_the_wrapper_is_that_of_the_inner_optimizer(name: str) -> None:
    make, value = SETTINGS[name]
    stock, inner = make(0.01), make(0.01)
    wrapped = poise.PenalizedOptimizer(inner, RULE)
    assert _number(getattr(wrapped, name)) == _number(getattr(stock, name))

    for optimizer in (stock, wrapped):
        setattr(optimizer, name, value)

    assert _number(getattr(wrapped, name)) == _number(getattr(inner, name)) == value
    ours, theirs = compiled(wrapped), compiled(stock, with_regularizers())
    assert_same_weights(fitted(ours, epochs=3), fitted(theirs, epochs=3))
    assert (
        np.abs(weights(ours)[0] - weights(fitted(compiled(make(0.01), with_regularizers()), epochs=3))[0]).max() > 1e-6
    )


def test_average_momentum_set_on_the_wrapper_is_used() -> None:
    ours, theirs = (
        wrap(optimizers.SGD(0.1, use_ema=True)) for wrap in (lambda o: poise.PenalizedOptimizer(o, RULE), lambda o: o)
    )
    for optimizer in (ours, theirs):
        optimizer.ema_momentum = 0.5
        optimizer.ema_overwrite_frequency = 2
    ours, theirs = compiled(ours), compiled(theirs, with_regularizers())
    assert_same_weights(fitted(ours, epochs=3), fitted(theirs, epochs=3))


def test_variables_excluded_from_weight_decay_on_the_wrapper_are_unchanged() -> None:
    def trained(optimizer: Any, model: keras.Model) -> keras.Model:
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        return fitted(compiled(optimizer, model), epochs=3)

    ours = trained(poise.PenalizedOptimizer(optimizers.AdamW(0.1, weight_decay=0.5), RULE), net())
    theirs = trained(optimizers.AdamW(0.1, weight_decay=0.5), with_regularizers())
    assert_same_weights(ours, theirs)


@pytest.mark.parametrize(("name", "value"), [("clipnorm", 0.5), ("weight_decay", 0.1), ("global_clipnorm", 1.0)])
def test_setting_with_which_the_proximal_step_would_be_wrong_is_refused_and_undone(name: str, value: float) -> None:
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.1), poise.L1(0.1), update="proximal")
    with pytest.raises(ValueError, match=f"{name}"):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) is None
    assert getattr(optimizer.inner_optimizer, name) is None


def test_momentum_of_a_proximal_update_is_set_before_training_or_refused() -> None:
    x, y = table(40, 6)
    late, early, arguments = (
        poise.PenalizedOptimizer(optimizers.SGD(0.1), poise.L1(0.1), update="proximal") for _ in range(3)
    )
    arguments = poise.PenalizedOptimizer(optimizers.SGD(0.1, momentum=0.9), poise.L1(0.1), update="proximal")
    early.momentum = 0.9
    assert_same_weights(fitted(compiled(early), epochs=3), fitted(compiled(arguments), epochs=3), relative=0)

    compiled(late).train_on_batch(x, y)
    with pytest.raises(ValueError, match="momentum=0.9 cannot be set after the optimizer is built"):
        late.momentum = 0.9
    assert late.momentum == 0.0


def test_names_that_neither_has_are_not_attributes() -> None:
    optimizer = poise.PenalizedOptimizer("sgd", RULE)
    with pytest.raises(AttributeError, match="beta_1"):
        optimizer.beta_1  # noqa: B018
    optimizer.note = "mine"
    assert optimizer.note == "mine"
    assert not hasattr(optimizer.inner_optimizer, "note")


# ---------------------------------------------------------------- what is passed in


@pytest.mark.parametrize("update", MODES)
def test_inner_optimizer_keeps_all_its_settings(update: str) -> None:
    inner = optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3)
    before, config = settings_of(inner), inner.get_config()

    fitted(compiled(poise.PenalizedOptimizer(inner, poise.L1(0.1), update=update)), epochs=2)

    assert settings_of(inner) == before
    assert inner.get_config() == config


def test_wrapping_leaves_an_optimizer_as_it_was() -> None:
    inner = optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    poise.PenalizedOptimizer(inner, poise.L2(0.5))

    second = fitted(compiled(poise.PenalizedOptimizer(inner, RULE)), epochs=3)

    stock = fitted(compiled(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), with_regularizers()), epochs=3)
    assert_same_weights(second, stock)


def test_rules_and_penalties_are_not_changed() -> None:
    penalty = poise.Anchored(poise.L1(0.1))
    rule = poise.Rule("*/kernel", penalty)
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.1), [rule], update="proximal")
    model = fitted(compiled(optimizer), epochs=1)
    model.optimizer.strength["*/kernel"] = 0.5

    assert penalty.start is None
    assert penalty.strength == 0.1
    assert rule.penalty is penalty


def test_one_inner_optimizer_serves_one_wrapper() -> None:
    inner = optimizers.Adam(0.01)
    fitted(compiled(poise.PenalizedOptimizer(inner, RULE)), epochs=1)
    second = compiled(poise.PenalizedOptimizer(inner, RULE), net(seed=2))

    with pytest.raises(ValueError, match=r"inner optimizer 'adam' was already built for 4 other variables"):
        fitted(second, epochs=1)


@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_optimizer_of_one_model_is_refused_by_a_second_model(inner: str) -> None:
    optimizer = poise.PenalizedOptimizer(inner, RULE)
    fitted(compiled(optimizer), epochs=1)
    second = net(seed=2)
    before = weights(second)

    with pytest.raises(ValueError, match=r"was built for 4 variables and cannot update"):
        fitted(compiled(optimizer, second), epochs=1)

    assert_same_weights(second, before, relative=0)


# ---------------------------------------------------------------- overrides


class Centered(optimizers.Adam):
    """Centers the gradients of matrices (Yong et al. 2020), where every backend calls."""

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        def centered(gradient: Any) -> Any:
            return gradient - ops.mean(gradient, axis=0, keepdims=True) if len(gradient.shape) > 1 else gradient

        super().apply([centered(gradient) for gradient in grads], trainable_variables)


class Halved(optimizers.SGD):
    """Moves by half of the step, on one variable at a time."""

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            self.update_step(gradient, variable, learning_rate)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign_sub(variable, 0.5 * ops.cast(learning_rate, variable.dtype) * gradient)


class Scaled(optimizers.SGD):
    """Scales the loss by its own factor and undoes that in the step."""

    def scale_loss(self, loss: Any) -> Any:
        return loss * 128.0

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply([gradient / 128.0 for gradient in grads], trainable_variables)


class ByPairs(optimizers.SGD):
    def apply_gradients(self, grads_and_vars: Any) -> Any:
        return super().apply_gradients([(0.0 * gradient, variable) for gradient, variable in grads_and_vars])


class Stateless(optimizers.SGD):
    def stateless_apply(self, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
        return super().stateless_apply(optimizer_variables, grads, trainable_variables)


class MixedIn:
    def _clip_gradients(self, grads: Any) -> Any:
        return [0.5 * gradient for gradient in grads]


class Mixed(MixedIn, optimizers.SGD):
    pass


@pytest.mark.parametrize("make", [Centered, Halved, Scaled, Mixed])
def test_override_of_the_step_is_honored_in_the_coupled_update(make: Any) -> None:
    ours, theirs = compiled(poise.PenalizedOptimizer(make(0.05), RULE)), compiled(make(0.05), with_regularizers())
    assert_same_weights(fitted(ours, epochs=5), fitted(theirs, epochs=5))


@pytest.mark.parametrize(
    ("make", "method"), [(Centered, "apply"), (Halved, "update_step"), (Scaled, "apply"), (Mixed, "_clip_gradients")]
)
def test_override_of_the_step_is_refused_in_the_proximal_update(make: Any, method: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{make.__name__}: it overrides {method}.*poise\.optimizer\.metrics\.step_of"
    ):
        poise.PenalizedOptimizer(make(0.05), poise.L1(0.1), update="proximal")


def test_step_that_is_replaced_on_the_object_is_refused_in_the_proximal_update() -> None:
    inner = optimizers.SGD(0.05)
    inner.update_step = lambda gradient, variable, learning_rate: None
    with pytest.raises(ValueError, match="overrides update_step"):
        poise.PenalizedOptimizer(inner, poise.L1(0.1), update="proximal")


@pytest.mark.parametrize("update", MODES)
@pytest.mark.parametrize(("make", "method"), [(ByPairs, "apply_gradients"), (Stateless, "stateless_apply")])
def test_override_that_would_be_bypassed_is_refused(make: Any, method: str, update: str) -> None:
    with pytest.raises(
        ValueError,
        match=f"{make.__name__} overrides {method}, but Keras calls that method only on poise.PenalizedOptimizer",
    ):
        poise.PenalizedOptimizer(make(0.05), poise.L1(0.1), update=update)
