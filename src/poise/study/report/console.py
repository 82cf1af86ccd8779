"""Runs as people read them on a terminal, from what study.json says."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from types import SimpleNamespace
from typing import cast

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from poise.escaping import visible
from poise.study.report.sentences import console_table, figure, interval
from poise.study.result import Study
from poise.study.scores import Estimate


def task_line(found: Mapping) -> str:
    """What was predicted from how much."""
    data, rows = found["data"], found["rows"]
    used = [column for column in data["columns"] if column["kind"] != "set aside"]
    aside = len(data["columns"]) - len(used)
    kinds = f" of {len(data['classes'])} classes" if data["task"] == "multiclass" else ""
    columns = f"{len(used)} column{'s'[: len(used) - 1]}" + (f" ({aside} set aside)" if aside else "")
    counted = f"{rows['training']:,} rows train, {rows['test']:,} test"
    return f"Task: {data['task']}{kinds}, {data['target']!r} from {columns}; {counted}."


def candidates_table(found: Mapping) -> Table:
    """The candidates beside each other, as `console_table` shows those of the study itself."""
    candidates = [
        SimpleNamespace(
            name=one["candidate"], title=one["title"], kept=one["kept"], row=one,
            **{name: _known(one[name]) for name in ("strength", "val_loss", "val_error")},
            **{name: _estimate(one, name) for name in ("test_loss", "score", "gain")},
        )
        for one in found["candidates"]
    ]  # fmt: skip
    table = SimpleNamespace(name=found["data"]["name"], task=found["data"]["task"])
    told = SimpleNamespace(table=table, rows=found["rows"], chosen=found["chosen"], candidates=candidates)
    return console_table(cast(Study, told))


def compared_table(names: Sequence[str], runs: Sequence[Mapping]) -> Table:
    """Runs beside each other, one a column."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in names:
        table.add_column(Text(visible(name)), justify="right", overflow="fold")
    for label, cells in _compared(runs):
        table.add_row(label, *(Text(visible(cell)) for cell in cells))
    return table


def differences(names: Sequence[str], runs: Sequence[Mapping]) -> list[str]:
    """Why the losses of runs cannot be compared, a sentence each."""
    sentences = []
    for (first, one), (second, other) in combinations(zip(names, runs, strict=True), 2):
        if any(one["data"][key] != other["data"][key] for key in ("target", "task", "digest")):
            sentences.append(f"{first} and {second} study different data: their losses do not compare.")
        elif one["rows"]["digest"] != other["rows"]["digest"]:
            sentences.append(
                f"{first} and {second} are tested on different rows: a difference may be that of the rows. Use the "
                "same --test and --seed."
            )
    return sentences


def _compared(runs: Sequence[Mapping]) -> Iterator[tuple[str, list[str]]]:
    chosen = [_of(run, run["chosen"]) for run in runs]
    selectors = [None if run["selector"] is None else _of(run, run["selector"]) for run in runs]
    in_use = [sum(column["kind"] != "set aside" for column in run["data"]["columns"]) for run in runs]
    yield "data", [run["data"]["name"] for run in runs]
    yield "task", [f"{run['data']['target']} ({run['data']['task']})" for run in runs]
    yield "rows", [f"{run['rows']['training']:,} + {run['rows']['test']:,} test" for run in runs]
    yield "chosen", [one["title"] for one in chosen]
    yield "strength", [figure(one["strength"]) for one in chosen]
    yield "test loss [95%]", [_shown(one, "test_loss") for one in chosen]
    yield "score [95%]", [f"{one['score_name']} {_shown(one, 'score')}" for one in chosen]
    yield "gain [95%]", [_shown(one, "gain") for one in chosen]
    yield (
        "columns kept",
        [
            "?" if one is None else f"{one['columns']:.0f} of {count} ({one['title']})"
            for one, count in zip(selectors, in_use, strict=True)
        ],
    )


def _of(run: Mapping, name: str) -> Mapping:
    return next(one for one in run["candidates"] if one["candidate"] == name)


def _estimate(one: Mapping, name: str) -> Estimate:
    return Estimate(*(_known(one[key]) for key in (name, f"{name}_low", f"{name}_high")))


def _known(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _shown(one: Mapping, name: str) -> str:
    estimate = _estimate(one, name)
    ends = interval(estimate)
    return figure(estimate.value) + (f" [{ends}]" if ends else "")
