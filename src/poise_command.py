"""The console script `poise`. It stands beside the package, so that it decides before anything of that is imported."""

import contextlib
import importlib.util
import os
import signal
import sys


def main() -> None:
    """Runs on JAX unless KERAS_BACKEND says otherwise; Ctrl-C ends it without a word while modules are imported."""
    fill_closed_streams()
    leave_out_working_directory()
    os.environ.setdefault("KERAS_BACKEND", "jax")
    problem = backend_problem(os.environ["KERAS_BACKEND"])
    if problem:
        print(f"Error: {problem}", file=sys.stderr)
        sys.exit(2)
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from poise.cli import app
    from poise.terminal.screen import prepare_streams

    signal.signal(signal.SIGINT, before)
    prepare_streams()
    app(prog_name="poise")


def backend_problem(backend: str) -> str:
    """Why Keras cannot run on a backend, and what to do; "" if it can."""
    if backend not in ("jax", "tensorflow", "torch"):
        return f"KERAS_BACKEND is {backend!r}. Set it to 'jax', 'tensorflow' or 'torch', or unset it to run on JAX."
    if importlib.util.find_spec(backend) is None:
        return (
            f'KERAS_BACKEND is {backend!r}, which is not installed. Install it with: pip install "poise[{backend}]", '
            "or unset KERAS_BACKEND to run on JAX."
        )
    return ""


def fill_closed_streams() -> None:
    """Opens a stream that is closed to nowhere: the first file that is opened would otherwise become the output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which gets the lowest number that is free


def leave_out_working_directory() -> None:
    """Takes the working directory from where Python looks for modules, unless PYTHONPATH names it.

    `python -c` and `python -m` put it first, and an empty entry of PYTHONPATH means it. A file in it that happens to be
    called like a module would be run.
    """
    with contextlib.suppress(FileNotFoundError):  # it was deleted
        here, home = os.getcwd(), os.path.dirname(os.path.abspath(__file__))
        named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if here not in (home, *(os.path.abspath(place) for place in named if place)):
            first = 1 + len(named)
            sys.path[:first] = [place for place in sys.path[:first] if os.path.abspath(place) != here]


if __name__ == "__main__":
    main()
