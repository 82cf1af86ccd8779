"""The table of column kinds, and the types that a user can request."""

from typing import NamedTuple

from poise.study.columns.base import ColumnKind
from poise.study.columns.category_column import CategoryColumn
from poise.study.columns.date_column import DateColumn
from poise.study.columns.number_column import NumberColumn

NUMBER, DATE, CATEGORY = NumberColumn(), DateColumn(), CategoryColumn()
KINDS: tuple[ColumnKind, ...] = (NUMBER, DATE, CATEGORY)
"""The first kind that recognizes a column gets it; a new kind goes before `CategoryColumn`, which takes any text."""


class RequestedType(NamedTuple):
    """What a user says about a column.

    Args:
        kind: The kind that reads it; `None` leaves it out.
        is_kept: Whether it is used although it looks like free text or an identifier. Default: `False`.
    """

    kind: ColumnKind | None
    is_kept: bool = False


TYPES = {
    "categorical": RequestedType(CATEGORY, is_kept=True),
    "numeric": RequestedType(NUMBER, is_kept=True),
    "date": RequestedType(DATE, is_kept=True),
    "text": RequestedType(CATEGORY),
    "drop": RequestedType(None),
}
"""By the name of a type in `poise.run_study`."""


def kind_named(name: str) -> ColumnKind:
    """Return the kind of a name.

    Raises:
        KeyError: If there is no such kind.
    """
    return {kind.name: kind for kind in KINDS}[name]
