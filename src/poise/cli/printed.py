"""A compaction as people read it on a terminal, and as machines do."""

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from poise.cli.compact import Compaction, Needed
from poise.escaping import visible

SIZES = {"parameters": "parameters", "FLOPs per sample": "FLOPs per sample", "file size": "file size, bytes"}
"""The rows of `poise.compare_models` that are shown, with their titles; units stand in the table of layers."""
MOST = 20
"""Positions or names of inputs that are shown."""
LONG = 36
"""Characters in the name of a layer that stay in one line."""


def told(done: Compaction) -> Iterator[RenderableType]:
    """What died and why, what that saves, and how the two models agree."""
    units, dead = done.dead["units"].sum(), done.dead["dead"].sum()
    yield Text(visible(f"{done.source}: {dead} of {units} units are dead."))
    if units:
        yield _layers(done)
    yield _sizes(done)
    for one in done.needed or ():
        yield Text(visible(_still_needed(one, is_only=len(done.needed or ()) == 1)))
    if done.check is not None:
        apart = f"differ by at most {done.check.difference:.2g} of the largest output"
        agreement = apart if done.check.difference else "are the same to the last digit"
        yield Text(visible(f"On {done.check.rows:,} rows of {done.check.data} the outputs {agreement}."))


def record(done: Compaction, out: Path) -> dict:
    """The same for JSON; a number that does not exist is None."""
    return {
        "format": "poise compact",
        "model": str(done.source),
        "out": str(out),
        "tolerance": done.tolerance,
        "layers": done.dead.to_dict("records"),
        "savings": {name: _finite(row) for name, row in done.saved.to_dict("index").items()},
        "inputs": None if done.needed is None else [vars(one) for one in done.needed],
        "check": None if done.check is None else _finite(vars(done.check)),
    }


def _finite(values: dict) -> dict:
    return {name: None if isinstance(one, float) and not math.isfinite(one) else one for name, one in values.items()}


def _layers(done: Compaction) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", overflow="fold", no_wrap=all(len(name) <= LONG for name in done.dead["layer"]))
    table.add_column("units", justify="right", no_wrap=True)
    table.add_column("dead", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in done.dead.itertuples():
        cells = [visible(row.layer), f"{row.units:,}", f"{row.dead:,}", visible(row.why)]
        table.add_row(*map(Text, cells), style=None if row.dead else "dim")
    return table


def _sizes(done: Compaction) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for title in ("before", "after", "ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    rows = done.saved.to_dict("index")
    for name, title in SIZES.items():
        row = rows[name]
        table.add_row(
            title, _figure(row["before"], ",.0f"), _figure(row["after"], ",.0f"), _figure(row["ratio"], ".2f")
        )
    return table


def _figure(value: float, how: str) -> str:
    return format(value, how) if math.isfinite(value) else "unknown"


def _still_needed(one: Needed, is_only: bool) -> str:
    name = "" if is_only else f" of {one.input!r}"
    count = len(one.kept)
    if count == one.features:
        return f"Inputs{name}: all {count} are still needed."
    shown = one.columns or _ranges(one.kept)
    which = ", ".join(shown[:MOST]) + (", …" if len(shown) > MOST else "")
    return f"Inputs{name}: {count} of {one.features} are still needed, and the new model takes these alone: {which}."


def _ranges(positions: tuple[int, ...]) -> tuple[str, ...]:
    """0-3 and 7 of 0, 1, 2, 3, 7."""
    starts = [positions[0], *(after for before, after in pairwise(positions) if after != before + 1)]
    ends = [*(before for before, after in pairwise(positions) if after != before + 1), positions[-1]]
    return tuple(str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True))
