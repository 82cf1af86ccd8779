"""The same trainings on one device and on two; run as a script, which makes two devices of the processor, it writes
what they end with to a JSON file: `python -m oracles.devices FILE`.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, optimizers

import poise

from . import models
from .autodiff import BACKEND


@dataclass(frozen=True)
class Case:
    """A training: the update, what makes the inner optimizer, which of `RULES`, and whether the forces are observed."""

    update: str
    make: Callable[[], Any]
    rules: str
    observe_every: int = 0


def _decaying() -> optimizers.schedules.LearningRateSchedule:
    return optimizers.schedules.ExponentialDecay(0.05, 5, 0.5)


def _averaged() -> Any:
    return optimizers.RMSprop(0.02, momentum=0.5, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=5)


CASES: dict[str, Case] = {
    "coupled SGD": Case("coupled", lambda: optimizers.SGD(0.05, 0.9), "groups and L2, L1, units", observe_every=2),
    "coupled Adam": Case("coupled", lambda: optimizers.Adam(0.02), "L2, L1"),
    "decoupled SGD": Case("decoupled", lambda: optimizers.SGD(_decaying(), 0.9), "groups and L2, L1"),
    "decoupled Adam": Case("decoupled", lambda: optimizers.Adam(0.02), "start, units"),
    "proximal SGD": Case("proximal", lambda: optimizers.SGD(0.05, 0.9, nesterov=True), "units"),
    "proximal Adam": Case("proximal", lambda: optimizers.Adam(_decaying()), "groups and L2, L1", observe_every=2),
    "proximal RMSprop, averaged": Case("proximal", _averaged, "L2, L1"),
}
MIRRORED: dict[str, Case] = {
    "coupled SGD, clipped": Case("coupled", lambda: optimizers.SGD(0.05, clipnorm=0.1), "L2, L1"),
    "proximal Adafactor": Case("proximal", lambda: optimizers.Adafactor(0.05), "L2, L1"),
}
"""Where the optimizer's step depends on more than the sum over the replicas: on the norm of the gradient."""


TWELVE_STEPS = {"epochs": 1, "rows": 192}


def net(**of_features: Any) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, "tanh", name="features", **of_features),
            layers.Dense(4, "tanh", name="middle"),
            layers.Dense(1, name="head"),
        ],
        name="net",
    )
    random = np.random.default_rng(2)
    model.set_weights([0.5 * random.normal(size=w.shape) for w in model.get_weights()])
    return model


def _units() -> poise.Rule:
    units = list(range(4))
    members = {
        "net/middle/kernel": ((8, 4), 1, units),
        "net/middle/bias": ((4,), 0, units),
        "net/head/kernel": ((4, 1), 0, units),
    }
    return poise.Rule(list(members), poise.JointGroupLasso(0.5, members), name="units")


RULES: dict[str, Callable[[], list[poise.Rule]]] = {
    "groups": lambda: [poise.Rule("features/kernel", poise.GroupLasso(0.5))],
    "L2": lambda: [poise.Rule("features/kernel", poise.L2(0.05))],
    "start": lambda: [poise.Rule("features/kernel", poise.Anchored(poise.L2(0.05)))],
    "L1": lambda: [poise.Rule("features/bias", poise.L1(0.5))],
    "units": lambda: [_units()],
}


def penalized(case: Case) -> poise.PenalizedOptimizer:
    names = case.rules.replace(" and ", ", ").split(", ")
    return poise.PenalizedOptimizer(
        case.make(),
        [rule for name in names for rule in RULES[name]()],
        update=case.update,
        observe_every=case.observe_every,
    )


def trained(case: Case) -> keras.Model:
    """The net after 12 steps, its history with it."""
    callbacks = [poise.PenaltyLogger(per_rule=True)] if case.observe_every else []
    return models.fitted(models.compiled(penalized(case), net()), **TWELVE_STEPS, callbacks=callbacks)


def told(model: keras.Model) -> dict[str, Any]:
    """What must be the same on two devices."""
    return {
        "weights": [w.tolist() for w in models.weights(model)],
        "history": model.history.history,
        "forces": model.optimizer.force_record().total.tolist(),
    }


def _forces_on_data(model: keras.Model) -> list:
    return poise.forces(model, *models.table(48)).select_dtypes("number").to_numpy().tolist()


def _error(function: Callable[[], Any]) -> str:
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


# ---------------------------------------------------------------- JAX

_BY_DATA = ["coupled SGD", "coupled Adam", "proximal Adam"]
_BY_MODEL = ["coupled SGD", "decoupled Adam", "proximal SGD", "proximal Adam", "proximal RMSprop, averaged"]
SHARDED = {"one": sorted({*_BY_DATA, *_BY_MODEL}), "data": _BY_DATA, "model": _BY_MODEL}


def _in_jax() -> dict[str, Any]:
    from keras import distribution

    devices = ["cpu:0", "cpu:1"]
    mesh = distribution.DeviceMesh((1, 2), ("batch", "model"), devices)
    layouts = distribution.LayoutMap(mesh)
    layouts[".*features/kernel"] = (None, "model")
    layouts[".*features/bias"] = ("model",)
    layouts[".*middle/kernel"] = ("model", None)
    kinds = {
        "one": None,
        "data": distribution.DataParallel(devices=devices),
        "model": distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch"),
    }
    result: dict[str, Any] = {}
    for kind, distributed in kinds.items():
        distribution.set_distribution(distributed)
        made = {name: trained(CASES[name]) for name in SHARDED[kind]}
        result[kind] = {name: told(model) for name, model in made.items()}
        result[kind]["on data"] = _forces_on_data(made["proximal Adam"])
        result[kind]["shards"] = {v.path: _shards(v) for model in made.values() for v in _variables(model)}
        distribution.set_distribution(None)
    return result


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.trainable_variables, *model.optimizer.variables]


def _shards(variable: keras.Variable) -> list[list[int]]:
    return [list(shard.data.shape) for shard in variable.value.addressable_shards]


# ---------------------------------------------------------------- TensorFlow


def _in_tensorflow() -> dict[str, Any]:
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    result: dict[str, Any] = {}
    for kind in ("one", "data"):
        with strategy.scope() if kind == "data" else contextlib.nullcontext():
            made = {name: trained(case) for name, case in {**CASES, **MIRRORED}.items()}
            result[kind] = {name: told(model) for name, model in made.items()}
            result[kind]["on data"] = _forces_on_data(made["proximal Adam"])
            result[kind]["words"] = told_of_words()
        result[kind]["on data, outside the scope"] = _forces_on_data(made["proximal Adam"])
    copies = [
        [copy.numpy().tolist() for copy in strategy.experimental_local_results(variable.value)]
        for model in made.values()
        for variable in _variables(model)
    ]
    return {**result, "copies": copies, "by hand": _by_hand(strategy), **_refusals(strategy)}


def told_of_words() -> list:
    """The weights of a net whose embedding has no penalty: its gradient stays sparse."""
    tokens = np.random.default_rng(0).integers(0, 6, size=(16, 3)).astype("int32")
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), layers.Embedding(12, 4), layers.Flatten(), layers.Dense(1, name="head")]
    )
    random = np.random.default_rng(5)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    models.compiled(poise.PenalizedOptimizer(optimizers.Adam(0.02), poise.Rule("head/kernel", poise.L2(0.1))), model)
    model.fit(tokens, models.table(16)[1], 8, verbose=0, shuffle=False)
    return [w.tolist() for w in models.weights(model)]


def _by_hand(strategy: Any) -> list:
    """The weights after a loop with a tape in strategy.run, as TensorFlow's guide writes it."""
    import tensorflow as tf

    with strategy.scope():
        model, optimizer = net(), penalized(CASES["proximal SGD"])
        optimizer.build(model.trainable_variables)

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x, training=True) - y)) / 16
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    @tf.function
    def steps(batches: Any) -> None:
        for x, y in batches:
            strategy.run(step, args=(x, y))

    rows = tf.data.Dataset.from_tensor_slices(models.table(192)).batch(16)
    steps(strategy.experimental_distribute_dataset(rows))
    return [w.tolist() for w in models.weights(model)]


def _refusals(strategy: Any) -> dict[str, str]:
    import tensorflow as tf

    def one_step(inner: Any) -> None:
        models.fitted(models.compiled(poise.PenalizedOptimizer(inner, poise.L2(0.1)), models.net()), epochs=1, rows=16)

    with strategy.scope():
        accumulated = _error(lambda: one_step(optimizers.SGD(0.1, gradient_accumulation_steps=2)))
    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        of_workers = _error(lambda: one_step(optimizers.SGD(0.1)))
    with tf.distribute.OneDeviceStrategy("CPU:1").scope():
        on_one = _error(lambda: one_step(optimizers.SGD(0.1)))
    return {"accumulated": accumulated, "of workers": of_workers, "on one": on_one}


def _make_two_devices() -> None:
    if BACKEND == "tensorflow":
        import tensorflow as tf

        (processor,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)


if __name__ == "__main__":
    _make_two_devices()
    results = _in_jax() if BACKEND == "jax" else _in_tensorflow()
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(results, file)
