"""The console script `poise`. It lies beside the package, so that it runs before anything of the package does."""

import contextlib
import os
import sys
from typing import NoReturn

BACKENDS = ("jax", "tensorflow", "torch")
BAD_INPUT = 2


def main() -> None:
    """Run the command, on JAX unless KERAS_BACKEND names another backend."""
    fill_closed_streams()
    leave_out_working_directory()
    backend = os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "jax"
    if backend not in BACKENDS:
        refuse(f"KERAS_BACKEND must be one of {', '.join(BACKENDS)}, got {backend!r}. Unset it to use JAX.")
    if backend != "tensorflow":
        silence_tensorflow()
    from poise.cli.app import app
    from poise.cli.screen import prepare_streams

    prepare_streams()
    app(prog_name="poise")


def silence_tensorflow() -> None:
    """Keep TensorFlow from logging to the error stream: Keras imports it on every backend if it is installed.

    Its note about oneDNN ignores TF_CPP_MIN_LOG_LEVEL, and appears unless oneDNN is off.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def refuse(sentence: str) -> NoReturn:
    """Print a sentence on the error stream and exit."""
    print(sentence, file=sys.stderr)
    raise SystemExit(BAD_INPUT)


def fill_closed_streams() -> None:
    """Connect closed standard streams to nowhere: the first file to be opened would otherwise become the output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number


def leave_out_working_directory() -> None:
    """Remove the working directory from the search path for modules, unless PYTHONPATH names it.

    `python -c` and `python -m` put it first, and an empty entry of PYTHONPATH means it. Python would run any file in it
    that has the name of an imported module.
    """
    with contextlib.suppress(FileNotFoundError):  # the directory was deleted
        here, home = os.getcwd(), os.path.dirname(os.path.abspath(__file__))
        entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if here not in (home, *(os.path.abspath(entry) for entry in entries if entry)):
            count = 1 + len(entries)
            sys.path[:count] = [entry for entry in sys.path[:count] if os.path.abspath(entry) != here]


if __name__ == "__main__":
    main()
