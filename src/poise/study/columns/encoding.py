"""Columns become inputs of a network, by what the rows that train show.

`Encoder` is fitted on some rows and encodes any: numbers and dates filled in and standardized, categories one input
each. `folds_of` encodes the training rows once for every fold, by an encoder that has seen the rows that train in that
fold alone, and stacks the results, so that every fold of a path trains and is judged on inputs that no held-out row
has touched.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from poise.path.training import Replica
from poise.study.columns.columns import Column
from poise.study.sources import DataError
from poise.study.tables import Table

MOST_INPUTS = 50
LARGEST = float(np.finfo("float32").max)
SQUARABLE = 1e100  # beyond it the variance of a column might overflow
DATE_PARTS = ("year", "month", "day", "weekday", "hour", "days", "missing")

Key = tuple[str, str, str | None]  # the column, what the input is of it, and the category


class Encoder:
    """Features as a float32 array, by what the rows it was fitted on show.

    Numbers are filled in by the median, with an input that says so where some are missing, and standardized; dates
    become year, month, day, weekday, hour (if a time is not midnight), days since 1970, and whether the date is
    missing, treated alike. What is constant in the fitted rows is 0 everywhere. Categories become one input each, 0 or
    1 and not scaled, a missing one as a category of its own; of more than 50, the rarest share the input "(other)",
    which new categories join. Without that input a new category is 0 in all.

    Args:
        columns: of the table; those set aside are ignored.

    Attributes:
        transformer: the ColumnTransformer of scikit-learn that does it, of scikit-learn's own parts alone. It takes
            the columns in use by position, each date as seven numbers: `Encoder.transform` lays them out.
        inputs: a name for each input: "age", "age missing", "color=red", "color=(missing)", "color=(other)",
            "when year", …; none twice.
        owners: the column that each input stems from.
        keys: what each input is, beyond doubt: (column, "value", "missing", "category", "other" or the part of the
            date, and the category, None for a missing one).

    Example:
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

    def __init__(self, columns: tuple[Column, ...]):
        self.columns = tuple(column for column in columns if column.kind != "set aside")

    def fit(self, features: pd.DataFrame) -> "Encoder":
        """Learns medians, scales and categories of these rows, and returns itself."""
        laid_out, layout = self._lay_out(features)
        places: dict[str, dict[str, int]] = {column.name: {} for column in self.columns}
        for place, (name, kind, _) in enumerate(layout):
            places[name][kind] = place
        numbers = [places[column.name]["value"] for column in self.columns if column.kind == "number"]
        parts: list[tuple[str, object, list[int]]] = [("numbers", _scaling(True), numbers)] if numbers else []
        for column in self.columns:
            own = places[column.name]
            if column.kind == "category":
                parts.append((f"category {own['category']}", _one_hot(), [own["category"]]))
            elif column.kind == "date":
                shown = _parts_shown(features[column.name])
                parts.append((f"date {own['year']}", _scaling(False), [own[part] for part in shown]))
        self.transformer = ColumnTransformer(parts, sparse_threshold=0.0)
        self.transformer.fit(laid_out)
        keys: list[Key] = []
        for name, part, own in self.transformer.transformers_[: len(parts)]:
            fitted = [layout[place] for place in own]
            keys += _category_keys(part, fitted[0][0]) if name.startswith("category") else _scaled_keys(part, fitted)
        self.keys = tuple(keys)
        self.owners = tuple(owner for owner, _, _ in keys)
        self.inputs = _different([_name(key) for key in keys])
        return self

    def transform(self, features: pd.DataFrame) -> np.ndarray:
        """The rows as (rows, inputs) float32, all finite."""
        with np.errstate(over="ignore"):
            x = np.asarray(self.transformer.transform(self._lay_out(features)[0]))
        return np.clip(x, -LARGEST, LARGEST).astype("float32")

    def _lay_out(self, features: pd.DataFrame) -> tuple[pd.DataFrame, list[Key]]:
        """What the transformer takes: numbers, categories, then each date as its parts; and what each place holds."""
        numbers, texts, dates = (
            [column.name for column in self.columns if column.kind == kind] for kind in ("number", "category", "date")
        )
        blocks = [features[numbers].clip(-SQUARABLE, SQUARABLE), features[texts]]
        blocks += [_parts_of(features[name]) for name in dates]
        layout: list[Key] = [(name, "value", None) for name in numbers]
        layout += [(name, "category", None) for name in texts]
        layout += [(name, part, None) for name in dates for part in DATE_PARTS]
        return pd.concat(blocks, axis="columns").set_axis(range(len(layout)), axis="columns"), layout


@dataclass(frozen=True, eq=False)
class Folds:
    """The training rows, encoded once for every fold by what that fold trains on.

    All arrays are stacked: block b holds every row as fold b's own encoder sees it, the last block as that of all rows.

    Args:
        x: (blocks * rows, inputs) float32.
        y: regression: (blocks * rows, 1) standardized by the rows that train in the block; counts: (…, 1) as they are;
            binary: (…, 1) 0 or 1; multiclass: (…,) int32.
        weight: (blocks * rows,) float32; None for none.
        replicas: one a block; `train` and `held` are positions in x, all within the block. The last has fold −1 and
            trains on all rows.
        encoder: that of all rows, whose inputs are the columns of x.
        center, scale: of the target of all rows (weighted where there are weights); (0, 1) but in regression.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    replicas: list[Replica]
    encoder: Encoder
    center: float
    scale: float


def folds_of(table: Table, rows: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Folds:
    """Encodes the rows that may train, once for every fold and once for all.

    Args:
        table: of `poise.study.tables.read`.
        rows: positions in the table of the rows that may train; no other row is looked at.
        pairs: for each fold positions within `rows`: those that train, and those held out.

    Raises:
        DataError: the rows that train in a fold weigh nothing, or numbers are too large for float32.

    Example:
        >>> import numpy as np
        >>> from poise.study.columns.encoding import folds_of
        >>> from poise.study.tables import read
        >>> folds = folds_of(read("diabetes"), np.arange(400), [(np.arange(300), np.arange(300, 400))])
        >>> folds.x.shape, [(replica.fold, len(replica.train), len(replica.held)) for replica in folds.replicas]
        ((800, 10), [(0, 300, 100), (-1, 400, 0)])
    """
    size = len(rows)
    features = table.features.iloc[rows].reset_index(drop=True)
    encoder = Encoder(table.columns).fit(features)
    parts = [(fold, np.asarray(train), np.asarray(held)) for fold, (train, held) in enumerate(pairs)]
    parts.append((-1, np.arange(size), np.arange(0)))
    x = np.zeros((len(parts) * size, len(encoder.inputs)), "float32")
    replicas = []
    for block, (fold, train, held) in enumerate(parts):
        own = encoder if fold < 0 else Encoder(table.columns).fit(features.iloc[train])
        start = block * size
        _place(own, features, encoder.keys, x[start : start + size])
        replicas.append(Replica(fold, 0, start + train, start + held))
    weight = None if table.weight is None else table.weight.to_numpy()[rows]
    y, center, scale = _targets(table, rows, [train for _, train, _ in parts], weight)
    stacked = None if weight is None else _finite_float32(np.tile(weight, len(parts)), str(table.weight.name))  # pyright: ignore
    return Folds(x, y, stacked, replicas, encoder, center, scale)


# ---------------------------------------------------------------- the parts of an encoder


def _scaling(add_indicator: bool) -> Pipeline:
    fill = SimpleImputer(strategy="median", add_indicator=add_indicator, keep_empty_features=True)
    return Pipeline([("fill", fill), ("scale", StandardScaler())])


def _one_hot() -> OneHotEncoder:
    return OneHotEncoder(max_categories=MOST_INPUTS, handle_unknown="infrequent_if_exist", sparse_output=False)


def _parts_of(dates: pd.Series) -> pd.DataFrame:
    part = dates.dt
    days = (dates - pd.Timestamp(0)) / pd.Timedelta(days=1)
    values = (part.year, part.month, part.day, part.day_of_week, part.hour, days, dates.isna())
    return pd.DataFrame({name: value.astype("float64") for name, value in zip(DATE_PARTS, values, strict=True)})


def _parts_shown(dates: pd.Series) -> list[str]:
    """The hour where a time is not midnight, "missing" where a date is."""
    hidden = {
        "hour": bool((dates.dropna() == dates.dropna().dt.normalize()).all()),
        "missing": not dates.isna().any(),
    }
    return [part for part in DATE_PARTS if not hidden.get(part)]


def _scaled_keys(part: Pipeline, fitted: list[Key]) -> list[Key]:
    """What a scaling gives out; and what is constant is made 0 for every row, those not fitted on too."""
    constants_to_zero(part.named_steps["scale"])
    indicator = part.named_steps["fill"].indicator_
    missing = [] if indicator is None else [(fitted[place][0], "missing", None) for place in indicator.features_]
    return [*fitted, *missing]


def constants_to_zero(scaler) -> None:
    """Under a fitted StandardScaler what was constant becomes 0 in all rows: scikit-learn gives it the scale 1."""
    scaler.scale_[(scaler.scale_ == 1.0) & ~np.isclose(scaler.var_, 1.0)] = np.inf


def _category_keys(part: OneHotEncoder, column: str) -> list[Key]:
    rare = part.infrequent_categories_[0]
    shared = set() if rare is None else set(rare)
    own: list[Key] = [(column, "category", category) for category in part.categories_[0] if category not in shared]
    return [*own, (column, "other", None)] if shared else own


def _name(key: Key) -> str:
    column, kind, category = key
    if kind == "value":
        return column
    if kind == "other":
        return f"{column}=(other)"
    if kind == "category":
        return f"{column}={'(missing)' if category is None else category}"
    return f"{column} {kind}"


def _different(names: list[str]) -> tuple[str, ...]:
    """The names, a number after those that another input has already: "a=b=c" may come about in two ways."""
    taken: set[str] = set()
    for place, name in enumerate(names):
        number = 2
        while names[place] in taken:
            names[place], number = f"{name} ({number})", number + 1
        taken.add(names[place])
    return tuple(names)


# ---------------------------------------------------------------- the parts of the folds


def _place(own: Encoder, features: pd.DataFrame, keys: tuple[Key, ...], x: np.ndarray) -> None:
    """Writes what a fold's encoder sees into the columns of all rows' encoder; what it does not know stays 0."""
    column = {key: place for place, key in enumerate(keys)}
    encoded = own.transform(features)
    known = [place for place, key in enumerate(own.keys) if key in column]
    x[:, [column[own.keys[place]] for place in known]] = encoded[:, known]
    for place, key in enumerate(own.keys):
        if key not in column:  # a category that is among the rare ones of all rows
            x[:, column[key[0], "other", None]] += encoded[:, place]


def _targets(
    table: Table, rows: np.ndarray, trained: list[np.ndarray], weight: np.ndarray | None
) -> tuple[np.ndarray, float, float]:
    name, values = str(table.target.name), table.target.to_numpy()[rows]
    if table.classes:
        codes = pd.Categorical(values, categories=list(table.classes)).codes
        stacked = np.tile(codes, len(trained))
        return (stacked.astype("float32")[:, None] if table.task == "binary" else stacked.astype("int32")), 0.0, 1.0
    if weight is not None and any(not weight[train].any() for train in trained):
        raise DataError(
            f"All rows that train in one of the folds have the weight 0 ({table.weight.name!r}). "  # pyright: ignore
            "Use fewer folds, or another weight."
        )
    if table.task == "counts":
        return _finite_float32(np.tile(values, len(trained)), name)[:, None], 0.0, 1.0
    blocks, center, scale = [], 0.0, 1.0
    for train in trained:
        y, center, scale = standardized(values, train, None if weight is None else weight[train])
        blocks.append(y)
    return _finite_float32(np.concatenate(blocks), name)[:, None], center, scale


def standardized(values: np.ndarray, train: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, float, float]:
    """The values less the mean and over the standard deviation of those that train; the unit keeps squares finite."""
    unit = float(np.abs(values[train]).max()) or 1.0
    if weight is not None:
        weight = weight / weight.max()
    with np.errstate(over="ignore", invalid="ignore"):
        y = values / unit
        center = float(np.average(y[train], weights=weight))
        scale = float(np.sqrt(np.average((y[train] - center) ** 2, weights=weight)))
        scale = scale if scale > 1e-14 else 1.0 / unit
        return (y - center) / scale, center * unit, scale * unit


def _finite_float32(values: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = values.astype("float32")
    if not np.isfinite(values).all():
        raise DataError(f"The numbers in {name!r} are too large to standardize. Use other units.")
    return values
