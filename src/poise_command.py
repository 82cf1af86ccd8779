"""The console script `poise`. It stands beside the package, so that it decides before anything of that is imported."""

import os
import signal


def main() -> None:
    """Runs on JAX unless KERAS_BACKEND says otherwise; Ctrl-C ends it without a word while modules are imported."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from poise.cli import app

    signal.signal(signal.SIGINT, before)
    app(prog_name="poise")
