"""The page on the study does what it says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "study.md"


def test_its_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {}

    for block in blocks:
        exec(block, names)

    assert len(names["predictions"]) == len(names["outputs"]) == 178
    assert {one.parent.name for one in Path("logs").rglob("*tfevents*")} >= {"none"}
    [score, read] = map(
        float, re.fullmatch(r"R² (\S+), (\d+) of 55 features are read\n", capsys.readouterr().out).groups()
    )
    assert 0.2 < score < 0.6
    assert 0 < read < 55
