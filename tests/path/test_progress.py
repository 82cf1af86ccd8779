"""The progress bar in a notebook: one line that is replaced."""

from typing import Any

import IPython.display
import pytest
from rich.console import Console

from poise.path.progress import show_progress


def test_a_notebook_keeps_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[list[str]] = []

    class Handle:
        def __init__(self, line: str) -> None:
            self.updates = [line]
            lines.append(self.updates)

        def update(self, data: dict[str, str], raw: bool) -> None:
            self.updates.append(data["text/plain"])

    def display(data: dict[str, str], **_: Any) -> Handle:
        return Handle(data["text/plain"])

    monkeypatch.setattr(IPython.display, "display", display)
    with show_progress("path", True, Console(force_jupyter=True)) as show:
        for share in (0.101, 0.102, 0.5):
            show(share, None)
        show(1.0, "refit")

    assert lines == [["path 0%", "path 10%", "path 50%", "refit 100%"]]
