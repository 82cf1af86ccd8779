"""A progress bar in the terminal and in notebooks."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextlib.contextmanager
def show_progress(name: str, is_shown: bool) -> Iterator[Callable[[float], None]]:
    """Show a progress bar, and yield the function that sets the share that is done.

    Args:
        name: text before the bar.
        is_shown: whether to show it.
    """
    console = Console()
    if console.is_jupyter and is_shown:
        # Rich needs ipywidgets for a bar that moves, and prints a warning without them.
        yield lambda share: print(f"\r{name} {share:4.0%}", end="" if share < 1 else "\n", flush=True)
        return
    columns = [
        TextColumn(name), BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    ]  # fmt: skip
    with Progress(*columns, console=console, disable=not is_shown, transient=True) as progress:
        task = progress.add_task(name, total=1.0)
        yield lambda share: progress.update(task, completed=share)
