"""What poise.optax refuses, and what it says."""

import functools
import importlib
import os
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import optax
import pytest
from optax_cases import penalized

import poise

PARAMS = {"head": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
INSTEAD = r"or use update='decoupled' or 'coupled'\.$"


def test_the_import_chooses_jax() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    code = "import poise.optax, keras; print(keras.backend.backend())"
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "jax\n"


def test_the_import_without_optax_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optax", None)
    monkeypatch.delitem(sys.modules, "poise.optax")
    with pytest.raises(ImportError, match=r'^poise\.optax needs optax, .*Run `pip install "poise\[optax\]"`\.$'):
        importlib.import_module("poise.optax")


@pytest.mark.parametrize(
    ("optimizer", "settings", "message"),
    [
        (optax.lion, {}, r"optax\.lion: it moves by the sign.*Use one of optax\.adabelief, optax\.adadelta.*"),
        (optax.sign_sgd, {}, r"optax\.sign_sgd: it moves by the sign.*"),
        (optax.lars, {}, r"optax\.lars: poise does not know its step per coordinate\..*optax\.adam.*"),
        (optax.contrib.muon, {}, r"optax\.contrib\.muon: it orthogonalizes the update.*"),
        (optax.contrib.schedule_free_adamw, {}, r"optax\.contrib\.schedule_free_adamw: it trains at one point.*"),
        (optax.noisy_sgd, {"key": 0}, r"optax\.noisy_sgd: it adds noise.*"),
        (optax.rmsprop, {"centered": True}, r"optax\.rmsprop\(centered=True\): its step grows.*Use centered=False, "),
        (
            optax.adafactor,
            {"momentum": 0.9},
            r"optax\.adafactor\(momentum=0\.9\): it moves by an average.*Use momentum=None, ",
        ),
        (
            optax.inject_hyperparams(optax.adam),
            {},
            r"a wrapper of optax\.adam: a wrapper such as optax\.inject_hyperparams.*Pass optax\.adam itself, .*",
        ),
        (
            optax.adamw,
            {"weight_decay": 0.01},
            r"optax\.adamw\(weight_decay=0\.01\): the decay is a penalty that no rule.*poise\.L2\(0\.005\), ",
        ),
        (
            optax.nadamw,
            {},
            r"optax\.adamw\(weight_decay=0\.0001\).*weight_decay=0 and a rule with poise\.L2\(5e-05\), ",
        ),
        (
            optax.adadelta,
            {"weight_decay": optax.constant_schedule(0.1)},
            r"optax\.adadelta\(weight_decay=.*poise\.L2, ",
        ),
        (
            lambda learning_rate: optax.sgd(learning_rate),
            {},
            r"<lambda>: poise does not know its step per coordinate.*",
        ),
    ],
)
def test_optimizers_without_a_usable_step_are_refused(optimizer: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^update='proximal' does not work with {message}{INSTEAD}"):
        penalized(optimizer, poise.L1(0.1), "proximal", learning_rate=0.1, **settings)
    automatic = r"^L1 acts by a proximal step with update='auto', .*or use update='coupled', .*no exact zeros\.$"
    with pytest.raises(ValueError, match=automatic):
        penalized(optimizer, poise.L1(0.1), learning_rate=0.1, **settings)
    for update in ("coupled", "decoupled"):
        tx = penalized(optimizer, poise.L1(0.1), update, learning_rate=0.1, **settings)
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    ("optimizer", "settings", "error", "message"),
    [
        (
            optax.adam(0.1),
            {},
            TypeError,
            r"^optimizer must be a function of optax, such as optax\.adam, got GradientTransformationExtraArgs\. Pass "
            r"its arguments by name: poise\.optax\.penalized\(optax\.adam, rules, learning_rate=0\.01\)\.$",
        ),
        (
            optax.adam,
            {},
            TypeError,
            r"^optax\.adam: missing a required argument: 'learning_rate'\. Pass its arguments by",
        ),
        (optax.adam, {"rate": 1}, TypeError, r"^optax\.adam: .*argument.*\. Pass its arguments by name"),
        (functools.partial(optax.adam, 0.1), {}, TypeError, r"a functools\.partial with named arguments only, got"),
        (
            lambda: 1,
            {"update": "coupled"},
            TypeError,
            r"^<lambda> must return an optax\.GradientTransformation, got int\.$",
        ),
        (optax.adadelta, {}, ValueError, r"^optax\.adadelta has no learning rate.*Pass learning_rate, or use update="),
    ],
)
def test_what_is_not_an_optimizer_is_refused(optimizer: Any, settings: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        penalized(optimizer, poise.L1(0.1), **settings)


def test_a_partial_is_its_function() -> None:
    tx = penalized(functools.partial(optax.adam, b1=0.5), poise.L1(0.1), learning_rate=0.1)
    tx.init(PARAMS)


def test_unknown_updates_and_rules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^update must be one of 'auto', .*, got 'prox'\.$"):
        penalized(optax.adam, poise.L1(0.1), "prox", learning_rate=0.1)
    with pytest.raises(TypeError, match=r"^rules must be a penalty"):
        penalized(optax.adam, 0.1, learning_rate=0.1)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            poise.Rule("head/kernell", poise.L1(0.1)),
            r"^Rule 'head/kernell' matches none of the 2 trained variables\. Did you mean 'head/kernel'\?.*The arrays are "
            r"'head/bias', 'head/kernel'\.$",
        ),
        (
            poise.NuclearNorm(0.1),
            r"and optax\.adam takes one step per coordinate\. Use optax\.sgd, or update='decoupled'",
        ),
        (
            poise.Rule("head/kernel", poise.JointGroupLasso(0.1, {"tail": ((2,), 0, [0, 1])})),
            r"the member 'tail' is not one of the 2 trained variables\..*The arrays are 'head/bias', 'head/kernel'\.$",
        ),
    ],
)
def test_rules_that_do_not_fit_the_parameters_are_refused(rule: Any, message: str) -> None:
    tx = penalized(optax.adam, rule, learning_rate=0.1)
    with pytest.raises(ValueError, match=message):
        tx.init(PARAMS)


def test_at_most_eight_arrays_are_listed() -> None:
    tx = penalized(optax.adam, poise.Rule("none", poise.L1(0.1)), learning_rate=0.1)
    with pytest.raises(ValueError, match=r"The arrays are '0', .*'7', and 2 more\.$"):
        tx.init([jnp.ones((2, 2))] * 10)


def test_a_step_needs_the_parameters_and_the_strengths() -> None:
    tx = penalized(optax.adam, poise.L1(0.1), learning_rate=0.1)
    state = tx.init(PARAMS)
    with pytest.raises(
        ValueError, match=r"^A penalty needs the parameters\. Pass them: tx\.update\(gradients, state, p"
    ):
        tx.update(PARAMS, state)
    with pytest.raises(
        ValueError, match=r"^state\.strengths must have the names of the rules, \['kernels'\], got \['k'\]"
    ):
        tx.update(PARAMS, state._replace(strengths={"k": 0.1}), PARAMS)


def test_a_joint_penalty_needs_the_gradients_of_all_its_arrays() -> None:
    members = {"head/kernel": ((3, 2), 1, [0, 1]), "head/bias": ((2,), 0, [0, 1])}
    tx = penalized(optax.sgd, poise.JointGroupLasso(0.1, members), learning_rate=0.1)
    gradients = {"head": {**PARAMS["head"], "bias": None}}
    with pytest.raises(
        ValueError, match=r"penalizes 2 arrays jointly, but 'head/bias' has no gradient\. Pass the gradien"
    ):
        tx.update(gradients, tx.init(PARAMS), PARAMS)
