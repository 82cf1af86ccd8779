"""What all commands do on a terminal: text, tables that fit it, data, and a progress bar."""

import codecs
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TextIO

import typer

from poise.escaping import escape_controls

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 160
REPLACEMENTS = {
    "−": "-", "–": "-", "—": "-", "…": "...", "×": "x", "·": "*", "≥": ">=", "≤": "<=", "±": "+-", "²": "^2",
    "’": "'", "‘": "'", "“": '"', "”": '"', "λ": "lambda", "│": "|", "─": "-", "━": "-", "╸": "-", "╺": "-",
}  # fmt: skip
"""What a console shows whose encoding lacks a character; other characters are escaped."""


def prepare_streams() -> None:
    """Replace characters that the console's encoding lacks, and open the streams of a process without any."""
    codecs.register_error("poise.plain", _replace_unencodable)
    sys.stdout, sys.stderr = _open(sys.stdout), _open(sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="poise.plain")


def console() -> "Console":
    """Return the standard output: as wide as the terminal or as COLUMNS, else wide enough for a table."""
    from rich.console import Console

    screen = Console()
    return screen if screen.is_terminal or os.environ.get("COLUMNS") else Console(width=WIDTH_WITHOUT_TERMINAL)


def say(line: object) -> None:
    """Print a line."""
    typer.echo(escape_controls(line))


def say_data(text: str) -> None:
    """Print data for programs in UTF-8, whatever the console's encoding; escaped line by line on a terminal."""
    if sys.stdout.isatty():
        for line in text.splitlines():
            say(line)
    else:
        typer.echo(text.encode("utf-8", "backslashreplace"), nl=False)


def complain(sentence: object, style: str = "red") -> None:
    """Print a sentence on the error stream."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text(escape_controls(sentence), style=style), soft_wrap=True)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """Show a bar on the error stream if it is a terminal.

    Ctrl-C raises KeyboardInterrupt in the next update too, because Python drops it in callbacks such as `__del__`.

    Args:
        quiet: Whether to show nothing.

    Yields:
        A function that takes the share of finished work and what is being done.
    """
    from rich.console import Console

    from poise.path.progress import show_progress

    screen, is_stopped = Console(stderr=True), False
    with show_progress("starting", not quiet and screen.is_terminal, screen) as show:

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal is_stopped
            is_stopped = True
            raise KeyboardInterrupt

        def update(share: float, activity: str) -> None:
            if is_stopped:
                raise KeyboardInterrupt
            show(share, activity)

        handler = signal.getsignal(signal.SIGINT)
        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, stop)
        try:
            yield update
        finally:
            if handler is signal.default_int_handler:
                signal.signal(signal.SIGINT, handler)


def _open(stream: TextIO | None) -> TextIO:
    """Return the stream; a process that was started without one has None."""
    return stream or open(os.devnull, "w", encoding="utf-8")


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(REPLACEMENTS.get(character, character) for character in error.object[error.start : error.end])
    return text.encode(error.encoding, "backslashreplace").decode(error.encoding), error.end
