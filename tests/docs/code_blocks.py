"""The code blocks of a documentation page, as scripts that a reader would run.

A block that imports Keras or poise starts a script. A block that does not continues the script before it. The text block
that follows a Python block shows its output. A comment `<!-- tolerance: 0.3 -->` before the text block allows numbers to
differ by this share, where the training itself differs between machines.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?:\n(?:<!-- tolerance: (?P<tolerance>[\d.]+) -->\n)?```text\n(?P<shown>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
START = re.compile(r"^(?:import|from) (?:keras|poise)\b", re.MULTILINE)
TOLERANCE = 0.02


@dataclass(frozen=True)
class Block:
    """A Python block.

    Attributes:
        code: The code.
        shown: The output that the page shows; empty for none.
        tolerance: By which share the numbers of the output may differ.
        line: The line of the page at which the code starts, from 0.
    """

    code: str
    shown: str
    tolerance: float
    line: int


def blocks_of(page: Path) -> Iterator[Block]:
    """Return the Python blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        tolerance = float(match["tolerance"] or TOLERANCE)
        yield Block(match["code"], match["shown"] or "", tolerance, text[: match.start("code")].count("\n"))


def scripts_of(page: Path) -> list[list[Block]]:
    """Return the scripts of a page, each as its blocks."""
    scripts: list[list[Block]] = []
    for block in blocks_of(page):
        if START.search(block.code):
            scripts.append([])
        scripts[-1].append(block)
    return scripts


def named_scripts(*pages: Path) -> dict[str, list[Block]]:
    """Return the scripts of several pages by the name of the page and a number."""
    return {
        f"{page.relative_to(ROOT)} {number}": script
        for page in pages
        for number, script in enumerate(scripts_of(page), 1)
    }
