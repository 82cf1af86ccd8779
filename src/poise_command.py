"""The console script `poise`. It stands beside the package, so that it decides before anything of that is imported."""

import contextlib
import os
import signal
import sys
from typing import NoReturn

BACKENDS = ("jax", "tensorflow", "torch")
BAD_INPUT = 2


def main() -> None:
    """Runs on JAX unless KERAS_BACKEND says otherwise; Ctrl-C ends it without a word while modules are imported."""
    fill_closed_streams()
    leave_out_working_directory()
    backend = os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "jax"
    if backend not in BACKENDS:
        refuse(f"KERAS_BACKEND must be one of {', '.join(BACKENDS)}, got {backend!r}. Without it, poise runs on JAX.")
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from poise.cli.app import app
        from poise.cli.screen import prepare_streams
    except ImportError as error:
        if error.name not in BACKENDS:
            raise
        refuse(str(error))

    signal.signal(signal.SIGINT, before)
    prepare_streams()
    app(prog_name="poise")


def refuse(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(BAD_INPUT)


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
