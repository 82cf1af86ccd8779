"""Turn columns into inputs of a network, by what the rows fitted on show."""

import codecs
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer

from poise.study.columns.base import Column, ColumnKind, Key
from poise.study.columns.kinds import KINDS, kind_named
from poise.study.errors import DataError

STANDARD, PIECEWISE, AUTO = "standard", "piecewise", "auto"
ENCODINGS = (AUTO, STANDARD, PIECEWISE)
LARGEST = float(np.finfo("float32").max)


class Encoder:
    """Encode features as a float32 array, each kind of column in its own way (see the classes of `KINDS`).

    Args:
        columns: The columns of the table; those set aside are ignored.
        encoding: `"standard"`, or `"piecewise"`, which adds the pieces of columns of numbers after all other inputs.
            Default: `"standard"`.

    Attributes:
        transformer: The `ColumnTransformer` that does it, made of scikit-learn's own parts. It takes columns by
            position; `Encoder.transform` lays them out.
        inputs: The name of each input, such as `"age"`, `"age missing"`, `"color=red"`, `"color=(other)"` or
            `"when year"`; no name appears twice.
        owners: The column that each input comes from.
        keys: What each input is, without ambiguity.

    Examples:
        >>> from poise.study.columns.encoding import Encoder
        >>> from poise.study.tables import read
        >>> table = read("diabetes")
        >>> encoder = Encoder(table.columns).fit(table.features)
        >>> encoder.transform(table.features).shape, encoder.inputs[:3]
        ((442, 10), ('age', 'sex', 'bmi'))
    """

    transformer: ColumnTransformer
    inputs: tuple[str, ...]
    owners: tuple[str, ...]
    keys: tuple[Key, ...]

    def __init__(self, columns: Sequence[Column], encoding: str = STANDARD) -> None:
        self.encoding = encoding
        self.columns = tuple(column for column in columns if column.is_used)

    def fit(self, features: pd.DataFrame, weight: np.ndarray | None = None) -> "Encoder":
        """Fit medians, scales and categories to these rows, and return the encoder.

        Args:
            features: The rows.
            weight: (rows,) positive weights, by which medians, means and standard deviations are computed. Default:
                `None`.
        """
        laid_out, layout = self._lay_out(features)
        places: dict[str, list[int]] = {column.name: [] for column in self.columns}
        for place, key in enumerate(layout):
            places[key.column].append(place)
        kinds: list[ColumnKind] = []
        parts: list[tuple[str, object, list[int]]] = []
        for kind, names in self._groups():
            taken = [place for name in names for place in _used_places(kind, features[name], places[name], layout)]
            kinds.append(kind)
            parts.append((f"{kind.name} {taken[0]}", kind.make_transformer(), taken))
        if self.encoding == PIECEWISE:
            for kind, names in self._groups():
                taken = [places[name][0] for name in names if kind.takes_pieces(features[name])]
                transformer = kind.make_piecewise_transformer()
                if taken and transformer is not None:
                    kinds.append(kind)
                    parts.append((f"{kind.name} pieces {taken[0]}", transformer, taken))
        self.transformer = ColumnTransformer(parts, sparse_threshold=0.0)
        self.transformer.fit(laid_out)
        fitted = self.transformer.transformers_[: len(parts)]
        if weight is not None:
            for kind, (_, part, taken) in zip(kinds, fitted, strict=True):
                kind.weigh(part, laid_out[taken], weight)
        self.keys = tuple(
            key
            for kind, (_, part, taken) in zip(kinds, fitted, strict=True)
            for key in kind.input_keys(part, [layout[place] for place in taken])
        )
        self.owners = tuple(key.column for key in self.keys)
        kind_of = {column.name: kind_named(column.kind) for column in self.columns}
        self.inputs = _make_unique([kind_of[key.column].name_input(key) for key in self.keys])
        return self

    def transform(self, features: pd.DataFrame) -> np.ndarray:
        """Return the rows as (rows, inputs) float32, all finite."""
        with np.errstate(over="ignore"):
            x = np.asarray(self.transformer.transform(self._lay_out(features)[0]))
        return np.clip(x, -LARGEST, LARGEST).astype("float32")

    @property
    def other_inputs(self) -> np.ndarray:
        """The positions of the inputs that are not pieces of a piecewise-linear encoding."""
        return np.flatnonzero([not key.is_piece for key in self.keys])

    def kind_of(self, key: Key) -> ColumnKind:
        """Return the kind of the column that an input comes from."""
        return kind_named(next(column.kind for column in self.columns if column.name == key.column))

    def _groups(self) -> Iterator[tuple[ColumnKind, list[str]]]:
        """The columns that share a transformer: all of a joint kind, then each of the others, in order."""
        for kind in KINDS:
            names = [column.name for column in self.columns if column.kind == kind.name]
            if kind.is_joint and names:
                yield kind, names
        for column in self.columns:
            kind = kind_named(column.kind)
            if not kind.is_joint:
                yield kind, [column.name]

    def _lay_out(self, features: pd.DataFrame) -> tuple[pd.DataFrame, list[Key]]:
        """What the transformer takes, and what each of its columns shows."""
        blocks: list[pd.DataFrame] = []
        layout: list[Key] = []
        for kind in KINDS:
            names = [column.name for column in self.columns if column.kind == kind.name]
            if names:
                block, keys = kind.lay_out(features[names])
                blocks.append(block)
                layout += keys
        return pd.concat(blocks, axis="columns").set_axis(range(len(layout)), axis="columns"), layout


def check_encoding(encoding: str) -> None:
    """Raise DataError unless the encoding is one of `ENCODINGS`."""
    if encoding not in ENCODINGS:
        hint = (
            f" To read a CSV file in this text encoding, use text_encoding={encoding!r}." if _is_text(encoding) else ""
        )
        known = ", ".join(map(repr, ENCODINGS))
        raise DataError(f"encoding must be one of {known}, got {encoding!r}.{hint}", "encoding")


def _is_text(name: str) -> bool:
    """Return whether Python knows a text encoding of this name."""
    try:
        codecs.lookup(name)
    except (LookupError, TypeError):
        return False
    return True


def _used_places(kind: ColumnKind, values: pd.Series, places: list[int], layout: list[Key]) -> list[int]:
    used = kind.used_parts(values)
    if used is None:
        return places
    place_of = {layout[place].part: place for place in places}
    return [place_of[part] for part in used]


def _make_unique(names: list[str]) -> tuple[str, ...]:
    """Return the names, with a number after those that appear again: "a=b=c" may come about in two ways."""
    taken: set[str] = set()
    for place, name in enumerate(names):
        number = 2
        while names[place] in taken:
            names[place], number = f"{name} ({number})", number + 1
        taken.add(names[place])
    return tuple(names)
