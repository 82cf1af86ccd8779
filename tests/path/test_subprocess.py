"""Paths in a JAX process of their own: what it finds, tells and leaves behind. Every test but one starts a process."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import poise

SCENE = """
import os, signal, sys, time, warnings
import keras, numpy as np, poise
from keras import layers, ops


@keras.saving.register_keras_serializable("scene_in_a_child")
class Scaled(layers.Layer):
    def __init__(self, by=1.0, **others):
        super().__init__(**others)
        self.by = by

    def call(self, x):
        return self.by * x

    def get_config(self):
        return {**super().get_config(), "by": self.by}


def talking(y, predicted):
    print("a word from the loss")
    others = sorted({"tensorflow", "torch"} & set(sys.modules))
    warnings.warn(f"beside it: {others}", RuntimeWarning)
    return ops.mean(ops.square(y - predicted), axis=-1)

def failing(y, predicted):
    raise ValueError("the loss cannot be told")

def dying(y, predicted):
    print("my last words")
    os.kill(os.getpid(), signal.SIGKILL)

def waiting(y, predicted):
    with open("waiting.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename("waiting.new", "waiting")
    time.sleep(120)


def solve(loss, executor="subprocess"):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    adapted = layers.Normalization()
    h = layers.Dense(6, "tanh", name="features")(layers.Concatenate()([adapted(a), b]))
    h = layers.Dropout(0.2, seed=7)(layers.BatchNormalization()(h))
    h = layers.Dense(4, "tanh", name="frozen", trainable=False)(Scaled(0.5)(h))
    model = keras.Model([a, b], layers.Dense(1, name="head")(h))
    random = np.random.default_rng(0)
    model.set_weights([0.1 + random.uniform(size=w.shape) for w in model.get_weights()])
    adapted.adapt(random.normal(5.0, 3.0, size=(20, 3)))
    model.compile(keras.optimizers.Adam(0.02), loss=loss)
    x, y, weights = random.normal(size=(60, 5)), random.normal(size=(60, 1)), random.uniform(0.5, 1.5, 60)
    rows = {"a": x[:, :3], "b": x[:, 3:]}, y, weights
    train, held = (keras.tree.map_structure(lambda a: a[part], rows) for part in (slice(40), slice(40, 60)))
    training = poise.Training(epochs=3, batch_size=20, settle=0)
    return poise.fit_path(
        model, *train[:2], poise.L1(), sample_weight=train[2], validation_data=held, strengths=[0.01, 0.1, 1.0],
        training=training, executor=executor, progress=False,
    )
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("scene")
    (folder / "scene_in_a_child.py").write_text(SCENE)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def scene(folder) -> Any:
    return importlib.import_module("scene_in_a_child")


def python(code, folder, **environment) -> Any:
    """A process that runs the code in the folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), **environment}
    command = [sys.executable, "-c", f"import scene_in_a_child as scene\n{code}"]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE)


def solved_on_jax(scene, folder) -> Any:
    """The path that JAX finds without a process of its own."""
    if keras.backend.backend() == "jax":
        return scene.solve(scene.talking, "in_process")
    code = "scene.solve(scene.talking, 'in_process').save('local')"
    with python(code, folder, KERAS_BACKEND="jax", TF_CPP_MIN_LOG_LEVEL="3") as process:
        assert process.wait(120) == 0
    return poise.RegularizationPath.load(folder / "local")


def test_it_finds_what_this_process_would(scene, folder, capfd) -> None:
    with pytest.warns(RuntimeWarning, match=r"beside it: \[\]") as reported:
        result = scene.solve(scene.talking, "subprocess" if keras.backend.backend() == "jax" else "auto")
    words = capfd.readouterr()
    assert "a word from the loss" in words.err
    assert "a word from the loss" not in words.out
    assert {each.filename for each in reported if each.category is RuntimeWarning} == {scene.__file__}
    with warnings.catch_warnings(action="ignore"):
        expected = solved_on_jax(scene, folder)
    mine, theirs = (path.table.drop(columns="seconds") for path in (result, expected))
    pd.testing.assert_frame_equal(mine, theirs, rtol=1e-5)
    for strength in result.strengths:
        for mine, theirs in zip(result.weights(strength), expected.weights(strength), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)
    assert result.model(result.best_strength).count_params() == expected.model(result.best_strength).count_params()


def test_a_checkpoint_reaches_it(tmp_path) -> None:
    def solve() -> Any:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)], name="net")
        model.set_weights([np.ones((3, 1)), np.zeros(1)])
        model.compile("adam", "mse")
        x = np.random.default_rng(0).normal(size=(40, 3))
        training = poise.Training(epochs=2, settle=0)
        arguments = {"strengths": [0.01, 0.1], "cv": 2, "training": training, "checkpoint": tmp_path / "kept"}
        return poise.fit_path(model, x, x[:, :1], poise.L2(), executor="subprocess", progress=False, **arguments)

    first = solve()
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "kept").iterdir()}

    keras.utils.clear_session(free_memory=False)
    again = solve()

    pd.testing.assert_frame_equal(first.table, again.table)  # the seconds of the first call, which trained
    assert written == {file: file.stat().st_mtime_ns for file in (tmp_path / "kept").iterdir()}


def test_its_error_is_raised_here(scene) -> None:
    with pytest.raises(ValueError, match="^the loss cannot be told$") as caught:
        scene.solve(scene.failing)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "scene_in_a_child.py" in str(caught.value.__cause__)


def test_its_death_is_reported(scene) -> None:
    with pytest.raises(RuntimeError, match="(?s)was killed \\(SIGKILL\\).*memory.*my last words"):
        scene.solve(scene.dying)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_it_does_not_outlive_its_parent(number, folder, tmp_path) -> None:
    # A shell that runs the tests in the background hands on an ignored SIGINT.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = heed + "try: scene.solve(scene.waiting)\nexcept KeyboardInterrupt: print('so be it')"
    mark = folder / "waiting"
    mark.unlink(missing_ok=True)
    with python(code, folder, TMPDIR=str(tmp_path)) as parent:
        until(mark.exists, 90)
        child = int(mark.read_text())
        assert is_running(child)
        parent.send_signal(number)
        said, _ = parent.communicate(timeout=30)
    assert said == ("so be it\n" if number == signal.SIGINT else "")
    until(lambda: not is_running(child), 10)
    assert not [*tmp_path.iterdir()]


def test_a_lambda_as_loss_is_sent_to_it(scene) -> None:
    path = scene.solve(lambda y, predicted: keras.ops.abs(y - predicted)[..., 0])
    assert np.isfinite(path.table["val_loss"]).all()


def test_what_cannot_be_pickled_is_refused_before_it_starts(scene, monkeypatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    lock = threading.Lock()

    def locked(y, predicted) -> Any:
        return lock and y - predicted

    with pytest.raises(ValueError, match="^The loss cannot be sent to the process that runs JAX"):
        scene.solve(locked)


def until(is_true, seconds) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def is_running(process) -> Any:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
