"""Two devices give what one gives with the same batches: tf.distribute's MirroredStrategy and Keras' distributions on
JAX. (Keras on PyTorch has none.) One process with two devices trains all that is compared here.
"""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
from oracles import devices, models
from oracles.autodiff import BACKEND
from oracles.models import assert_same_weights

BY_DATA = devices.SHARDED["data"] if BACKEND == "jax" else [*devices.CASES, *devices.MIRRORED]
OBSERVED = [name for name, case in devices.CASES.items() if case.observe_every]
on_both = pytest.mark.backends("jax", "tensorflow")
on_jax = pytest.mark.backends("jax")
on_tensorflow = pytest.mark.backends("tensorflow")


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the results of `oracles.devices` in a process with two devices."""
    file = tmp_path_factory.mktemp("devices") / "two_devices.json"
    tests = pathlib.Path(devices.__file__).parents[1]
    two = (
        {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"}
        if BACKEND == "jax"
        else {}
    )
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, **two}
    subprocess.run([sys.executable, "-m", "oracles.devices", file], cwd=tests, env=environment, check=True)
    return json.loads(file.read_text("utf-8"))


def arrays(lists: list) -> list[np.ndarray]:
    return [np.array(values) for values in lists]


def assert_same(actual: dict, expected: dict) -> None:
    assert_same_weights(arrays(actual["weights"]), arrays(expected["weights"]))
    np.testing.assert_allclose(actual["forces"], expected["forces"], rtol=1e-4, atol=1e-6)
    assert actual["history"].keys() == expected["history"].keys()
    for key, values in expected["history"].items():
        np.testing.assert_allclose(actual["history"][key], values, rtol=1e-5)


# ---------------------------------------------------------------- the batch is split


@on_both
@pytest.mark.parametrize("name", BY_DATA)
def test_two_devices_that_share_a_batch_give_the_weights_of_one_device(two_devices: dict, name: str) -> None:
    """And the losses, the penalties' values, the observed forces."""
    assert_same(two_devices["data"][name], two_devices["one"][name])


@on_both
def test_the_penalty_counts_once_as_the_keras_regularizer_of_one_device(two_devices: dict) -> None:
    stock = devices.net(kernel_regularizer=keras.regularizers.L2(0.05), bias_regularizer=keras.regularizers.L1(0.5))
    models.fitted(models.compiled(keras.optimizers.Adam(0.02), stock), **devices.TWELVE_STEPS)

    assert_same_weights(arrays(two_devices["data"]["coupled Adam"]["weights"]), stock)


@on_both
@pytest.mark.parametrize("name", OBSERVED)
def test_there_is_something_to_compare(two_devices: dict, name: str) -> None:
    reported = two_devices["data"][name]
    assert all(value > 0 for value in reported["history"]["penalty"])
    assert (np.array(reported["forces"])[:, :2] > 0).all()
    assert name != "proximal Adam" or 0.0 < np.mean(np.array(reported["weights"][0]) == 0.0) < 1.0


@on_both
def test_forces_on_data_are_those_of_one_device(two_devices: dict) -> None:
    np.testing.assert_allclose(two_devices["data"]["on data"], two_devices["one"]["on data"], rtol=1e-4, atol=1e-6)


@on_tensorflow
def test_forces_on_data_are_the_same_outside_the_scope(two_devices: dict) -> None:
    outside = two_devices["data"]["on data, outside the scope"]
    np.testing.assert_allclose(outside, two_devices["one"]["on data"], rtol=1e-4, atol=1e-6)


@on_tensorflow
def test_the_replicas_hold_the_same_to_the_bit(two_devices: dict) -> None:
    assert len(two_devices["copies"]) > 100
    for each, other in two_devices["copies"]:
        assert each == other


@on_tensorflow
def test_an_embedding_without_a_penalty_is_trained_the_same(two_devices: dict) -> None:
    assert_same_weights(arrays(two_devices["data"]["words"]), arrays(two_devices["one"]["words"]))


@on_tensorflow
def test_a_loop_by_hand_in_a_strategy_gives_what_fit_gives(two_devices: dict) -> None:
    assert_same_weights(arrays(two_devices["by hand"]), arrays(two_devices["one"]["proximal SGD"]["weights"]))


@on_tensorflow
def test_callbacks_that_cannot_be_shown_are_refused(two_devices: dict) -> None:
    assert "is not supported under MirroredStrategy" in two_devices["accumulated"]
    assert "poise.PenalizedOptimizer does not support CollectiveAllReduceStrategy" in two_devices["of workers"]
    assert two_devices["on one"] == ""


# ---------------------------------------------------------------- the kernels are split


@on_jax
@pytest.mark.parametrize("name", devices.SHARDED["model"])
def test_sharded_kernels_give_the_weights_of_whole_ones(two_devices: dict, name: str) -> None:
    assert_same(two_devices["model"][name], two_devices["one"][name])


@on_jax
def test_forces_on_data_are_those_of_whole_kernels(two_devices: dict) -> None:
    np.testing.assert_allclose(two_devices["model"]["on data"], two_devices["one"]["on data"], rtol=1e-4, atol=1e-6)


@on_jax
def test_start_trace_and_average_are_sharded_as_their_kernel(two_devices: dict) -> None:
    shards = {path.split("/", 1)[1]: shapes for path, shapes in two_devices["model"]["shards"].items()}

    assert shards["features/kernel"] == [[6, 4], [6, 4]]
    assert shards["net_features_kernel_start"] == [[6, 4], [6, 4]]
    assert shards["net_features_kernel_average"] == [[6, 4], [6, 4]]
    assert shards["net_features_bias_step_trace"] == [[4], [4]]
    assert shards["net_middle_kernel_average"] == [[4, 4], [4, 4]]
