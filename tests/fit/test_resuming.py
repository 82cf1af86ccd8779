"""A process killed in the middle of an epoch, and the one that trains on, against a training that nothing disturbed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import interrupted
import numpy as np
import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the trainings that were killed and resumed."""
    folder = tmp_path_factory.mktemp("resumed")

    def run(command: str) -> int:
        program = [sys.executable, interrupted.__file__, command, str(folder)]
        return subprocess.run(program, env={**os.environ, "PYTHONPATH": str(TESTS)}, timeout=300).returncode

    assert run("kill") == -signal.SIGKILL
    assert not list(folder.glob("*/state.npz"))
    assert run("resume") == 0
    return folder


@pytest.mark.parametrize("kind", interrupted.KINDS)
def test_killed_and_resumed_training_ends_where_the_undisturbed_one_does(
    kind: str, resumed: Path, tmp_path: Path
) -> None:
    interrupted.train(kind, tmp_path)

    expected, result = (np.load(folder / kind / "state.npz") for folder in (tmp_path, resumed))
    assert expected.files == result.files
    for name in expected.files:
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-6, atol=1e-7)
    logs, rest = (json.loads((folder / kind / "logs.json").read_text()) for folder in (tmp_path, resumed))
    for key in ("loss", "penalty", "total_loss"):
        assert len(rest[key]) == interrupted.EPOCHS - interrupted.KILLED_IN[0]
        np.testing.assert_allclose(rest[key], logs[key][interrupted.KILLED_IN[0] :], rtol=1e-6)
