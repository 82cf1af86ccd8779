from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from typer.testing import Result

from poise import Study
from poise.study import run as studies

from .commands import FAST, poise


class Finished(NamedTuple):
    """A study that a command finished."""

    folder: Path
    data: Path
    result: Result
    study: Study


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    """A study of a small table, the only one that these tests train in this process."""
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    size = rng.normal(size=60)
    frame = pd.DataFrame({
        "size": size.round(3), "color": np.array(["red", "green", "blue"])[np.arange(60) % 3],
        "order_id": np.arange(60), "price": (3 * size + rng.normal(size=60)).round(3),
    })  # fmt: skip
    frame.to_csv(place / "sales.csv", index=False)
    results, run_study = [], studies.run_study

    def keep_result(*arguments, **options):
        results.append(run_study(*arguments, **options))
        return results[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        patch.setattr(studies, "run_study", keep_result)
        result = poise("study", place / "sales.csv", "--target", "price", *FAST, "--out", place / "run")
    assert result.exit_code == 0, result.output
    return Finished(place / "run", place / "sales.csv", result, results[0])


@pytest.fixture
def calls(finished, monkeypatch) -> list[dict]:
    """The arguments of studies, each of which is finished at once."""
    recorded = []

    def run_study(data, target, **options):
        recorded.append({"data": data, "target": target, **options})
        return finished.study

    monkeypatch.setattr(studies, "run_study", run_study)
    monkeypatch.setattr("poise.study.storage.render_page", lambda findings, folder: "<!doctype html>")
    return recorded
