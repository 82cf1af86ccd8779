"""The progress bar, in a terminal and in notebooks."""

import contextlib
from collections.abc import Callable, Iterator

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

        def print_share(share: float, text: str | None) -> None:
            print(f"\r{text or activity} {share:4.0%}", end="" if share < 1 else "\n", flush=True)

        yield print_share  # Rich needs ipywidgets for a bar that moves, and prints a warning without them
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not is_shown, transient=True) as progress:
        task = progress.add_task(activity, total=1.0)
        yield lambda share, text: progress.update(task, completed=share, description=text)
