"""The console script `poise`. It stands beside the package, so that it decides before anything of that is imported."""

import os
import signal
import sys

BACKENDS = ("jax", "tensorflow", "torch")
BAD_INPUT = 2


def main() -> None:
    """Runs on JAX unless KERAS_BACKEND says otherwise; Ctrl-C ends it without a word while modules are imported."""
    backend = os.environ.get("KERAS_BACKEND") or "jax"
    if backend not in BACKENDS:
        _refuse(f"KERAS_BACKEND must be one of {', '.join(BACKENDS)}, got {backend!r}. Without it, poise runs on JAX.")
    os.environ["KERAS_BACKEND"] = backend
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from poise.cli import app
    except ImportError as error:
        if error.name not in BACKENDS:
            raise
        _refuse(str(error))

    signal.signal(signal.SIGINT, before)
    app(prog_name="poise")


def _refuse(sentence: str) -> None:
    print(sentence, file=sys.stderr)
    raise SystemExit(BAD_INPUT)
