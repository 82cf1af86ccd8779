"""The table of column kinds."""

from poise.study.columns.base import ColumnKind
from poise.study.columns.category_column import CategoryColumn
from poise.study.columns.date_column import DateColumn
from poise.study.columns.number_column import NumberColumn

KINDS: tuple[ColumnKind, ...] = (NumberColumn(), DateColumn(), CategoryColumn())
"""The first kind that recognizes a column gets it; a new kind goes before `CategoryColumn`, which takes any text."""


def kind_named(name: str) -> ColumnKind:
    """Return the kind of a name.

    Raises:
        KeyError: If there is no such kind.
    """
    return {kind.name: kind for kind in KINDS}[name]
