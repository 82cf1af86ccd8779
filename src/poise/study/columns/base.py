"""What every kind of column does: recognize values, convert new ones, and become inputs of a network.

To add a kind of column, write one subclass of `ColumnKind` in a file of its own in this folder, and list it in
`poise.study.columns.kinds.KINDS`. Nothing else compares names of kinds.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types as dtypes
from sklearn.base import BaseEstimator

from poise.study.columns.set_aside import SET_ASIDE
from poise.study.columns.text_rules import TextRules

CONSTANT = "the same value in every row"
PIECE = "piece "
"""How the parts of a `Key` begin that are pieces of a piecewise-linear encoding."""


class Key(NamedTuple):
    """What an input of the network is.

    Args:
        column: The column it comes from.
        part: What it shows of the column, such as `"value"`, `"missing"`, `"category"` or `"weekday"`.
        category: The category, for an input that stands for one; `None` also for the category of missing values.
    """

    column: str
    part: str
    category: str | None = None

    @property
    def is_piece(self) -> bool:
        """Whether the input is a piece of a piecewise-linear encoding."""
        return self.part.startswith(PIECE)


@dataclass(frozen=True)
class Column:
    """A column of the source and how it was read.

    Args:
        name: The column's name in the source.
        kind: The name of its `ColumnKind`, or `"set aside"`.
        missing: How many rows have no value.
        note: Why the column is set aside, or how its values were changed. Default: `""`.
        text_format: How text is converted to its values, so that new rows are read the same way, such as `","` (the
            decimal mark) or `"day first"`. Default: `""`, for values that were not text.
        ignored_texts: Texts that could not be converted and count as missing. Default: `()`.
    """

    name: str
    kind: str
    missing: int
    note: str
    text_format: str = ""
    ignored_texts: tuple[str, ...] = ()

    @property
    def is_used(self) -> bool:
        """Whether the network may read the column."""
        return self.kind != SET_ASIDE


@dataclass(frozen=True, eq=False)
class Texts:
    """The distinct values of a column as text.

    Args:
        codes: (rows,) the position in `labels` of each row's text; −1 for a missing value, or a text that stands for
            one whatever the column holds.
        labels: The distinct texts.
        is_text: For each label whether it was text in the source, and not a number, say.
    """

    codes: np.ndarray
    labels: list[str]
    is_text: list[bool]

    def spread(self, values: Sequence[object] | np.ndarray, missing: object, dtype: Any = None) -> np.ndarray:
        """Return one value per row, given one value per label and the value of missing rows."""
        return np.array([*values, missing], dtype=dtype)[self.codes]

    @cached_property
    def counts(self) -> np.ndarray:
        """(labels,) the number of rows of each label."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.labels))


class RawColumn:
    """A column as it stands in the source.

    Args:
        values: (rows,) its values.
        rules: How its text is read. Default: `TextRules()`.
    """

    def __init__(self, values: pd.Series, rules: TextRules | None = None) -> None:
        self.values = values
        self.rules = rules or TextRules()

    @property
    def dtype(self) -> Any:
        """The pandas or NumPy type of the values."""
        return self.values.dtype

    @property
    def is_numeric(self) -> bool:
        """Whether the values are real numbers or truth values."""
        is_number = dtypes.is_numeric_dtype(self.dtype) or dtypes.is_bool_dtype(self.dtype)
        return is_number and not self.is_complex

    @property
    def is_complex(self) -> bool:
        """Whether the values are complex numbers."""
        return dtypes.is_complex_dtype(self.dtype)

    @property
    def is_categorical(self) -> bool:
        """Whether pandas already treats the values as categories."""
        return isinstance(self.dtype, pd.CategoricalDtype)

    @cached_property
    def texts(self) -> Texts | None:
        """The values as text; `None` if they cannot be compared, such as lists, or are complex numbers."""
        if self.is_complex:
            return None
        try:
            codes, distinct = pd.factorize(self.values)
        except TypeError:
            return None
        place: dict[str, int] = {}
        is_text: list[bool] = []
        merged = np.full(len(distinct) + 1, -1)  # the last is that of missing values, whose code is −1
        for number, value in enumerate(np.asarray(distinct, dtype=object)):
            label = text_of(value).strip()
            if not self.rules.is_missing(label):
                merged[number] = place.setdefault(label, len(place))
                if len(is_text) < len(place):
                    is_text.append(isinstance(value, str))
        return Texts(merged[codes], list(place), is_text)

    @cached_property
    def missing(self) -> list[bool]:
        """For each label of `texts` whether it stands for a missing number or date."""
        return [self.rules.is_missing_value(label) for label in self.texts.labels] if self.texts else []


@dataclass
class Detected:
    """The values of a column in the form that its kind uses.

    Args:
        kind: The kind of the column, or `None` for values that no kind accepts.
        values: (rows,) the values.
        notes: How the values were changed. Default: none.
        doubt: What no value shows, so that it was assumed, as a sentence about the column. Default: `""`.
        text_format, ignored_texts: See `Column`.
        is_truth: Whether the numbers are truth values. Default: `False`.
    """

    kind: "ColumnKind | None"
    values: np.ndarray
    notes: list[str] = field(default_factory=list)
    doubt: str = ""
    text_format: str = ""
    ignored_texts: tuple[str, ...] = ()
    is_truth: bool = False


class UnexpectedValueError(ValueError):
    """Raised when new rows hold something that the column did not hold; the message says what."""


class ColumnKind(ABC):
    """A kind of column.

    Subclasses have no state. `detect` and `convert` decide what the column holds; the other methods turn it into
    inputs, with the defaults that suit a column whose values are one number per row.

    Attributes:
        name: The kind's name in tables and in study.json.
        plural: What its values are called in messages.
        is_ordered: Whether rows can be sorted by the values.
        is_target: Whether the values, as numbers or as classes, can be predicted.
        is_joint: Whether one transformer takes all columns of the kind at once, or each column has its own.
    """

    name: ClassVar[str]
    plural: ClassVar[str]
    is_ordered: ClassVar[bool] = False
    is_target: ClassVar[bool] = False
    is_joint: ClassVar[bool] = False

    @abstractmethod
    def detect(self, raw: RawColumn) -> Detected | None:
        """Return the values of a column of this kind, or `None` if the column is of another kind."""

    @abstractmethod
    def convert(self, raw: RawColumn, column: Column) -> np.ndarray:
        """Return the values of new rows, read in the same way as `column`, except for what `raw.rules` demands.

        Raises:
            UnexpectedValueError: If the rows hold something else.
        """

    def reason_to_set_aside(self, name: str, values: np.ndarray) -> str:
        """Return why a network cannot learn from these values, of which at least one is present, or `""`."""
        return CONSTANT if is_constant(values) else ""

    def missing_values(self, rows: int) -> pd.Series:
        """Return the given number of rows without a value."""
        return pd.Series(np.full(rows, np.nan))

    # ------------------------------------------------------------ inputs

    def lay_out(self, features: pd.DataFrame) -> tuple[pd.DataFrame, list[Key]]:
        """Return what the transformer takes of columns of this kind, and what each of its columns shows."""
        return features, [Key(name, "value") for name in features.columns]

    def used_parts(self, values: pd.Series) -> tuple[str, ...] | None:
        """Return the parts of a column that vary in the rows fitted on; `None` for all."""
        return None

    def takes_pieces(self, values: pd.Series) -> bool:
        """Return whether a piecewise-linear encoding shows more of a column of the rows fitted on than one number."""
        return False

    def make_piecewise_transformer(self) -> BaseEstimator | None:
        """Return a transformer of piecewise-linear encodings, not fitted, or `None` if the kind has no such encoding.

        It takes the first place of every column in what `lay_out` returns.
        """
        return None

    @abstractmethod
    def make_transformer(self) -> BaseEstimator:
        """Return a scikit-learn transformer, not fitted, that takes what `lay_out` returns."""

    def weigh(self, transformer: Any, values: pd.DataFrame, weight: np.ndarray) -> None:
        """Fit a transformer, already fitted to these values, by the positive weights of their rows."""
        return

    @abstractmethod
    def input_keys(self, transformer: Any, keys: Sequence[Key]) -> list[Key]:
        """Return what each output of a fitted transformer is, given the keys of its inputs."""

    def name_input(self, key: Key) -> str:
        """Return the name of an input."""
        return key.column if key.part == "value" else f"{key.column} {key.part}"

    def fallback(self, key: Key) -> Key | None:
        """Return the input that stands for another one that the encoder of all rows does not have, if any."""
        return None


def is_constant(values: np.ndarray) -> bool:
    """Return whether every row has the same value."""
    return not pd.isna(values).any() and len(pd.unique(values)) == 1


def text_of(value: object) -> str:
    """Return a value as text; a float with up to 12 digits if they are exact."""
    if isinstance(value, (float, np.floating)):
        short = f"{value:.12g}"
        return short if float(short) == value else repr(float(value))
    return str(value)
