"""The page "Why a penalty is not a loss": its code runs and prints what the page shows.

A printed number may differ from the shown one by 2% plus one unit of its last digit. A comment
`<!-- tolerance: 0.15 -->` before a text block replaces the 2% where the training itself is less reproducible.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = DOCS / "explanation" / "why-a-penalty-is-not-a-loss.md"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

spec = importlib.util.spec_from_file_location("draw", DOCS / "draw.py")
assert spec is not None
assert spec.loader is not None
draw = importlib.util.module_from_spec(spec)
spec.loader.exec_module(draw)


def test_the_guide_shows_what_its_code_prints() -> None:
    text = GUIDE.read_text(encoding="utf-8")

    namespace, printed = draw.run(GUIDE)

    for output, shown in printed:
        assert (shown is None) == (output == ""), f"printed and shown text disagree:\n{output}"
        if shown is not None:
            marked = re.search(r"<!-- tolerance: ([\d.]+) -->\n$", text[: shown.start()])
            assert difference(shown[2], output, float(marked[1]) if marked else 0.02) is None
    _check_that_the_residual_comes_from_the_kinks(namespace)


def _check_that_the_residual_comes_from_the_kinks(namespace: dict[str, Any]) -> None:
    """With the best slope between 0 and 1 for every row at the kink of a ReLU, almost no residual is left."""
    from scipy.optimize import lsq_linear

    W, b, V, c = [array.astype("float64") for array in namespace["relu_l2"].get_weights()]
    x, y, strength = (namespace[name] for name in ("x", "y", "strength"))
    z = x @ W + b
    error = (np.maximum(z, 0) @ V + c - y)[:, 0]
    computed, best = [], []
    for unit in range(64):
        rows = 2 / len(x) * V[unit, 0] * error[:, None] * x
        at_kink = np.abs(z[:, unit]) < 1e-4
        penalty = 2 * strength * W[:, unit]
        computed.append(rows[z[:, unit] > 0].sum(axis=0) + penalty)
        residual = rows[~at_kink & (z[:, unit] > 0)].sum(axis=0) + penalty
        if at_kink.any():
            residual = residual + rows[at_kink].T @ lsq_linear(rows[at_kink].T, -residual, bounds=(0, 1)).x
        best.append(residual)
    assert np.linalg.norm(best) < 0.05 * np.linalg.norm(computed)


def test_numbers_in_the_prose_come_from_the_code_or_its_output() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    shown = "".join(block[2] for block in draw.blocks(GUIDE))
    prose = draw.FENCE.sub("", re.sub(r"<!--.*?-->|`[^`]*`", "", text))

    unknown = {number for number in re.findall(r"\d+\.\d+", prose) if number not in shown}

    assert not unknown


def test_pictures_and_anchors_of_the_guide_exist() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[(.+?)\]\((.+?)\)\n\n(.+)", text)

    assert len(pictures) == 3
    for description, file, caption in pictures:
        assert len(description) > 80
        assert (GUIDE.parent / file).read_bytes().startswith(b"\x89PNG")
        assert caption.startswith("*What to see:")
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)", text, re.M)
    }
    assert set(re.findall(r"\]\(#(.+?)\)", text)) <= anchors


@pytest.mark.parametrize(
    ("shown", "printed", "agree"),
    [
        ("loss 0.500", "loss 0.505", True),
        ("loss 0.500", "loss 0.520", False),
        ("loss 0.500", "error 0.500", False),
        ("a  1.0\nb 2.0", "a 1.0\nb   2.0", True),
        ("a 1.0", "a 1.0 2.0", False),
        ("share 28%", "share 30%", False),
        ("cosine -0.9", "cosine 0.9", False),
        ("True", "False", False),
    ],
)
def test_printed_and_shown_text_are_compared_number_by_number(shown: str, printed: str, agree: bool) -> None:
    assert (difference(shown, printed, 0.02) is None) == agree


def difference(shown: str, printed: str, tolerance: float) -> str | None:
    """Return the first difference between two texts beyond white space and the tolerance of numbers, or None."""
    words = [" ".join(NUMBER.sub("#", text).split()) for text in (shown, printed)]
    if words[0] != words[1]:
        return f"shown: {words[0]!r}, printed: {words[1]!r}"
    for a, b in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        unit = 10.0 ** -len(a.partition(".")[2])
        if abs(float(a) - float(b)) > tolerance * abs(float(a)) + 1.01 * unit:
            return f"shown: {a}, printed: {b}, in:\n{printed}"
    return None
