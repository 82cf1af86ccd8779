"""A path that is killed goes on where it was, to the same numbers; what belongs to another path is refused."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Never

import keras
import numpy as np
import pytest

import poise
from poise.path import chunks
from poise.path.executors.checkpoints import Checkpoint
from poise.path.executors.in_process import InProcessExecutor
from poise.path.lanes.problem import Task
from poise.path.lanes.trainer import LaneTrainer
from poise.path.training import Replica, Training

SOLVED = """
import keras, numpy as np, poise
from poise.path import chunks
from poise.path.executors.in_process import InProcessExecutor

def solved(checkpoint=None, x_0=None, **changed):
    chunks.LARGE, chunks.PARTS, chunks.NARROW, InProcessExecutor.fastest_size = 0, 2, 1, lambda self, *_: 2
    keras.utils.clear_session()  # layers get the same names again
    keras.utils.set_random_seed(3)
    dense = [keras.layers.Dense(4, "tanh"), keras.layers.Dropout(0.2), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *dense])
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    y = x[:, :1].copy()
    if x_0 is not None:
        x[0, 0] = x_0
    given = {"rules": poise.L1(), "strengths": [0.01, 0.1, 1.0], "cv": 2, "training": poise.Training(epochs=2, settle=10)}
    return poise.fit_path(model, x, y, **{**given, **changed}, checkpoint=checkpoint, progress=False)
"""
KILLED = """
import os, sys
moves, os_replace = [], os.replace
def replace(*names):
    moves.append(names)
    if len(moves) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    os_replace(*names)
os.replace = replace
solved(sys.argv[1])
"""
exec(SOLVED)
solved = globals()["solved"]


@pytest.fixture(autouse=True, scope="module")
def _as_it_was() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "LARGE", chunks.LARGE)
        patch.setattr(chunks, "PARTS", chunks.PARTS)
        patch.setattr(chunks, "NARROW", chunks.NARROW)
        patch.setattr(InProcessExecutor, "fastest_size", InProcessExecutor.fastest_size)
        yield


@pytest.fixture(scope="module")
def undisturbed() -> Any:
    return solved()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("finished")
    solved(folder)
    return folder


def assert_same(path, other) -> None:
    mine, theirs = (each.lanes.table.drop(columns="seconds") for each in (path, other))
    assert mine.equals(theirs)
    for a, b in zip(path.lanes.weights, other.lanes.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("move", [1, 5])
def test_resumed_is_bit_for_bit_the_undisturbed(move, undisturbed, tmp_path) -> None:
    killed = subprocess.run([sys.executable, "-c", SOLVED + KILLED, tmp_path, str(move)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*.saving-*"))) == 1
    before = {file.name for file in tmp_path.glob("chunk-*")}
    assert len(before) == max(move - 4, 0)  # the description and two numbers about chunks come before
    assert_same(solved(tmp_path), undisturbed)
    assert before <= {file.name for file in tmp_path.glob("chunk-*")}


def test_finished_path_trains_nothing(finished, undisturbed, monkeypatch) -> None:
    monkeypatch.setattr(LaneTrainer, "run", None)
    assert_same(solved(finished), undisturbed)


CHANGES = {
    "data": {"x_0": 0.5},
    "strengths": {"strengths": [0.01, 0.1, 2.0]},
    "training": {"training": poise.Training(epochs=3, settle=10)},
    "rules": {"rules": poise.L1(2.0)},
    "cv": {"cv": 4},
    "stages": {"adaptive": 1},
}


@pytest.mark.parametrize("part", CHANGES)
def test_another_path_is_refused(part, finished, monkeypatch) -> None:
    monkeypatch.setattr(LaneTrainer, "run", None)
    with pytest.raises(ValueError, match=f"^The checkpoint '.*' was written by a different call \\({part} changed\\)"):
        solved(finished, **CHANGES[part])


def test_folder_that_is_not_a_checkpoint_is_refused(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"^The folder '.*' is not empty and not a checkpoint\. Use another folder\.$"):
        solved(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_size_of_a_chunk_is_measured_once(tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, data=np.ones(3))
    assert checkpoint.remember("lanes-5-32", lambda: 4) == 4
    assert Checkpoint(tmp_path, data=np.ones(3)).remember("lanes-5-32", lambda: 16) == 4


REPLICA = Replica(0, 0, np.arange(3), np.arange(3, 5))
TASK = Task(Training(), [REPLICA], np.zeros((1, 2)), np.ones((2, 1)), None, {(0, 1): np.ones(2)}, None, [True], 3, 2, 2)
OTHERS = [
    replace(TASK, replicas=[replace(REPLICA, fold=1)]),
    replace(TASK, replicas=[replace(REPLICA, held=np.arange(3, 6))]),
    replace(TASK, factors={(1, 0): np.ones(2)}),
    replace(TASK, factors={(0, 1): np.ones((2, 1))}),
    replace(TASK, lengths=np.ones(2)),
    replace(TASK, training=Training(epochs=3)),
]


def test_chunk_is_found_only_for_its_own_task(tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, data=keras.Variable([1.0]))
    result = {"measure/loss": np.array([[1.0, np.nan]]), "size/dense/kernel": np.zeros((1, 2, 3), "float32")}
    checkpoint.write(TASK, result)
    read = checkpoint.read(TASK)
    assert read is not None
    assert read.keys() == result.keys()
    for name, value in result.items():
        np.testing.assert_array_equal(read[name], value)
    assert all(checkpoint.read(other) is None for other in OTHERS)


def test_nothing_half_written_is_left_after_an_error(tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, data=1)

    class Broken:
        def __array__(self, *_, **__) -> None:
            raise OSError("no space left")

    broken: dict[str, Any] = {"loss": Broken()}
    with pytest.raises(OSError, match="no space left"):
        checkpoint.write(TASK, broken)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "path.json"]


# ---------------------------------------------------------------- damage and two processes


FOUND = {"loss": np.arange(6.0).reshape(2, 3), "size/dense/kernel": np.ones((1, 2), "float32")}


def _flipped(content, place) -> Any:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_damaged_chunk_is_trained_again(tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, data=1)
    checkpoint.write(TASK, FOUND)
    (file,) = tmp_path.glob("chunk-*")
    whole = file.read_bytes()
    damages = [whole[:size] for size in range(0, len(whole), 97)]
    damages += [_flipped(whole, place) for place in range(0, len(whole), 7)]

    for damage in damages:
        file.write_bytes(damage)
        result = checkpoint.read(TASK)
        assert result is None or all(np.array_equal(result[name], FOUND[name]) for name in FOUND)
    file.write_bytes(whole)
    assert checkpoint.read(TASK) is not None


def test_a_chunk_of_other_numbers_is_trained_again(tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, data=1)
    checkpoint.write(TASK, FOUND)
    (file,) = tmp_path.glob("chunk-*")
    with np.load(file) as stored:
        arrays = dict(stored)
    np.savez(file, **{**arrays, "loss": arrays["loss"] + 1})

    assert checkpoint.read(TASK) is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"null", b"\xff", b'{"content": {}, "checksum": 3}', b"[" * 99999]
)
def test_a_damaged_description_is_one_sentence(content, tmp_path) -> None:
    Checkpoint(tmp_path, data=1)
    (tmp_path / "path.json").write_bytes(content)

    with pytest.raises(ValueError, match=r"^The checkpoint '.*' is damaged \(path\.json cannot be read\)\."):
        Checkpoint(tmp_path, data=1)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"7", b'{"content": 7, "checksum": ""}'])
def test_a_damaged_size_of_a_chunk_is_measured_again(content, tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, data=1)
    checkpoint.remember("lanes-5", lambda: 4)
    (tmp_path / "lanes-5.json").write_bytes(content)

    assert checkpoint.remember("lanes-5", lambda: 16) == 16


HOLDING = """
import sys
from poise.path.executors.checkpoints import Checkpoint
checkpoint = Checkpoint(sys.argv[1], data=1)
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDING, tmp_path], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"^The checkpoint '.*' is in use by another process\."):
            Checkpoint(tmp_path, data=1)
        process.kill()
        process.wait()
    Checkpoint(tmp_path, data=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "path.json"]


@pytest.mark.parametrize("size", [0, 100])
def test_a_full_disk_is_one_sentence_that_explains_how_to_continue(size, tmp_path, monkeypatch) -> None:
    checkpoint = Checkpoint(tmp_path, data=1)

    def full(file, **_) -> Never:
        file.write_bytes(b"x" * size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(
        OSError, match=r"^The checkpoint '.*' cannot be read or written: No space left on device\. Free some disk space"
    ):
        checkpoint.write(TASK, FOUND)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "path.json"]
