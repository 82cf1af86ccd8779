"""Studies on a terminal, from the content of study.json."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from poise.escaping import visible
from poise.study.columns.base import SET_ASIDE
from poise.study.report.comparison import compare_candidates, show_estimate
from poise.study.report.numbers import format_number


def task_line(description: Mapping) -> str:
    """Return a sentence about the task and the data."""
    data, rows = description["data"], description["rows"]
    used = _count_used(data)
    aside = len(data["columns"]) - used
    kinds = f" with {len(data['classes'])} classes" if data["task"] == "multiclass" else ""
    columns = f"{used} column{'s'[: used - 1]}" + (f" ({aside} set aside)" if aside else "")
    counts = f"{rows['training']:,} training rows, {rows['test']:,} test rows"
    return f"Task: {data['task']}{kinds}, {data['target']!r} from {columns}; {counts}."


def candidates_table(description: Mapping) -> Table:
    """Return a table with one row per candidate; a star marks the chosen one."""
    data = description["data"]
    title = f"{data['name']}: {data['task']}, {description['rows']['test']:,} test rows"
    table = Table(title=Text(visible(title)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    headings, rows = compare_candidates(description)
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    for name, *cells in rows:
        table.add_row(Text(visible(name)), *cells)
    return table


def compared_table(names: Sequence[str], studies: Sequence[Mapping]) -> Table:
    """Return a table with one column per study."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in names:
        table.add_column(Text(visible(name)), justify="right", overflow="fold")
    for label, cells in _compared_rows(studies):
        table.add_row(label, *(Text(visible(cell)) for cell in cells))
    return table


def differences(names: Sequence[str], studies: Sequence[Mapping]) -> list[str]:
    """Return sentences that say which studies cannot be compared, and why."""
    sentences = []
    for (first, one), (second, other) in combinations(zip(names, studies, strict=True), 2):
        if any(one["data"][key] != other["data"][key] for key in ("target", "task", "digest")):
            sentences.append(f"{first} and {second} use different data; their losses are not comparable.")
        elif one["rows"]["digest"] != other["rows"]["digest"]:
            sentences.append(
                f"{first} and {second} have different test rows, which may explain a difference. Use the same share of "
                "test rows and the same seed."
            )
    return sentences


def _compared_rows(studies: Sequence[Mapping]) -> Iterator[tuple[str, list[str]]]:
    chosen = [_candidate(study, study["chosen"]) for study in studies]
    yield "data", [study["data"]["name"] for study in studies]
    yield "task", [f"{study['data']['target']} ({study['data']['task']})" for study in studies]
    yield "rows", [f"{study['rows']['training']:,} + {study['rows']['test']:,} test" for study in studies]
    yield "chosen", [candidate["title"] for candidate in chosen]
    yield "strength", [format_number(candidate["strength"]) for candidate in chosen]
    yield "test loss [95%]", [show_estimate(candidate, "test_loss") for candidate in chosen]
    yield "score [95%]", [f"{candidate['score_name']} {show_estimate(candidate, 'score')}" for candidate in chosen]
    yield "gain [95%]", [show_estimate(candidate, "gain") for candidate in chosen]
    yield "selected columns", [_count_selected(study) for study in studies]


def _count_selected(study: Mapping) -> str:
    if study["selector"] is None:
        return "?"
    selector = _candidate(study, study["selector"])
    return f"{len(selector['selected'])} of {_count_used(study['data'])} ({selector['title']})"


def _count_used(data: Mapping) -> int:
    return sum(column["kind"] != SET_ASIDE for column in data["columns"])


def _candidate(study: Mapping, name: str) -> Mapping:
    return next(candidate for candidate in study["candidates"] if candidate["candidate"] == name)
