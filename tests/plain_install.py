"""A Python process as it is after a plain `pip install poise`: JAX, without TensorFlow and PyTorch."""

import os
import subprocess
import sys
from typing import Any

HIDING = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in ("tensorflow", "torch") else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""


def run(code, home, *arguments, **environment) -> Any:
    """Run code with no settings of Keras and XLA, and no backend chosen unless `environment` names one."""
    unset = ("KERAS_BACKEND", "KERAS_HOME", "XLA_FLAGS")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "-c", HIDING + code, *arguments],
        env=inherited | {"HOME": str(home)} | environment,
        capture_output=True,
        text=True,
    )
