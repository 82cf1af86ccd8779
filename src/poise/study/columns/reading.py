"""Read the columns of a table: detect the kind of each, set aside what no network can learn from, convert new rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from poise.study.columns.base import (
    CONSTANT,
    Column,
    ColumnKind,
    Detected,
    RawColumn,
    UnexpectedValueError,
    is_constant,
)
from poise.study.columns.identifiers import find_identifier
from poise.study.columns.kinds import KINDS, TYPES, kind_named
from poise.study.columns.set_aside import SET_ASIDE
from poise.study.columns.text_rules import TextRules, make_rules
from poise.study.errors import DataError, count_noun, quote_names
from poise.study.headers import check_column, check_header, name_columns


def read_columns(
    frame: pd.DataFrame,
    names: Sequence[str],
    dropped: Collection[str],
    rules: TextRules,
    types: Mapping[str, str] | None = None,
    kept: Collection[str] = (),
) -> tuple[list[Column], dict[str, pd.Series], list[str]]:
    """Read columns of a table.

    Args:
        frame: The table; its index holds the positions of the rows in the source.
        names: The columns to read, in order.
        dropped: Those that the user leaves out.
        rules: How text is read.
        types: For some of them the type that the user requests, a key of `poise.study.columns.kinds.TYPES`. Default:
            `None`.
        kept: Those that are used although they look like free text or an identifier. Default: none.

    Returns:
        A description of every column, the values of the columns in use, and sentences about what was assumed.

    Raises:
        DataError: If a column cannot be read as the requested type.
    """
    requests = {name: TYPES[requested] for name, requested in (types or {}).items()}
    columns: list[Column] = []
    features: dict[str, pd.Series] = {}
    notes: list[str] = []
    for name in names:
        raw, request = RawColumn(frame[name], rules), requests.get(name)
        if name in dropped or (request is not None and request.kind is None):
            missing = int(pd.isna(detect_kind(raw).values).sum())
            columns.append(Column(name, SET_ASIDE, missing, "dropped by request"))
            continue
        kind = None if request is None else request.kind
        detected = detect_kind(raw) if kind is None else _read_as(kind, raw)
        missing = int(pd.isna(detected.values).sum())
        is_kept = name in kept or (request is not None and request.is_kept)
        reason = _reason_to_set_aside(frame[name], detected, missing, is_kept=is_kept)
        if detected.kind is None or reason:
            columns.append(Column(name, SET_ASIDE, missing, reason))
            continue
        columns.append(
            Column(
                name, detected.kind.name, missing, "; ".join(detected.notes), detected.text_format,
                detected.ignored_texts,
            )
        )  # fmt: skip
        features[name] = pd.Series(detected.values, name=name, dtype=detected.values.dtype)
        notes += note_doubt(name, detected)
    return columns, features, notes


def note_doubt(name: str, detected: Detected) -> list[str]:
    """Return a sentence about what no value of a column shows, if there is anything."""
    if not detected.doubt:
        return []
    return [f"No value of column {name!r} shows {detected.doubt}. Write dates as 2024-12-31 to be certain."]


def detect_kind(raw: RawColumn) -> Detected:
    """Return the values of a column in the form of the first kind that recognizes it."""
    for kind in KINDS:
        detected = kind.detect(raw)
        if detected is not None:
            return detected
    note = "complex numbers" if raw.is_complex else "values that are neither numbers, text nor dates"
    return Detected(None, raw.values.to_numpy(), [note])


def list_set_aside(columns: Sequence[Column]) -> list[str]:
    """Return, for every reason to set columns aside, which ones."""
    names: dict[str, list[str]] = {}
    for column in columns:
        if not column.is_used:
            names.setdefault(column.note, []).append(column.name)
    return [
        f"{quote_names(alike)} ({reason})"
        if len(alike) == 1
        else f"{count_noun(len(alike), 'column')} ({reason}): {quote_names(alike)}"
        for reason, alike in names.items()
    ]


def convert_rows(
    frame: pd.DataFrame,
    columns: Sequence[Column],
    name: str,
    *,
    decimal: str | None = None,
    missing: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Convert new rows to the form of `Table.features`.

    Text is read as that of the table was. Only if it cannot be, because its numbers have another decimal mark, all
    columns are read with the mark of the new rows.

    Args:
        frame: The rows, as `poise.study.sources.load` returns them. Columns that are not in use are ignored, and
            categories may be new.
        columns: The columns of the table that was studied.
        name: What error messages call the rows.
        decimal: The decimal mark of numbers in text. Default: `None`, that of the table or else of the rows.
        missing: The argument of the study. Default: `None`.

    Returns:
        The columns in use, in the order of `columns`.

    Raises:
        DataError: If a column in use is missing or holds values of another kind.

    Examples:
        >>> from poise.study.columns.reading import convert_rows
        >>> from poise.study.sources import load
        >>> from poise.study.tables import read
        >>> table = read("wine")
        >>> name, _, rows = load("wine")
        >>> convert_rows(rows, table.columns, name).equals(table.features)
        True
    """
    frame = frame.set_axis(name_columns(frame.columns), axis="columns")
    used = [column for column in columns if column.is_used]
    check_header(list(frame.columns), name)
    for column in used:
        check_column(column.name, frame, name)
    rules, _ = make_rules(frame[[column.name for column in used]], decimal, missing)
    try:
        return _convert_all(frame, used, name, rules if decimal else replace(rules, decimal=""))
    except DataError:
        try:
            return _convert_all(frame, used, name, rules)
        except DataError:
            pass
        raise


def _convert_all(frame: pd.DataFrame, columns: Sequence[Column], table: str, rules: TextRules) -> pd.DataFrame:
    return pd.DataFrame({column.name: _convert(frame[column.name], column, table, rules) for column in columns})


def _convert(values: pd.Series, column: Column, table: str, rules: TextRules) -> pd.Series:
    kind = kind_named(column.kind)
    try:
        converted = kind.convert(RawColumn(values, rules), column)
    except UnexpectedValueError as error:
        raise DataError(
            f"{table}: column {column.name!r} must hold {kind.plural}, as in the training data, got {error}. Correct "
            "the value, or study the new table."
        ) from None
    return pd.Series(converted, name=column.name, dtype=converted.dtype)


def _read_as(kind: ColumnKind, raw: RawColumn) -> Detected:
    """Return the values of a column in the form of a kind that the user requests."""
    values, rules = raw.values, raw.rules
    if raw.is_categorical:  # other kinds leave categories alone
        raw = RawColumn(values.astype(object), rules)
    detected = kind.detect(raw)
    if detected is not None:
        return detected
    if raw.texts is not None and not raw.texts.labels:
        return Detected(kind, kind.missing_values(len(values)).to_numpy())
    labels = [] if raw.texts is None else raw.texts.labels
    odd = next((label for label in labels if kind.detect(RawColumn(pd.Series([label]), rules)) is None), None)
    reason = "" if odd is None else f", because of values such as {odd!r}"
    raise DataError(
        f"Column {values.name!r} cannot be read as {kind.plural}{reason}. Choose another type for it, or "
        "omit the type to detect it.",
        "types",
    )


def _reason_to_set_aside(source: pd.Series, detected: Detected, missing: int, *, is_kept: bool) -> str:
    if detected.kind is None:
        return detected.notes[0]
    if missing == len(detected.values):
        return "no value in any row"
    if is_kept:
        return CONSTANT if is_constant(detected.values) else ""
    return detected.kind.reason_to_set_aside(str(source.name), detected.values) or find_identifier(
        source, detected.values
    )
