"""Text columns in which nearly all values can be read, for example as numbers. The others count as missing."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from poise.study.columns.base import Texts
from poise.study.errors import count_noun, quote_names

FEWEST_READABLE = 0.95
"""The share of values that must be readable."""
MOST_IGNORED_TEXTS = 20
MOST_LISTED = 4


class Unreadable(NamedTuple):
    """Texts that count as missing because they cannot be read, and the number of rows that hold them."""

    texts: tuple[str, ...]
    rows: int

    def note(self, noun: str) -> list[str]:
        """Return the note about them, if there are any."""
        if not self.texts:
            return []
        return [f"{count_noun(self.rows, 'value')} not a {noun}, such as {self.texts[0]!r}, treated as missing"]


def find_unreadable(texts: Texts, missing: Sequence[bool], readable: Sequence[bool] | np.ndarray) -> Unreadable | None:
    """Return the texts that cannot be read if they are few, else None.

    Args:
        texts: The texts of a column.
        missing: For each label whether it stands for a missing value.
        readable: For each label whether it can be read.
    """
    is_missing, is_readable = np.array(missing, bool), np.array(readable, bool)
    is_wrong = ~is_missing & ~is_readable
    lost, present = texts.counts[is_wrong].sum(), texts.counts[~is_missing].sum()
    if is_wrong.sum() > MOST_IGNORED_TEXTS or lost > (1 - FEWEST_READABLE) * present or not present:
        return None
    return Unreadable(tuple(texts.labels[place] for place in np.flatnonzero(is_wrong)), int(lost))


def note_missing(texts: Texts, missing: Sequence[bool]) -> list[str]:
    """Return the note about texts that stand for a missing value, if there are any."""
    labels = [label for label, is_missing in zip(texts.labels, missing, strict=True) if is_missing]
    return [f"{quote_names(labels, MOST_LISTED)} treated as missing"] if labels else []
