"""Studies on a terminal, from the content of study.json. Tables adapt to its width, and no number is cut off."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from poise.escaping import escape_controls
from poise.study.columns.set_aside import SET_ASIDE
from poise.study.errors import quote_names
from poise.study.report.comparison import list_networks, list_rows, read_estimate, show_counts, show_estimate
from poise.study.report.numbers import format_number, format_with_error

SHORTEST_NAME = 12
"""Characters of a name that stay on one line."""

DECIDES_LOSS = ("target", "event", "task", "digest", "weight", "offset", "exposure")
"""Fields of `data` that must be equal for two losses to be comparable."""


def print_study(description: Mapping, screen: Console) -> None:
    """Print task, comparison, answer and notes of a study."""
    answer = [Text(escape_controls(paragraph)) for paragraph in description["answer"]]
    answer[0].stylize("bold", 0, len(escape_controls(description["headline"])))
    notes = [Text(escape_controls(f"Note: {note}")) for note in description["data"]["notes"]]
    screen.print(Text(escape_controls(task_line(description))))
    _print_table(candidates_table(description, screen), screen)
    metrics = [f"{name} {format_number(_number(value))}" for name, value in description["metrics"].items()]
    dropout = " The strength of dropout is its rate." if any(map(_has_rate, description["candidates"])) else ""
    screen.print(Text(f"* saved network. On the test rows: {', '.join(metrics)}.{dropout}"))
    for paragraph in (*answer, *notes):
        screen.print(paragraph)


def task_line(description: Mapping) -> str:
    """Return a sentence about the data and the task."""
    data, rows = description["data"], description["rows"]
    used = _count_used(data)
    aside = len(data["columns"]) - used
    kind = f"{data['task']} with {len(data['classes'])} classes" if len(data["classes"]) > 2 else data["task"]
    offsets = "".join(f" with {role} {data[role]!r}" for role in ("exposure", "offset") if data.get(role))
    columns = f"{used} column{'s'[: used - 1]}" + (f" ({aside} set aside)" if aside else "")
    counts = f"{rows['training']:,} training rows, {rows['test']:,} test rows"
    reason = data.get("task_reason")
    inferred = f" The task was inferred from the target ({reason}); poise study --task changes it." if reason else ""
    return f"{data['name']}: {kind} of {quote_names(data['targets'])}{offsets} from {columns}; {counts}.{inferred}"


def candidates_table(description: Mapping, screen: Console) -> Table:
    """Return the most detailed table that fits the screen: one row per candidate; a star marks the saved one."""
    tables = [*_tables_by_detail(description)]
    return next((table for table in tables if _width(table, screen) <= screen.width), tables[-1])


def print_comparison(names: Sequence[str], studies: Sequence[Mapping], screen: Console) -> None:
    """Print studies next to each other, one column per study, in several tables if the screen is too narrow for one."""
    rows = [*_comparison_rows(studies)]
    first = 0
    while first < len(names):
        tables = {last: _comparison_table(names, rows, first, last) for last in range(len(names), first, -1)}
        last = next((last for last, table in tables.items() if _width(table, screen) <= screen.width), first + 1)
        _print_table(tables[last], screen)
        first = last


def find_differences(names: Sequence[str], studies: Sequence[Mapping]) -> list[str]:
    """Return one sentence per pair of studies whose losses cannot be compared, with the reason."""
    sentences = []
    pairs = combinations(zip(names, studies, strict=True), 2)
    for (first_name, first), (second_name, second) in pairs:
        if any(first["data"].get(key) != second["data"].get(key) for key in DECIDES_LOSS):
            sentences.append(f"{first_name} and {second_name} use different data; their losses are not comparable.")
        elif _loss_of(first) != _loss_of(second):
            sentences.append(
                f"{first_name} and {second_name} have different losses, which are not comparable. Run both studies "
                "with the same --class-weight, --tweedie-power and --quantiles."
            )
        elif first["rows"]["digest"] != second["rows"]["digest"]:
            sentences.append(
                f"{first_name} and {second_name} have different test rows, so a difference between their test losses "
                "may come from the rows. Run both studies with the same --test, --seed, --groups and --time."
            )
    return sentences


def _loss_of(study: Mapping) -> tuple[str, object]:
    """Return the task with its options, and the weights of the classes."""
    data = study["data"]
    return data.get("task_title", data["task"]), study["settings"].get("class_weight")


@dataclass(frozen=True)
class _Column:
    """A column of the table of candidates.

    Args:
        heading: What it shows.
        cells: With all detail, one per candidate.
        short: Without intervals and standard errors, one per candidate.
    """

    heading: str
    cells: list[str]
    short: list[str]


def _tables_by_detail(description: Mapping) -> Iterator[Table]:
    """Yield tables from the most detailed to the narrowest one."""
    columns, titles = _columns(description), _titles(description)
    score = description["candidates"][0]["score_name"]
    yield _table(titles, [(column.heading, column.cells) for column in columns])
    detailed = ({score, "gain"}, {"gain"}, set())
    least = ("test loss", "zeros", "strength", "columns", "held-out loss")
    narrower = (least[:0], least[:2], least[:3], least[:4], least)
    for hidden in narrower:
        for names in detailed:
            yield _table(
                titles,
                [
                    (column.heading, column.cells if column.heading in names else column.short)
                    for column in columns
                    if column.heading not in hidden
                ],
            )


def _titles(description: Mapping) -> list[str]:
    return [
        row["title"] + (" *" if row["candidate"] == description["saved"] else "") for row in list_rows(description)
    ]  # fmt: skip


def _columns(description: Mapping) -> list[_Column]:
    candidates = list_rows(description)

    def column(heading: str, cells: list[str], short: list[str] | None = None) -> _Column:
        return _Column(heading, cells, short or cells)

    def estimates(heading: str, name: str) -> _Column:
        values = [read_estimate(candidate, name).value for candidate in candidates]
        short = ["" if value != value else format_number(value) for value in values]
        return column(heading, [show_estimate(candidate, name) for candidate in candidates], short)

    strengths = [candidate["strength"] for candidate in candidates]
    columns, zeros, shares = (list(cells) for cells in zip(*map(show_counts, candidates), strict=True))
    return [
        column("strength", ["" if strength is None else format_number(strength) for strength in strengths]),
        column(
            "held-out loss",
            [
                format_with_error(_number(candidate["val_loss"]), _number(candidate["val_error"]))
                for candidate in candidates
            ],
            [format_number(_number(candidate["val_loss"])) for candidate in candidates],
        ),
        estimates("test loss", "test_loss"),
        estimates(description["candidates"][0]["score_name"], "score"),
        estimates("gain", "gain"),
        column("columns", columns),
        column(
            "zeros", [f"{count} ({share})" if count else "" for count, share in zip(zeros, shares, strict=True)], shares
        ),
    ]


def _table(titles: Sequence[str], columns: Sequence[tuple[str, list[str]]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", min_width=min(SHORTEST_NAME, max(map(len, titles))))
    for heading, cells in columns:
        table.add_column(heading, justify="right", width=max(map(len, [*cells, *heading.split()])))
    for number, title in enumerate(titles):
        table.add_row(Text(escape_controls(title)), *(Text(cells[number]) for _, cells in columns))
    return table


def _comparison_rows(studies: Sequence[Mapping]) -> Iterator[tuple[str, list[str]]]:
    """Yield the heading of a row and its cells."""
    chosen = [_network(study, study["saved"]) for study in studies]
    yield "data", [study["data"]["name"] for study in studies]
    yield "task", [f"{study['data']['target']} ({study['data']['task']})" for study in studies]
    yield "rows", [f"{study['rows']['training']:,} + {study['rows']['test']:,} test" for study in studies]
    yield "chosen", [candidate["title"] for candidate in chosen]
    yield (
        "strength",
        [
            f"{'rate ' if _has_rate(candidate) else ''}{format_number(_number(candidate['strength']))}"
            for candidate in chosen
        ],
    )
    yield "test loss [95%]", [show_estimate(candidate, "test_loss") for candidate in chosen]
    yield "score [95%]", [f"{candidate['score_name']} {show_estimate(candidate, 'score')}" for candidate in chosen]
    yield "gain [95%]", [show_estimate(candidate, "gain") for candidate in chosen]
    yield "selected columns", [_count_selected(study) for study in studies]


def _has_rate(candidate: Mapping) -> bool:
    """Return whether the strength of a candidate is a rate."""
    return candidate["candidate"] == "dropout"


NUMBER_ROWS = ("rows", "strength", "test loss [95%]", "score [95%]", "gain [95%]")
"""Rows of a comparison that stay on one line; names may use several."""


def _comparison_table(names: Sequence[str], rows: Sequence[tuple[str, list[str]]], first: int, last: int) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("")
    for number in range(first, last):
        width = max(len(cells[number]) for heading, cells in rows if heading in NUMBER_ROWS)
        table.add_column(Text(escape_controls(names[number])), justify="right", overflow="fold", width=width)
    for heading, cells in rows:
        table.add_row(heading, *(Text(escape_controls(cell)) for cell in cells[first:last]))
    return table


def _width(table: Table, screen: Console) -> int:
    """Return the smallest width of a table at which no number is cut off."""
    return Measurement.get(screen, screen.options.update(width=10_000), table).minimum


def _print_table(table: Table, screen: Console) -> None:
    screen.print("", table, "", sep="\n")


def _count_selected(study: Mapping) -> str:
    if study["selector"] is None:
        return "?"
    selector = _network(study, study["selector"])
    return f"{len(selector['selected'])} of {_count_used(study['data'])} ({selector['title']})"


def _count_used(data: Mapping) -> int:
    return sum(column["kind"] != SET_ASIDE for column in data["columns"])


def _network(study: Mapping, name: str) -> Mapping:
    return next(network for network in list_networks(study) if network["candidate"] == name)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
