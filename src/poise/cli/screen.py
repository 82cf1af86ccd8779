"""What all commands do on a terminal: tables of its width, a bar, and one sentence where a user can mend something."""

import codecs
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from poise.escaping import visible

FAULT, BAD_INPUT, INTERRUPTED = 1, 2, 130
EXIT_CODES = "Exit codes: 0 done, 1 a fault of poise, 2 bad input, 130 interrupted."
WIDEST = 160
"""Columns of a table that is not written to a terminal."""
PLAIN = {
    "−": "-", "–": "-", "—": "-", "…": "...", "×": "x", "·": "*", "≥": ">=", "≤": "<=", "±": "+-", "²": "^2",
    "’": "'", "‘": "'", "“": '"', "”": '"', "λ": "lambda", "│": "|", "─": "-", "━": "-", "╸": "-", "╺": "-",
}  # fmt: skip
"""What is written instead where a console does not have a character; others are escaped."""


class BadInputError(ValueError):
    """What a user can mend. The text says what, why and what to do instead."""


class FaultError(Exception):
    """A result that poise itself finds to be wrong."""


def prepare_streams() -> None:
    """Lets a console whose encoding lacks a character show another, and one that is closed take what is written."""
    codecs.register_error("poise.plain", _plainer)
    sys.stdout, sys.stderr = _open(sys.stdout), _open(sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="poise.plain")


def console() -> Console:
    """As wide as the terminal; wide enough for a table where there is none."""
    made = Console()
    return made if made.is_terminal else Console(width=WIDEST)


def say(line: object) -> None:
    """A line on the standard output."""
    typer.echo(visible(line))


def say_data(text: str) -> None:
    """What machines read, in UTF-8 whatever the console's encoding; a terminal shows it line by line, escaped."""
    if sys.stdout.isatty():
        for line in text.splitlines():
            say(line)
    else:
        typer.echo(text.encode("utf-8", "backslashreplace"), nl=False)


def complain(sentence: object, style: str = "red") -> None:
    """A sentence on the error stream."""
    Console(stderr=True).print(Text(visible(sentence), style=style), soft_wrap=True)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """A bar on the terminal's error stream, with what is being done and the time left.

    Ctrl-C ends what advances it, also where Python drops a KeyboardInterrupt, as in one of its callbacks.
    """
    console, what = Console(stderr=True), TextColumn("{task.description}", markup=False)
    columns = (what, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars:
        bar = bars.add_task("starting", total=1.0)

        is_stopped = False

        def stop(number, frame):
            nonlocal is_stopped
            is_stopped = True
            raise KeyboardInterrupt

        def advance(share: float, doing: str) -> None:
            if is_stopped:
                raise KeyboardInterrupt
            bars.update(bar, completed=share, description=doing)

        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, stop)
        try:
            yield advance
        finally:
            if before is signal.default_int_handler:
                signal.signal(signal.SIGINT, before)


@contextmanager
def plain_errors(farewell: Callable[[], str] | None = None) -> Iterator[None]:
    """One sentence instead of a traceback, for what a user can mend.

    Args:
        farewell: what is said when the command is stopped.
    """
    try:
        yield
    except KeyboardInterrupt:
        complain(farewell() if farewell else "Stopped.")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise  # who read the output has enough: Click ends quietly
    except OSError as error:
        complain(refusal(error))
        raise typer.Exit(BAD_INPUT) from None
    except MemoryError:
        complain("There is not enough memory. Use fewer rows, --strengths, --cv or --hidden-layer-sizes units.")
        raise typer.Exit(BAD_INPUT) from None
    except FaultError as error:
        complain(error)
        raise typer.Exit(FAULT) from None
    except ValueError as error:
        if not _can_be_mended(error):
            raise
        complain(error)
        raise typer.Exit(BAD_INPUT) from None


def refusal(error: OSError) -> str:
    """What the system refuses, in a sentence; errors of poise are one already."""
    if error.errno is None:
        return str(error)
    what = "The output" if error.filename is None else f"{os.fsdecode(error.filename)!r}"
    mend = "Free some space" if error.errno == errno.ENOSPC else "Correct that"
    return f"{what} cannot be used: {error.strerror}. {mend}, and run the same command again."


def _can_be_mended(error: ValueError) -> bool:
    if isinstance(error, BadInputError):
        return True
    from poise.study.sources import DataError

    return isinstance(error, DataError)


def _open(stream: TextIO | None) -> TextIO:
    """A stream of a process that was started without one is None in Python."""
    return stream or open(os.devnull, "w", encoding="utf-8")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = (PLAIN.get(one, one) for one in error.object[error.start : error.end])
    encoded = "".join(shown).encode(error.encoding, "backslashreplace")
    return encoded.decode(error.encoding), error.end
