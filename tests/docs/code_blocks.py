"""The code blocks of a documentation page, as scripts that a reader would run.

A block that imports Keras, poise, or PyTorch starts a script. A block that does not continues the script before it. The text block
that follows a Python block shows its output. Where a training differs between machines, a comment before the text block
allows it: `<!-- tolerance: 0.3 -->` for numbers that differ by this share, `<!-- varies -->` for other rows after the first
line.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from test_guide import difference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?:\n(?:<!-- (?:tolerance: (?P<tolerance>[\d.]+)|(?P<varies>varies)) -->\n)?```text\n(?P<shown>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
START = re.compile(r"^(?:import|from) (?:keras|poise|torch)\b", re.MULTILINE)
DURATION = re.compile(r"\b\d+\.\d s\b")
TOLERANCE = 0.02


@dataclass(frozen=True)
class Block:
    """A Python block.

    Attributes:
        code: The code.
        shown: The output that the page shows; empty for none.
        tolerance: By which share the numbers of the output may differ.
        varies: Whether only the first line of the output is compared.
        line: The line of the page at which the code starts, from 0.
    """

    code: str
    shown: str
    tolerance: float
    varies: bool
    line: int

    def difference(self, printed: str) -> str | None:
        """Return the first difference between the output that the page shows and what the code printed, or None."""
        shown, printed = (DURATION.sub("0.0 s", text) for text in (self.shown, printed))
        if self.varies:
            shown, printed = (text.partition("\n")[0] for text in (shown, printed))
        return difference(shown, printed, self.tolerance)


def blocks_of(page: Path) -> list[Block]:
    """Return the Python blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            match["code"],
            match["shown"] or "",
            float(match["tolerance"] or TOLERANCE),
            match["varies"] is not None,
            text[: match.start("code")].count("\n"),
        )
        for match in BLOCK.finditer(text)
    ]


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
