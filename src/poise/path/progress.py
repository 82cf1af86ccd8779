"""The progress bar, in a terminal and in notebooks."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextlib.contextmanager
def show_progress(
    activity: str, is_shown: bool, console: Console | None = None
) -> Iterator[Callable[[float, str | None], None]]:
    """Show a progress bar while work is done.

    Args:
        activity: Text before the bar.
        is_shown: Whether to show it.
        console: Where to show it. Default: None, the standard output.

    Yields:
        A function that takes the share of finished work, and another text before the bar or None.
    """
    console = Console() if console is None else console
    if console.is_jupyter and is_shown:
        yield _NotebookLine(
            activity
        ).show  # Rich needs ipywidgets for a bar that moves, and prints a warning without them
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not is_shown, transient=True) as progress:
        task = progress.add_task(activity, total=1.0)
        yield lambda share, text: progress.update(task, completed=share, description=text)


class _NotebookLine:
    """One line of a notebook's output, which is replaced: a saved notebook has only the last one."""

    def __init__(self, activity: str) -> None:
        from IPython.display import display

        self.activity, self.percent = activity, 0
        self.handle: Any = display(self._line(), raw=True, display_id=True)

    def show(self, share: float, text: str | None) -> None:
        self.activity, percent = text or self.activity, int(100 * share)
        if percent != self.percent:
            self.percent = percent
            self.handle.update(self._line(), raw=True)

    def _line(self) -> dict[str, str]:
        return {"text/plain": f"{self.activity} {self.percent}%"}
