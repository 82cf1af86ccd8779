"""The work of `poise shrink`: a model in a file becomes a smaller one, as text for a terminal and as JSON."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from poise._keras_internals import input_structure
from poise.cli.errors import BadInputError
from poise.cli.model_compaction import read_model
from poise.cli.row_files import read_labeled_rows
from poise.compaction.graph import check_model, graph_of
from poise.escaping import escape_controls
from poise.files import OutputExistsError, check_writable
from poise.path.models import seed_initial_weights
from poise.shrinking import ShrinkResult, shrink
from poise.shrinking.report import write_report as write_page

REPORT_SUFFIX = ".html"


def check_report(path: Path | None, *, overwrite: bool) -> None:
    """Check, before anything is read, whether a report can be written to a file.

    Raises:
        BadInputError: If the suffix is not .html or the path is a folder.
        OutputExistsError: If the file exists and `overwrite` is false.
        CannotWriteError: If it cannot be written.
    """
    if path is None:
        return
    if path.suffix != REPORT_SUFFIX or path.is_dir():
        raise BadInputError(f"--report must be a file that ends in {REPORT_SUFFIX}, got {str(path)!r}.")
    if path.exists() and not overwrite:
        raise OutputExistsError(path)
    check_writable(path)


def shrink_file(
    source: Path,
    data: Path,
    validation: Path | None,
    target: str | None,
    budget: Mapping[str, float | None],
    **settings: Any,
) -> ShrinkResult:
    """Read a compiled model and its training rows, and make the model smaller.

    Args:
        source: The file of the model.
        data: The file of the rows; see `read_labeled_rows`.
        validation: The file of the validation rows; `None` for a part of the training rows.
        target: The column of a table that holds the targets.
        budget: The budgets of `poise.shrink`.
        settings: Other arguments of `poise.shrink`.

    Raises:
        BadInputError: If the model or the rows cannot be read, or the model cannot be made smaller.
        poise.DataError: If a table cannot be read.
    """
    budgets = [f"--{name.replace('_', '-')}" for name, value in budget.items() if value is not None]
    if len(budgets) != 1:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in budget)
        raise BadInputError(f"Pass one of {options}, such as --flops 0.25, got {' and '.join(budgets) or 'none'}.")
    model = read_model(source, compile=True)
    try:
        check_model(model)
    except (TypeError, ValueError) as error:
        raise BadInputError(str(error)) from None
    if not getattr(model, "compiled", False):
        raise BadInputError(
            f"{str(source)!r} holds a model that is not compiled. Call model.compile(optimizer, loss, "
            'metrics=["accuracy"]) before you save it.'
        )
    x, y = _read_rows(data, model, target)
    held_out = None if validation is None else _read_rows(validation, model, target)
    try:
        with seed_initial_weights(settings["seed"]):
            return shrink(model, x, y, validation_data=held_out, **budget, **settings)
    except (TypeError, ValueError) as error:
        raise BadInputError(_name_options(str(error), [*budget, *settings])) from None


def _read_rows(path: Path, model: keras.Model, target: str | None) -> tuple[Any, np.ndarray]:
    """Return x, in the structure of the inputs, and y."""
    rows, y = read_labeled_rows(path, model, target)
    return keras.tree.pack_sequence_as(input_structure(graph_of(model)), rows.arrays), y


def write_report(result: ShrinkResult, source: Path, path: Path) -> None:
    """Write the report of a result."""
    write_page(result, source.name, path)


def describe_result(result: ShrinkResult) -> Iterator[RenderableType]:
    """Yield the stages with their scores, the units of each layer, and the times."""
    yield Text(escape_controls(result.headline))
    stages = result.stages.drop(columns="chosen")
    pairs = zip(stages.pop("stage"), result.stages["chosen"], strict=True)
    names = [f"{name} *" if is_chosen else name for name, is_chosen in pairs]
    yield _table(["network", *stages.columns], [[name, *map(_format, row)] for name, row in
                 zip(names, stages.itertuples(index=False), strict=True)])  # fmt: skip
    layers = result.layers.rename(columns={"why": "all stay because"})
    yield _table([*layers.columns], [[layer, str(before), str(after), why] for layer, before, after, why in
                 layers.itertuples(index=False)])  # fmt: skip
    for size, before, after, ratio in result.latency.itertuples():
        yield Text(f"Batches of {size}: {before:.3g} ms before, {after:.3g} ms after (ratio {ratio:.2f}).")


def as_record(result: ShrinkResult, source: Path, out: Path) -> dict[str, Any]:
    """Return the same as a dict for JSON; numbers that are unknown are None."""
    return {
        "format": "poise shrink",
        "model": str(source),
        "out": str(out),
        "budget": result.budget,
        "stages": _records(result.stages),
        "sizes": {name: _finite(row) for name, row in result.sizes.to_dict("index").items()},
        "layers": _records(result.layers),
        "latency": _records(result.latency.reset_index()),
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [_finite(row) for row in table.to_dict("records")]


def _finite(row: Mapping) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def _table(headings: list[str], rows: list[list[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(headings):
        is_text = number == 0 or heading == "all stay because"
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for row in rows:
        table.add_row(*(Text(escape_controls(cell)) for cell in row))
    return table


def _format(value: float) -> str:
    if not math.isfinite(value):
        return "unknown"
    return f"{value:,.0f}" if value == int(value) and abs(value) > 1 else f"{value:.4g}"


OPTIONS = {"validation_data": "--validation"}
"""Options that are not named like the argument."""


def _name_options(message: str, arguments: list[str]) -> str:
    """Return a message of the library with options instead of arguments."""
    for name in (*arguments, *OPTIONS):
        option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
        message = re.sub(rf"\b{name}=", f"{option} ", message)
        if "_" in name or name == "flops":  # not words of a sentence
            message = re.sub(rf"(?<!-)\b{name}\b", option, message)
        else:
            message = re.sub(rf"^{name}\b", option, message)
            message = re.sub(rf"(?<=Pass ){name}\b", option, message)
    return message
