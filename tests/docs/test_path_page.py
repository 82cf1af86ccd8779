"""The page on the path does what it says."""

import re
from pathlib import Path

import keras

PAGE = Path(__file__).parents[2] / "docs" / "path.md"


def test_its_example_runs_and_prints_a_path(capsys):
    first, second = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {}

    exec(first, names)

    assert capsys.readouterr().out.startswith("Path of L2 on weights: 20 strengths × 5 folds × 1 seed")
    path = names["path"]
    assert path.best_strength <= path.one_se_strength
    exec(second, names)
    assert isinstance(names["small"], keras.Model)
