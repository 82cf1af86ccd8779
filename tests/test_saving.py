"""Rules, strengths and state travel with the model, into a fresh process too."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from oracles.models import assert_same_weights, batches, compiled, fitted, net, weights

import poise

RULES = {
    "coupled": [poise.L2(0.02), poise.Rule("head/kernel", poise.Smoothness(0.1), name="even")],
    "decoupled": [
        poise.Rule("*/kernel", poise.L1(0.02), exclude="head/*"),
        poise.Rule(poise.Role.BIASES, poise.L2(0.1)),
    ],
    "proximal": [
        poise.Rule(["features/*"], poise.GroupLasso(0.02, [[0, 2], [1]], 0), exclude="*/bias"),
        poise.Rule("head/kernel", poise.Anchored(poise.L1(0.01)), name="stay"),
    ],
}
INNER = {
    "coupled": lambda: keras.optimizers.Adam(0.01),
    "decoupled": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5),
    "proximal": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
}


def _trained(update: str, epochs: int = 4) -> Any:
    optimizer = poise.PenalizedOptimizer(INNER[update](), RULES[update], update=update, observe_every=2)
    model = compiled(optimizer)
    return fitted(model, epochs=epochs)


def _state(optimizer: Any) -> Any:
    return [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]


@pytest.mark.parametrize("update", RULES)
def test_training_interrupted_by_a_save_and_a_load_continues_as_an_uninterrupted_one(
    update: str, tmp_path: Path
) -> None:
    model = _trained(update)
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert loaded.optimizer.rules[0].get_config() == model.optimizer.rules[0].get_config()
    assert [*loaded.optimizer.strength.items()] == [*model.optimizer.strength.items()]
    for ours, theirs in zip(_state(loaded.optimizer), _state(model.optimizer), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert_same_weights(fitted(loaded, epochs=4), fitted(model, epochs=4), relative=1e-6)


@pytest.mark.parametrize("update", RULES)
def test_a_fresh_process_restores_everything(update: str, tmp_path: Path) -> None:
    model = _trained(update)
    name = next(iter(model.optimizer.strength))
    model.optimizer.strength[name] = 0.0625
    model.save(tmp_path / "model.keras")
    program = """
import sys, numpy as np, keras, poise
model = keras.saving.load_model(sys.argv[1])
optimizer = model.optimizer
assert type(optimizer) is poise.PenalizedOptimizer and optimizer.update == sys.argv[3] and optimizer.observe_every == 2
assert optimizer.strength[sys.argv[4]] == 0.0625, optimizer.strength
for x, y in zip(*np.load(sys.argv[2]).values()):
    model.train_on_batch(x, y)
np.savez(sys.argv[2], *model.get_weights())
"""
    steps = [batch for batch in batches(epochs=2) if len(batch[0]) == 16]
    np.savez(tmp_path / "data.npz", *(np.stack(arrays) for arrays in zip(*steps, strict=True)))

    arguments = [str(tmp_path / "model.keras"), str(tmp_path / "data.npz"), update, name]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, env=os.environ, timeout=300)

    for x, y in steps:
        model.train_on_batch(x, y)
    assert_same_weights([*np.load(tmp_path / "data.npz").values()], model, relative=1e-6)


def test_a_strength_that_was_changed_is_saved_in_the_configuration_too() -> None:
    model = _trained("coupled")
    model.optimizer.strength["even"] = 0.3

    clone = poise.PenalizedOptimizer.from_config(model.optimizer.get_config())

    assert clone.strength["even"] == 0.3
    assert clone.strength["kernels"] == 0.02


def test_a_schedule_comes_back_as_one() -> None:
    warm_up = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 0.1)
    optimizer = poise.PenalizedOptimizer("adam", poise.L1(warm_up), update="proximal")

    clone = poise.PenalizedOptimizer.from_config(optimizer.get_config())

    schedule = clone.rules[0].penalty.strength
    assert isinstance(schedule, keras.optimizers.schedules.PolynomialDecay)
    assert schedule.get_config() == warm_up.get_config()


def test_the_inner_optimizer_keeps_its_own_settings() -> None:
    inner = keras.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.9, clipnorm=1.0)

    clone = poise.PenalizedOptimizer.from_config(poise.PenalizedOptimizer(inner, poise.L2(0.1)).get_config())

    assert clone.use_ema
    assert clone.ema_momentum == 0.9
    assert clone.inner_optimizer.clipnorm == 1.0
    assert clone.inner_optimizer.use_ema


def test_a_cloned_model_compiled_alike_trains_alike() -> None:
    model = compiled(poise.PenalizedOptimizer("adam", poise.L2(0.1)))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile_from_config(model.get_compile_config())

    assert clone.optimizer is not model.optimizer
    assert_same_weights(fitted(clone, epochs=3), fitted(model, epochs=3), relative=1e-6)


def test_weights_files_load_into_a_model_of_the_same_form(tmp_path: Path) -> None:
    model = _trained("proximal")
    model.save_weights(tmp_path / "only.weights.h5")
    plain, penalized = compiled("sgd"), compiled(poise.PenalizedOptimizer("adam", poise.L1(0.1)))

    for other in (net(seed=5), plain, penalized):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras' optimizers say that they skip a state that is not theirs
            other.load_weights(tmp_path / "only.weights.h5")
        assert_same_weights(other, model, relative=0)


def test_a_model_saved_before_training_is_loaded(tmp_path: Path) -> None:
    model = compiled(poise.PenalizedOptimizer("adam", poise.L2(0.1), observe_every=1))
    model.save(tmp_path / "model.keras")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras' Adam says that it has no state yet
        loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert_same_weights(fitted(loaded, epochs=2), fitted(model, epochs=2), relative=1e-6)


def test_state_of_other_rules_is_refused_and_names_both(tmp_path: Path) -> None:
    _trained("coupled").save_weights(tmp_path / "s.weights.h5")
    other = fitted(compiled(poise.PenalizedOptimizer("adam", [poise.L2(0.3)])), epochs=1)

    with pytest.raises(
        ValueError, match=r"rules \['kernels', 'even'\].*has the rules \['kernels'\].*skip_mismatch=True"
    ):
        other.load_weights(tmp_path / "s.weights.h5")

    assert dict(other.optimizer.strength) == {"kernels": 0.3}
    with pytest.warns(UserWarning, match="could not be loaded"):
        other.load_weights(tmp_path / "s.weights.h5", skip_mismatch=True)
    assert dict(other.optimizer.strength) == {"kernels": 0.3}


def test_strengths_anchors_and_traces_load_by_rule_and_variable(tmp_path: Path) -> None:
    rules = [
        poise.Rule("head/kernel", poise.Anchored(poise.L1(0.02)), name="stay"),
        poise.Rule("features/kernel", poise.L1(0.3), name="sparse"),
    ]

    def trained(order: Any) -> Any:
        inner = keras.optimizers.RMSprop(0.01, momentum=0.5)
        return fitted(compiled(poise.PenalizedOptimizer(inner, order, update="proximal", observe_every=1)), epochs=3)

    saved, loaded = trained(rules), trained(rules[::-1])
    saved.optimizer.strength["stay"] = 0.0625
    saved.save_weights(tmp_path / "s.weights.h5")
    loaded.load_weights(tmp_path / "s.weights.h5")

    assert dict(loaded.optimizer.strength) == {"sparse": 0.3, "stay": 0.0625}
    assert_same_weights(fitted(loaded, epochs=3), fitted(saved, epochs=3), relative=1e-6)


@pytest.mark.parametrize("inner", ["sgd", "adam"])
@pytest.mark.parametrize("is_built", [False, True])
def test_weights_files_go_both_ways_between_stock_and_penalized(inner: Any, is_built: bool, tmp_path: Path) -> None:
    """As between two stock optimizers: the weights are loaded and the state of the optimizer is skipped."""
    steps = 3 if is_built else 0
    for count, (source, target) in enumerate([(inner, "ours"), ("ours", inner), ("adam", "ours"), ("ours", "adam")]):
        made = [
            poise.PenalizedOptimizer(inner, poise.L2(0.25)) if each == "ours" else each for each in (source, target)
        ]
        saved, loaded = fitted(compiled(made[0]), epochs=5), fitted(compiled(made[1], net(seed=7)), epochs=steps)
        saved.save_weights(tmp_path / f"{count}.weights.h5")

        with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
            loaded.load_weights(tmp_path / f"{count}.weights.h5")

        assert_same_weights(loaded, saved, relative=0)
        assert int(loaded.optimizer.iterations) == (steps * 3)
        if target == "ours":
            assert dict(loaded.optimizer.strength) == {"kernels": 0.25}
        fitted(loaded, epochs=1)


def test_the_anchor_is_saved(tmp_path: Path) -> None:
    model = compiled(poise.PenalizedOptimizer(keras.optimizers.SGD(0.0), poise.Anchored(poise.L2(1.0))))
    start = weights(fitted(model, epochs=1))
    model.set_weights([w + 1.0 for w in start])
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")

    loaded.optimizer.learning_rate = 0.005
    loaded.optimizer.strength["kernels"] = 50.0
    fitted(loaded, epochs=20)
    for w, anchor in zip(weights(loaded)[::2], start[::2], strict=True):
        assert np.abs(w - anchor).max() < 0.2


@keras.saving.register_keras_serializable("poise-saving")
class Warm(keras.optimizers.SGD):
    """An optimizer of a user, with only the arguments that it needs."""

    def __init__(self, peak: Any = 0.1, name: str = "warm") -> None:
        super().__init__(learning_rate=peak, name=name)
        self.peak = peak

    def get_config(self) -> Any:
        return {"peak": self.peak, "name": self.name}


@keras.saving.register_keras_serializable("poise-saving")
class Task(keras.Model):
    """Compiles itself with a default optimizer, as the models of KerasHub do, so that Keras loads it with that one."""

    def __init__(self, **kwargs: Any) -> None:
        inputs = keras.Input((6,))
        super().__init__(inputs, keras.layers.Dense(1, name="head")(inputs), **kwargs)
        self.compile()

    def compile(self, optimizer: Any = "auto", loss: Any = "auto", **kwargs: Any) -> Any:
        optimizer = keras.optimizers.Adam(1e-3) if optimizer == "auto" else optimizer
        super().compile(optimizer, "mse" if loss == "auto" else loss, **kwargs)

    def get_config(self) -> Any:
        return {"name": self.name}


def _several() -> Any:
    optimizers = keras.optimizers
    return optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.Adam(0.01), {".*/bias": optimizers.SGD(0.1)}))


NEW = hasattr(keras.optimizers, "OptimizerMap")


@pytest.mark.parametrize("make", [Warm, *([_several] if NEW else [])])
def test_inner_optimizer_whose_constructor_takes_few_arguments_is_saved_and_loaded(make: Any, tmp_path: Path) -> None:
    model = fitted(compiled(poise.PenalizedOptimizer(make(), poise.L2(0.1))), epochs=2)
    model.save(tmp_path / "m.keras")

    loaded = keras.models.load_model(tmp_path / "m.keras")

    assert_same_weights(fitted(loaded, epochs=2), fitted(model, epochs=2), relative=1e-6)


def test_model_that_compiles_itself_when_it_is_loaded_gets_its_weights(tmp_path: Path) -> None:
    model = fitted(compiled(poise.PenalizedOptimizer("adam", poise.L2(0.1)), Task()), epochs=1)
    model.save(tmp_path / "task.keras")

    with pytest.warns(UserWarning, match=r"compile\(\)` was not called|Skipping variable loading"):
        loaded = keras.models.load_model(tmp_path / "task.keras")

    assert_same_weights(loaded, model, relative=0)


@pytest.mark.backends("tensorflow")
@pytest.mark.parametrize("export", ["export", "saved_model"])
def test_a_model_is_exported(export: str, tmp_path: Path) -> None:
    import tensorflow as tf

    model = fitted(compiled(poise.PenalizedOptimizer("adam", poise.L2(0.1))), epochs=1)
    if export == "export":
        model.export(tmp_path / "m", verbose=False)
    else:
        tf.saved_model.save(model, str(tmp_path / "m"))

    serve = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"]
    x = batches()[0][0]
    (served,) = serve(tf.constant(x)).values()
    np.testing.assert_allclose(served, model.predict(x, verbose=0), rtol=1e-5)


@pytest.mark.backends("tensorflow")
@pytest.mark.parametrize("is_built", [True, False])
def test_a_tensorflow_checkpoint_restores_weights_and_state_by_name(is_built: bool, tmp_path: Path) -> None:
    """In a training that is rebuilt with its rules in another order, before its first step or after one."""
    import tensorflow as tf

    def made(rules: Any) -> Any:
        return compiled(poise.PenalizedOptimizer(keras.optimizers.SGD(0.05, momentum=0.9), rules, update="proximal"))

    rules = RULES["proximal"]
    model = fitted(made(rules), epochs=2)
    model.optimizer.strength["stay"] = 0.0625
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / "ck"))

    other = fitted(made(rules[::-1]), epochs=1) if is_built else made(rules[::-1])
    status = tf.train.Checkpoint(model=other, optimizer=other.optimizer).restore(path)
    if not is_built:
        other.optimizer.build(other.trainable_variables)
    status.assert_existing_objects_matched()

    assert dict(other.optimizer.strength) == dict(model.optimizer.strength)
    assert_same_weights(fitted(other, epochs=2), fitted(model, epochs=2), relative=1e-6)


@pytest.mark.parametrize("update", RULES)
def test_an_h5_file_restores_a_training_too(update: str, tmp_path: Path) -> None:
    optimizer = poise.PenalizedOptimizer(INNER[update](), RULES[update], update=update)
    model = fitted(compiled(optimizer, loss=keras.losses.MeanSquaredError()), epochs=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls the format legacy
        model.save(tmp_path / "model.h5")

    loaded = keras.models.load_model(tmp_path / "model.h5")

    assert [*loaded.optimizer.strength.items()] == [*model.optimizer.strength.items()]
    assert_same_weights(fitted(loaded, epochs=3), fitted(model, epochs=3), relative=1e-6)
