"""What a command says when it fails: one sentence on the error stream, and an exit code.

Only here, and in the commands, do messages name options: errors of the library name an argument, or have a class.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import typer

from poise.cli.screen import complain
from poise.files import DISK_FULL, CannotWriteError, OutputExistsError

INTERNAL_ERROR, BAD_INPUT, INTERRUPTED = 1, 2, 130
EXIT_CODES = "Exit codes: 0 success, 1 internal error, 2 invalid input, 130 interrupted."
BACKENDS = ("jax", "tensorflow", "torch")
OPTIONS = {
    "hidden_layer_sizes": "--hidden-layer-sizes", "learning_rate": "--learning-rate",
    "class_weight": "--class-weight", "tweedie_power": "--tweedie-power",
    "max_false": "--max-false", "max_iter": "--max-iter", "n_init": "--n-init", "penalties": "--penalty",
    "skip_rows": "--skip-rows", "text_encoding": "--text-encoding", "time_column": "--time",
    "time_to_event": "--time-to-event", "types": "--type",
    **{
        name: f"--{name}"
        for name in (
            "choose", "comment", "cv", "decimal", "delimiter", "encoding", "event", "executor", "exposure", "offset",
            "quantiles", "seed", "selection", "sheet", "sparse", "strengths", "task", "test",
        )
    },
}  # fmt: skip
"""Arguments that messages of the library start with, or set as in `skip_rows=2`, and the options that set them."""


class BadInputError(ValueError):
    """Raised for input that a user can correct. The message says what is wrong, the value, and what to do."""


class InternalError(Exception):
    """Raised when poise finds that its own result is wrong."""


@contextmanager
def plain_errors(hints: Mapping[str, str] | None = None, farewell: Callable[[], str] | None = None) -> Iterator[None]:
    """Run a command, and print one sentence instead of a traceback for what a user can correct.

    Args:
        hints: For an argument that an error names, the sentence to add to its message. Default: `None`.
        farewell: Returns what to print if the command is interrupted. Default: `None`.
    """
    try:
        yield
    except KeyboardInterrupt:
        complain(farewell() if farewell else "Stopped.")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise  # the reader of the output has closed it: Click ends quietly
    except OSError as error:
        complain(explain_os_error(error, hints or {}))
        raise typer.Exit(BAD_INPUT) from None
    except MemoryError:
        complain("Out of memory. Use fewer rows, strengths, folds or hidden units.")
        raise typer.Exit(BAD_INPUT) from None
    except ImportError as error:
        if error.name not in BACKENDS:
            raise
        complain(error)
        raise typer.Exit(BAD_INPUT) from None
    except InternalError as error:
        complain(error)
        raise typer.Exit(INTERNAL_ERROR) from None
    except ValueError as error:
        if not _can_be_corrected(error):
            raise
        complain(name_options(error, hints or {}))
        raise typer.Exit(BAD_INPUT) from None


def explain_os_error(error: OSError, hints: Mapping[str, str] | None = None) -> str:
    """Return a message about what the system refuses, or about an output that exists."""
    if isinstance(error, OutputExistsError):
        return f"{error.path} already exists. Pass --force to overwrite it."
    if isinstance(error, CannotWriteError) or error.errno is None:
        return name_options(error, hints or {})
    subject = "The output" if error.filename is None else f"{os.fsdecode(error.filename)!r}"
    is_forbidden = isinstance(error, PermissionError)
    fix = "Fix the permissions" if is_forbidden else "Fix the problem"
    remedy = "Free some disk space" if error.errno in DISK_FULL else fix
    verb = "written" if error.errno in (*DISK_FULL, errno.EIO) else "read or written"
    return f"{subject} cannot be {verb}: {error.strerror}. {remedy} and run the same command again."


def name_options(error: Exception, hints: Mapping[str, str]) -> str:
    """Return the message of an error with the option instead of the argument that it names, and its hint."""
    argument, message = getattr(error, "argument", ""), str(error)
    if argument in OPTIONS:
        for name, option in OPTIONS.items():
            message = re.sub(rf"\b{name}(?:=| >= )'?([\w-]+)'?", rf"{option} \1", message)
        message = re.sub(rf"^{argument}\b", OPTIONS[argument], message)
    return f"{message} {hints[argument]}" if argument in hints else message


def _can_be_corrected(error: ValueError) -> bool:
    if isinstance(error, BadInputError):
        return True
    from poise.study.errors import DataError

    return isinstance(error, DataError)
