"""A path on a Ray cluster of two machines is that of one process, also when workers, machines and memory fail."""

import os
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pandas as pd
import pytest
import ray
from ray import cluster_utils

import poise
from poise.path.executors import in_process, ray_executor
from poise.path.executors.ray_executor import Remote

# Ray starts its processes by a fork that becomes another program at once.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

TRAINED = """
import keras, numpy as np, poise

def trained(engine, checkpoint=None, **changed):
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


@pytest.fixture(scope="module")
def machines():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
        cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        cluster.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", cluster.address)
        ray.init(cluster.address, log_to_driver=False, logging_level="error")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(machines):
    return trained("ray")


@pytest.fixture(scope="module")
def here():
    return trained("in_process")


def assert_same(path, other, exactly=True):
    mine, theirs = (one.lanes.table.drop(columns="seconds") for one in (path, other))
    assert mine.columns.equals(theirs.columns)
    for name in mine:
        equal(mine[name].to_numpy("float64"), theirs[name].to_numpy("float64"), exactly)
    for a, b in zip(path.lanes.weights, other.lanes.weights, strict=True):
        equal(a, b, exactly)


def equal(a, b, exactly):
    if exactly:
        np.testing.assert_array_equal(a, b)
    else:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def begun_with(monkeypatch, tampered):
    """Tasks are given to the cluster as `tampered(problem, task)`, a function that travels by value."""
    begun = Remote._begun

    def other(self, task):
        with monkeypatch.context() as patch:
            patch.setattr(ray_executor, "_solved", tampered)
            return begun(self, task)

    monkeypatch.setattr(Remote, "_begun", other)


def test_the_cluster_trains_what_one_process_does(undisturbed, here):
    assert_same(undisturbed, here, exactly=False)
    assert not undisturbed.table["failed"].any()


def test_adaptive_stages_and_patience_run_on_the_cluster(machines):
    changed = {"adaptive": 1, "relax": True}
    assert_same(trained("ray", **changed), trained("in_process", **changed), exactly=False)
    changed = {"training": poise.Training(epochs=6, patience=1, settle=0)}
    assert_same(trained("ray", **changed), trained("in_process", **changed), exactly=False)


def test_the_size_of_a_chunk_is_measured_on_a_machine(undisturbed, monkeypatch):
    asked, fastest = [], Remote.fastest
    monkeypatch.setattr(in_process, "MANY", 0)
    monkeypatch.setattr(Remote, "fastest", lambda *given: asked.append(fastest(*given)) or asked[-1])
    assert_same(trained("ray"), undisturbed, exactly=False)
    assert set(asked) <= {1, 4}
    assert asked


def test_a_worker_killed_in_the_middle_of_a_chunk_changes_nothing(undisturbed, monkeypatch, tmp_path):
    marker = str(tmp_path / "killed")

    def killed(problem, task):
        from poise.path.executors.ray_executor import _solved
        from poise.path.lanes import program

        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return _solved(problem, task)
        program.Program._settled = lambda *_: os.kill(os.getpid(), 9)  # its epochs are trained by then
        return _solved(problem, task)

    begun_with(monkeypatch, killed)
    found = trained("ray")
    assert os.path.exists(marker)
    assert_same(found, undisturbed)


def test_a_machine_lost_in_the_middle_of_a_path_changes_nothing(machines, undisturbed, monkeypatch, tmp_path):
    doomed, marker = machines.add_node(num_cpus=1), str(tmp_path / "began")
    machines.wait_for_nodes()
    name = doomed.node_id

    def stuck(problem, task):
        from poise.path.executors.ray_executor import _solved

        if ray.get_runtime_context().get_node_id() == name:
            open(marker, "w").close()
            time.sleep(600)
        return _solved(problem, task)

    def lose():
        while not os.path.exists(marker):
            time.sleep(0.05)
        machines.remove_node(doomed, allow_graceful=False)

    monkeypatch.setattr(
        ray_executor, "_slots", lambda *_: dict.fromkeys([node["NodeID"] for node in ray.nodes()][:2], 1)
    )
    begun_with(monkeypatch, stuck)
    thread = threading.Thread(target=lose)
    thread.start()
    found = trained("ray")
    thread.join()
    assert_same(found, undisturbed)


def test_a_chunk_too_large_for_the_memory_is_halved(undisturbed, monkeypatch):
    sizes = []

    def short(problem, task):
        from poise.path.executors.ray_executor import _solved

        if task.lanes["lanes"].size > 1:
            raise MemoryError("too many lanes")
        return _solved(problem, task)

    halved = ray_executor._Piece.halved

    def counted(self):
        sizes.append(self.task.lanes["lanes"].size)
        return halved(self)

    monkeypatch.setattr(ray_executor._Piece, "halved", counted)
    begun_with(monkeypatch, short)
    assert_same(trained("ray"), undisturbed, exactly=False)
    assert max(sizes) > 1


def test_lanes_that_fail_every_time_are_told_and_the_rest_is_kept(undisturbed, monkeypatch):
    def broken(problem, task):
        from poise.path.executors.ray_executor import _solved

        if 0.3 in task.lanes["strengths"] and not len(ray.get(task.lanes["replicas"])[0].held):
            raise ArithmeticError("no luck")
        return _solved(problem, task)

    begun_with(monkeypatch, broken)
    with pytest.warns(UserWarning, match="lanes could not be trained and are told as failed: .*no luck"):
        found = trained("ray")
    failed = found.lanes.table["failed"].to_numpy(bool)
    assert failed.any()
    assert not failed.all()
    assert (found.lanes.table["fold"][failed] == -1).all()
    assert (found.table["failed"] > 0).tolist() == [strength in (0.3, 1.0) for strength in found.strengths]
    assert found.best_strength in found.strengths[:2]
    kept = found.lanes.table[~failed].drop(columns="seconds")
    expected = undisturbed.lanes.table[~failed].drop(columns="seconds")
    np.testing.assert_array_equal(kept.to_numpy("float64"), expected.to_numpy("float64"))


def test_another_version_on_a_machine_is_told(machines, monkeypatch):
    monkeypatch.setattr(ray_executor, "version", lambda name: "9.9")
    with pytest.raises(RuntimeError, match="has poise .*, and the path is one of poise 9.9. Install the same version"):
        trained("ray")


def test_an_error_of_the_first_chunk_is_raised(machines, monkeypatch):
    def broken(problem, task):
        raise ArithmeticError("no luck")

    begun_with(monkeypatch, broken)
    with pytest.raises(ArithmeticError, match="no luck"):
        trained("ray")


KILLED = """
import os, sys
moves, os_replace = [], os.replace
def replace(*names):
    moves.append(names)
    if len(moves) == 5:
        os.kill(os.getpid(), 9)
    os_replace(*names)
os.replace = replace
trained("ray", sys.argv[1])
"""


def test_a_driver_that_was_killed_goes_on(machines, undisturbed, tmp_path, monkeypatch):
    ended = subprocess.run([sys.executable, "-c", TRAINED + KILLED, tmp_path], timeout=180)
    assert ended.returncode == -signal.SIGKILL
    before = {file.name for file in tmp_path.glob("chunk-*")}
    assert before
    begun, begin = [], Remote._begun
    monkeypatch.setattr(Remote, "_begun", lambda self, task: begun.append(task) or begin(self, task))
    assert_same(trained("ray", tmp_path), undisturbed)
    after = {file.name for file in tmp_path.glob("chunk-*")}
    assert before < after
    assert len(begun) == len(after) - len(before)
    assert len(after) > 4  # more than are given out at once
    assert_same(trained("ray", tmp_path), undisturbed)
    assert len(begun) == len(after) - len(before)


def test_the_same_from_a_process_of_its_own(machines, undisturbed, monkeypatch):
    """As from TensorFlow and PyTorch: a process that runs JAX drives the cluster."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    assert_same(trained("ray"), undisturbed)


def test_a_study_runs_on_the_cluster(machines):
    small = {"penalties": ["l2"], "strengths": 3, "cv": 2, "max_iter": 20}
    there, here = (poise.run_study("wine", **small, executor=engine).results for engine in ("ray", "in_process"))
    there, here = there.drop(columns="seconds"), here.drop(columns="seconds")
    pd.testing.assert_frame_equal(there, here, rtol=1e-4)


def test_a_task_that_no_machine_can_take_is_refused(machines):
    with pytest.raises(ValueError, match="No machine of the Ray cluster can take a task of 64 cores"):
        trained(poise.RayCluster(num_cpus=64))


def test_no_cluster_at_the_address(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("nobody answers")))
    with pytest.raises(ConnectionError, match="No Ray cluster can be reached at '10.0.0.1:6379': nobody answers"):
        trained(poise.RayCluster("10.0.0.1:6379"))


def test_without_ray_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "poise\[ray\]"'):
        trained("ray")


def test_batches_that_pass_by_stay_here():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    batch = (np.zeros((4, 3), "float32"), np.zeros((4, 1), "float32"))

    class Batches:
        def __iter__(self):
            return iter([batch, batch])

    with pytest.raises(ValueError, match="Give arrays, or use executor='auto'"):
        poise.fit_path(model, Batches(), rules=poise.L1(), executor="ray", progress=False)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"num_cpus": 0}, ValueError, r"RayCluster\(num_cpus=0\): give a number > 0"),
        ({"num_cpus": None}, TypeError, r"RayCluster\(num_cpus=None\): give a number\."),
        ({"num_gpus": -1}, ValueError, r"RayCluster\(num_gpus=-1\): give a number ≥ 0"),
        ({"memory": "2G"}, TypeError, r"RayCluster\(memory='2G'\): give a number or None"),
    ],
)
def test_wrong_numbers(given, error, message):
    with pytest.raises(error, match=message):
        poise.RayCluster(**given)
