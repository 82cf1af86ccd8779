"""What all commands do on a terminal: tables of its width, a bar, and one sentence where a user can mend something."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

FAULT, BAD_INPUT, INTERRUPTED = 1, 2, 130
EXIT_CODES = "Exit codes: 0 done, 1 a fault of poise, 2 bad input, 130 interrupted."
WIDEST = 160
"""Columns of a table that is not written to a terminal."""


class BadInputError(ValueError):
    """What a user can mend. The text says what, why and what to do instead."""


class FaultError(Exception):
    """A result that poise itself finds to be wrong."""


def console() -> Console:
    """As wide as the terminal; wide enough for a table where there is none."""
    made = Console()
    return made if made.is_terminal else Console(width=WIDEST)


def complain(sentence: str, style: str = "red") -> None:
    """A sentence on the error stream."""
    Console(stderr=True).print(Text(sentence, style=style), soft_wrap=True)


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
def plain_errors(unfinished: Path | None = None) -> Iterator[None]:
    """One sentence instead of a traceback, for what a user can mend.

    Args:
        unfinished: the folder in which a study keeps what is finished.
    """
    try:
        yield
    except KeyboardInterrupt:
        complain(_farewell(unfinished))
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise  # who read the output has enough: Click ends quietly
    except OSError as error:
        complain(str(error))
        raise typer.Exit(BAD_INPUT) from None
    except MemoryError:
        complain("There is not enough memory. Use fewer rows, --strengths, --folds or --hidden units.")
        raise typer.Exit(BAD_INPUT) from None
    except FaultError as error:
        complain(str(error))
        raise typer.Exit(FAULT) from None
    except ValueError as error:
        if not _can_be_mended(error):
            raise
        complain(str(error))
        raise typer.Exit(BAD_INPUT) from None


def _can_be_mended(error: ValueError) -> bool:
    if isinstance(error, BadInputError):
        return True
    from poise.studies.sources import DataError

    return isinstance(error, DataError)


def _farewell(unfinished: Path | None) -> str:
    if unfinished is None:
        return "Stopped."
    if any(unfinished.rglob("*.npz")):
        return f"Stopped. What is finished is kept in {str(unfinished)!r}; the same command goes on from there."
    shutil.rmtree(unfinished, ignore_errors=True)
    return "Stopped before anything was finished; nothing is kept."
