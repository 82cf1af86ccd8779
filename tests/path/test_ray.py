"""A path on a Ray cluster of two machines is that of one process, also when workers, machines and memory fail."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Never

import keras
import numpy as np
import pytest
import ray
from ray import cluster_utils

import poise
from poise.path import chunks
from poise.path.executors import ray_executor
from poise.path.executors.ray_executor import RayExecutor

# Ray starts its processes by a fork that becomes another program at once.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

TRAINED = """
import keras, numpy as np, poise
from poise.path import chunks

def trained(engine, checkpoint=None, **changed):
    chunks.NARROW = 2  # so that there are several chunks
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    dense = [keras.layers.Dense(4, "tanh"), keras.layers.Dropout(0.2), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *dense])
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    training = poise.Training(epochs=2, settle=10)
    given = {"strengths": [0.01, 0.1, 0.3, 1.0], "cv": 2, "training": training, "progress": False, **changed}
    return poise.fit_path(model, x, x[:, :1].copy(), poise.L1(), executor=engine, checkpoint=checkpoint, **given)
"""
exec(TRAINED)
trained = globals()["trained"]


@pytest.fixture(autouse=True, scope="module")
def _as_it_was() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "NARROW", chunks.NARROW)
        yield


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
        cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        cluster.add_node(num_cpus=1)
        assert cluster.address is not None
        patch.setenv("RAY_ADDRESS", cluster.address)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        ray.init(cluster.address, **options)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(machines) -> Any:
    return trained("ray")


@pytest.fixture(scope="module")
def here() -> Any:
    return trained("in_process")


def assert_same(path, other) -> None:
    mine, theirs = (each.lanes.table.drop(columns="seconds") for each in (path, other))
    assert mine.columns.equals(theirs.columns)
    for name in mine:
        np.testing.assert_array_equal(mine[name].to_numpy("float64"), theirs[name].to_numpy("float64"))
    for a, b in zip(path.lanes.weights, other.lanes.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def tamper(monkeypatch, tampered) -> None:
    """Tasks are submitted to the cluster as `tampered(problem, task)`, a function that is pickled by value."""
    submit = RayExecutor._submit

    def submit_tampered(self, task) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(ray_executor, "_train", tampered)
            return submit(self, task)

    monkeypatch.setattr(RayExecutor, "_submit", submit_tampered)


def test_the_cluster_trains_what_one_process_does(undisturbed, here) -> None:
    assert_same(undisturbed, here)
    assert not undisturbed.table["failed"].any()


def path_with_custom_settings(executor) -> Any:
    """A path in which each setting that does not reach the worker changes the numbers."""
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.003, beta_2=0.97, epsilon=1e-5), "mse")
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    return poise.fit_path(
        model, x, np.abs(x[:, :1]), poise.L1(), strengths=[1e-3, 0.01, 0.1, 0.3], cv=2, progress=False,
        training=poise.Training(epochs=5, batch_size=8, settle=20), executor=executor,
    )  # fmt: skip


def test_every_executor_gives_the_same_bits(machines) -> None:
    in_process = path_with_custom_settings("in_process")
    assert_same(path_with_custom_settings("subprocess"), in_process)
    assert_same(path_with_custom_settings("ray"), in_process)


def test_adaptive_stages_and_early_stopping_run_on_the_cluster(machines) -> None:
    changed = {"adaptive": 1, "relax": True, "training": poise.Training(epochs=6, settle=10, early_stopping=True)}
    assert_same(trained("ray", **changed), trained("in_process", **changed))


def test_the_size_of_a_chunk_is_measured_on_a_machine(undisturbed, monkeypatch) -> None:
    asked, fastest = [], RayExecutor.fastest_size
    monkeypatch.setattr(chunks, "LARGE", 0)
    monkeypatch.setattr(RayExecutor, "fastest_size", lambda *arguments: asked.append(fastest(*arguments)) or asked[-1])
    # Parts of another width sum in another order.
    np.testing.assert_allclose(trained("ray").table["val_loss"], undisturbed.table["val_loss"], rtol=1e-5)
    assert set(asked) <= {1, 4}
    assert asked


def test_a_worker_killed_in_the_middle_of_a_chunk_changes_nothing(undisturbed, monkeypatch, tmp_path) -> None:
    marker = str(tmp_path / "killed")

    def killed(problem, task) -> Any:
        from poise.path.executors.ray_executor import _train
        from poise.path.lanes.trainer import LaneTrainer

        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return _train(problem, task)
        trainer: Any = LaneTrainer
        trainer._settle = lambda *_: os.kill(os.getpid(), 9)  # its epochs are trained by then
        return _train(problem, task)

    tamper(monkeypatch, killed)
    result = trained("ray")
    assert os.path.exists(marker)
    assert_same(result, undisturbed)


def test_a_machine_lost_in_the_middle_of_a_path_changes_nothing(machines, undisturbed, monkeypatch, tmp_path) -> None:
    doomed, marker = machines.add_node(num_cpus=1), str(tmp_path / "began")
    machines.wait_for_nodes()
    name = doomed.node_id

    def stuck(problem, task) -> Any:
        from poise.path.executors.ray_executor import _train

        if ray.get_runtime_context().get_node_id() == name:
            open(marker, "w").close()
            time.sleep(600)
        return _train(problem, task)

    def lose() -> None:
        while not os.path.exists(marker):
            time.sleep(0.05)
        machines.remove_node(doomed, allow_graceful=False)

    monkeypatch.setattr(
        ray_executor, "count_slots", lambda *_: dict.fromkeys([node["NodeID"] for node in ray.nodes()][:2], 1)
    )
    tamper(monkeypatch, stuck)
    thread = threading.Thread(target=lose)
    thread.start()
    result = trained("ray")
    thread.join()
    assert_same(result, undisturbed)


def test_a_chunk_too_large_for_the_memory_is_halved(undisturbed, monkeypatch) -> None:
    sizes = []

    def short(problem, task) -> Any:
        from poise.path.executors.ray_executor import _train

        if task.lane_numbers.size > 1:
            raise MemoryError("too many lanes")
        return _train(problem, task)

    halve = ray_executor._Piece.halve

    def counted(self) -> Any:
        sizes.append(self.task.lane_numbers.size)
        return halve(self)

    monkeypatch.setattr(ray_executor._Piece, "halve", counted)
    tamper(monkeypatch, short)
    assert_same(trained("ray"), undisturbed)
    assert max(sizes) > 1


def test_lanes_that_fail_every_time_are_reported_and_the_others_kept(undisturbed, monkeypatch) -> None:
    def broken(problem, task) -> Any:
        from poise.path.executors.ray_executor import _train

        if 0.3 in task.strengths and not len(ray.get(task.replicas)[0].held):
            raise ArithmeticError("no luck")
        return _train(problem, task)

    tamper(monkeypatch, broken)
    with pytest.warns(
        UserWarning, match="trainings .* failed on the cluster and count as diverged: .*no luck.*The column 'failed'"
    ):
        result = trained("ray")
    failed = result.lanes.table["failed"].to_numpy(bool)
    assert failed.any()
    assert not failed.all()
    assert (result.lanes.table["fold"][failed] == -1).all()
    assert (result.table["failed"] > 0).tolist() == [strength in (0.3, 1.0) for strength in result.strengths]
    assert result.best_strength in result.strengths[:2]
    kept = result.lanes.table[~failed].drop(columns="seconds")
    expected = undisturbed.lanes.table[~failed].drop(columns="seconds")
    np.testing.assert_array_equal(kept.to_numpy("float64"), expected.to_numpy("float64"))


def test_another_version_on_a_machine_is_reported(machines, monkeypatch) -> None:
    monkeypatch.setattr(ray_executor, "version", lambda name: "9.9")
    with pytest.raises(RuntimeError, match="has poise .*, and this one has poise 9.9. Install the same version"):
        trained("ray")


def test_an_error_of_the_first_chunk_is_raised(machines, monkeypatch) -> None:
    def broken(problem, task) -> Never:
        raise ArithmeticError("no luck")

    tamper(monkeypatch, broken)
    with pytest.raises(ArithmeticError, match="no luck"):
        trained("ray")


KILLED = """
import os, sys
moves, os_replace = [], os.replace
def replace(*names):
    moves.append(names)
    if len(moves) == 6:
        os.kill(os.getpid(), 9)
    os_replace(*names)
os.replace = replace
trained("ray", sys.argv[1])
"""


def test_a_killed_driver_resumes(machines, undisturbed, tmp_path, monkeypatch) -> None:
    ended = subprocess.run([sys.executable, "-c", TRAINED + KILLED, tmp_path], timeout=180)
    assert ended.returncode == -signal.SIGKILL
    before = {file.name for file in tmp_path.glob("chunk-*")}
    assert before
    submitted, submit = [], RayExecutor._submit
    monkeypatch.setattr(RayExecutor, "_submit", lambda self, task: submitted.append(task) or submit(self, task))
    assert_same(trained("ray", tmp_path), undisturbed)
    after = {file.name for file in tmp_path.glob("chunk-*")}
    assert before < after
    assert len(submitted) == len(after) - len(before)
    assert len(after) > 4  # more than are given out at once
    assert_same(trained("ray", tmp_path), undisturbed)
    assert len(submitted) == len(after) - len(before)


def test_a_task_that_no_machine_can_take_is_refused(machines) -> None:
    with pytest.raises(ValueError, match="No machine of the Ray cluster can run a task of 64 cores"):
        trained(poise.RayCluster(num_cpus=64))


def test_no_cluster_at_the_address(monkeypatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("nobody answers")))
    with pytest.raises(ConnectionError, match="There is no Ray cluster at '10.0.0.1:6379': nobody answers"):
        trained(poise.RayCluster("10.0.0.1:6379"))


def test_without_ray_the_error_explains_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "poise\[ray\]"'):
        trained("ray")


def test_batches_that_pass_by_stay_here() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    batch = (np.zeros((4, 3), "float32"), np.zeros((4, 1), "float32"))

    class Batches:
        def __iter__(self) -> Any:
            return iter([batch, batch])

    with pytest.raises(ValueError, match="Pass arrays, or use executor='auto'"):
        poise.fit_path(model, Batches(), rules=poise.L1(), cv=2, executor="ray", progress=False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_cpus": 0}, ValueError, r"RayCluster\(num_cpus\) must be > 0, got 0"),
        ({"num_cpus": None}, TypeError, r"RayCluster\(num_cpus\) must be a number, got None"),
        ({"num_gpus": -1}, ValueError, r"RayCluster\(num_gpus\) must be >= 0, got -1"),
        ({"memory": "2G"}, TypeError, r"RayCluster\(memory\) must be a number or None, got '2G'"),
    ],
)
def test_wrong_numbers(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        poise.RayCluster(**arguments)


def test_failed_lanes_have_the_arrays_of_the_grid() -> None:
    """The coarse scan comes first, and predicts no held-out rows."""
    results = ray_executor._FailedResults()
    scan = {"measure/loss": np.zeros((1, 28), "float32"), "measure/failed": np.zeros((1, 28), bool)}
    results.record_shapes(scan)
    results.record_shapes({**scan, "measure/history_predictions": np.zeros((2, 4, 32, 9, 1), "float32")})
    task: Any = SimpleNamespace(shape=(2, 3), keeps_weights=[True, False])

    arrays = results.failed(task)

    assert arrays["measure/history_predictions"].shape == (2, 3, 32, 9, 1)
    assert np.isnan(arrays["measure/history_predictions"]).all()
    assert arrays["measure/failed"].all()
