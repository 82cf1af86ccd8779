"""A compaction as text for a terminal, and as JSON for programs."""

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from poise.cli.model_compaction import Compaction, InputFeatures
from poise.escaping import escape_controls

SIZES = {"parameters": "parameters", "FLOPs per sample": "FLOPs per sample", "file size": "file size, bytes"}
"""The rows of `poise.compare_models` to print, with their headings; the other table shows units."""
MOST_FEATURES = 20
LONGEST_NAME = 36
"""Characters of a layer's name that stay on one line."""


def describe_compaction(compaction: Compaction) -> Iterator[RenderableType]:
    """Yield the dead units with reasons, the savings, the inputs that remain, and how the outputs agree."""
    units, dead = compaction.dead["units"].sum(), compaction.dead["dead"].sum()
    yield Text(escape_controls(f"{compaction.source}: {dead} of {units} units are dead."))
    if units:
        yield _layers_table(compaction)
    yield _sizes_table(compaction)
    inputs = compaction.inputs or ()
    for features in inputs:
        yield Text(escape_controls(_list_features(features, is_only=len(inputs) == 1)))
    if compaction.check is not None:
        difference = compaction.check.difference
        agreement = f"differ by at most {difference:.2g} of the largest output" if difference else "are identical"
        yield Text(
            escape_controls(f"On {compaction.check.rows:,} rows of {compaction.check.data} the outputs {agreement}.")
        )


def as_record(compaction: Compaction, out: Path) -> dict:
    """Return the same as a dict for JSON; numbers that are unknown are None."""
    savings = compaction.savings.to_dict("index")
    return {
        "format": "poise compact",
        "model": str(compaction.source),
        "out": str(out),
        "tolerance": compaction.tolerance,
        "layers": compaction.dead.to_dict("records"),
        "savings": {name: _finite(row) for name, row in savings.items()},
        "inputs": None if compaction.inputs is None else [vars(features) for features in compaction.inputs],
        "check": None if compaction.check is None else _finite(vars(compaction.check)),
    }


def _finite(values: Mapping) -> dict:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _layers_table(compaction: Compaction) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    is_short = all(len(name) <= LONGEST_NAME for name in compaction.dead["layer"])
    table.add_column("layer", overflow="fold", no_wrap=is_short)
    table.add_column("units", justify="right", no_wrap=True)
    table.add_column("dead", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for layer, units, dead, why in compaction.dead[["layer", "units", "dead", "why"]].itertuples(index=False):
        cells = [escape_controls(layer), f"{units:,}", f"{dead:,}", escape_controls(why)]
        table.add_row(*map(Text, cells), style=None if dead else "dim")
    return table


def _sizes_table(compaction: Compaction) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for heading in ("before", "after", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = compaction.savings.to_dict("index")
    for name, heading in SIZES.items():
        before, after, ratio = (rows[name][key] for key in ("before", "after", "ratio"))
        table.add_row(heading, _format(before, ",.0f"), _format(after, ",.0f"), _format(ratio, ".2f"))
    return table


def _format(value: float, specification: str) -> str:
    return format(value, specification) if math.isfinite(value) else "unknown"


def _list_features(features: InputFeatures, is_only: bool) -> str:
    name = "" if is_only else f" of {features.input!r}"
    count = len(features.kept)
    if count == features.features:
        return f"Inputs{name}: all {count} features are used."
    names = features.columns or _ranges(features.kept)
    listed = ", ".join(names[:MOST_FEATURES]) + (", …" if len(names) > MOST_FEATURES else "")
    return f"Inputs{name}: {count} of {features.features} features are used; the new model takes only these: {listed}."


def _ranges(positions: tuple[int, ...]) -> tuple[str, ...]:
    """Return 0-3 and 7 for 0, 1, 2, 3, 7."""
    starts = [positions[0], *(after for before, after in pairwise(positions) if after != before + 1)]
    ends = [*(before for before, after in pairwise(positions) if after != before + 1), positions[-1]]
    return tuple(str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True))
