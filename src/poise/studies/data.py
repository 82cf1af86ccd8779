"""A table on disk becomes arrays for a network.

`read` finds the rows, the target and the task; `split` puts validation rows aside and fits every encoder on the
training rows alone, so that no validation row is seen before it is scored. Whatever a network could not digest
(missing values, identifiers, a constant target) is refused here, in a sentence that says what to do.
"""

import csv
import difflib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api import types as dtypes
from sklearn import datasets
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder, StandardScaler

BUILT_IN = {
    "diabetes": datasets.load_diabetes,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "wine": datasets.load_wine,
}
TASKS = ("regression", "binary", "multiclass")
FEWEST_ROWS = 20
MOST_CATEGORIES = 50
MOST_CLASSES_GUESSED = 20
ROWS_A_CLASS_GUESSED = 10


class DataError(ValueError):
    """The data, or what is asked of them, cannot be studied. The text says what, why and what to do instead."""


@dataclass(frozen=True)
class Table:
    """Features and target as they were read, and the task they pose.

    Args:
        name: a short name, that of the built-in table or of the file without its ending.
        source: what `read` was given, so that the same lines can read it again.
        features: one row an example; number columns are float64, all others text.
        target: one value a row; float64 in regression, else text.
        task: "regression", "binary" or "multiclass".
        classes: the classes in the order of the network's outputs; empty in regression.
    """

    name: str
    source: str
    features: pd.DataFrame
    target: pd.Series
    task: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Training and validation rows of a table, encoded as float32 arrays by what the training rows show.

    Args:
        table: where they come from.
        x_train, x_validation: (rows, inputs).
        y_train, y_validation: (rows, 1) standardised numbers in regression, 0 or 1 in a binary task;
            (rows,) class numbers in a multi-class task.
        inputs: a name for each input: the column's, or "column=category".
        owners: the column that each input stems from.
        centre, scale: the training rows' mean and standard deviation of the target; (0, 1) for classes.
        encoder: the fitted encoder of the features.
    """

    table: Table
    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    inputs: tuple[str, ...]
    owners: tuple[str, ...]
    centre: float
    scale: float
    encoder: ColumnTransformer

    @property
    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        """`validation_data` of `model.fit`."""
        return self.x_validation, self.y_validation


def read(
    source: str | os.PathLike[str] | pd.DataFrame,
    target: str | None = None,
    *,
    task: str | None = None,
    drop: Sequence[str] = (),
) -> Table:
    """Reads a table and finds its task.

    Args:
        source: "diabetes", "breast_cancer", "digits", "wine", the path of a CSV file, or a DataFrame.
        target: the column to predict; a built-in table has its own.
        task: "regression", "binary" or "multiclass"; None infers it: text, truth values, two different values or
            few whole numbers (at most 20, each in 10 rows on average) are classes, all else is regression.
        drop: columns to leave out.

    Raises:
        DataError: the table cannot be studied; the text says why and what to do.

    Example:
        >>> from poise.studies import read
        >>> table = read("wine")
        >>> table.task, table.classes, table.features.shape
        ('multiclass', ('class_0', 'class_1', 'class_2'), (178, 13))
    """
    if task is not None and task not in TASKS:
        raise DataError(f"Task {task!r} is unknown. Use one of {', '.join(TASKS)}, or leave it out to infer it.")
    name, text, frame = _load(source)
    if target is None and text in BUILT_IN:
        target = "target"
    _check_header([str(column) for column in frame.columns], name)
    frame = frame.set_axis([str(column) for column in frame.columns], axis="columns")
    if target is None:
        raise DataError(f"{name} needs a target. Name the column to predict, one of: {_few(frame.columns)}.")
    for column in (target, *drop):
        _check_column(column, frame, name)
    if target in drop:
        raise DataError(
            f"Column {target!r} is the target and cannot be dropped. Drop others, or choose another target."
        )
    frame = frame.drop(columns=list(drop))
    if len(frame) < FEWEST_ROWS:
        raise DataError(
            f"{name} has {len(frame)} rows, and a study needs at least {FEWEST_ROWS} to train on some "
            "and validate on others. Bring more rows."
        )
    if frame.shape[1] < 2:
        raise DataError(f"{name} has no column beside its target {target!r}. Bring at least one to predict it from.")
    _check_finite(frame)
    values, task, classes = _pose(frame[target], task)
    columns = {column: _feature(frame[column]) for column in frame.columns if column != target}
    return Table(Path(name).stem, text, pd.DataFrame(columns, index=frame.index), values, task, classes)


def split(table: Table, *, validation: float = 0.3, seed: int = 0) -> Split:
    """Splits the rows once, stratified by class, and encodes them by what the training rows show.

    Args:
        table: what `read` returned.
        validation: the share of rows put aside for validation, between 0 and 1.
        seed: decides which rows.

    Raises:
        DataError: a part would be too small, or numbers are too large for float32.

    Example:
        >>> from poise.studies import read, split
        >>> rows = split(read("diabetes"))
        >>> rows.x_train.shape, rows.x_validation.shape
        ((309, 10), (133, 10))
    """
    if not 0.0 < validation < 1.0:
        raise DataError(f"The share of validation rows is {validation!r}; it must lie between 0 and 1, such as 0.3.")
    size, fewest = len(table.features), max(2, len(table.classes))
    if min(int(np.ceil(validation * size)), size - int(np.ceil(validation * size))) < fewest:
        raise DataError(
            f"{size} rows with a validation share of {validation:g} leave fewer than {fewest} rows on one "
            "side. Bring more rows, or a share nearer to 0.5."
        )
    strata = table.target if table.classes else None
    parts = train_test_split(np.arange(size), test_size=validation, random_state=seed, stratify=strata)
    training, held_out = map(np.asarray, parts)
    encoder, inputs, owners = _fit_encoder(table.features.iloc[training])
    x = _finite_float32(np.asarray(encoder.transform(table.features)), inputs)
    y, centre, scale = _encode_target(table, training)
    return Split(table, x[training], y[training], x[held_out], y[held_out], inputs, owners, centre, scale, encoder)


def _load(source: str | os.PathLike[str] | pd.DataFrame) -> tuple[str, str, pd.DataFrame]:
    if isinstance(source, pd.DataFrame):
        return "The table", "", source
    text = os.fspath(source)
    if text in BUILT_IN:
        bunch = BUILT_IN[text](as_frame=True)
        frame = bunch.frame.copy()
        if text != "diabetes":
            frame["target"] = [str(bunch.target_names[code]) for code in frame["target"]]
        return text, text, frame
    return Path(text).name, text, _read_csv(Path(text))


def _read_csv(path: Path) -> pd.DataFrame:
    if not path.exists():
        near = difflib.get_close_matches(str(path), BUILT_IN, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(
            f"There is no file {str(path)!r}.{meant} Give the path of a CSV file, or a built-in table: "
            f"{', '.join(BUILT_IN)}."
        )
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a folder. Give the path of a CSV file.")
    if path.suffix.lower() in {".parquet", ".xlsx", ".xls", ".npz", ".npy", ".json", ".feather"}:
        raise DataError(
            f"{path.name!r} is not a CSV file, the only kind read so far. Write it as one, "
            "or pass a pandas DataFrame to poise.study."
        )
    try:
        _check_header(_raw_header(path), path.name)
        with warnings.catch_warnings():
            # Rows longer than the header would otherwise lose their last fields, or shift by one, in silence.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, encoding="utf-8-sig", low_memory=False, index_col=False)
    except pd.errors.EmptyDataError:
        raise DataError(f"{path.name!r} is empty. A table needs a header line and rows.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path.name!r} is not text in UTF-8. Save it as CSV in UTF-8.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, csv.Error) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{path.name!r} cannot be read as CSV: {reason}. Each row needs as many fields as the "
            "header, separated by commas."
        ) from None
    except PermissionError:
        raise DataError(f"{str(path)!r} may not be read. Change its permissions, or copy it.") from None
    if frame.empty:
        raise DataError(f"{path.name!r} is empty: it has a header and no rows.")
    return frame


def _raw_header(path: Path) -> list[str]:
    """The names as written: pandas would rename a second "a" to "a.1" and an empty one to "Unnamed: 0"."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next((row for row in csv.reader(file) if row), [])


def _check_header(names: list[str], table: str) -> None:
    for position, column in enumerate(names, start=1):
        if not column.strip():
            raise DataError(
                f"{table} has no name for column {position}. Name it, or leave it out: pandas writes a "
                "table without its index by to_csv(index=False)."
            )
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise DataError(f"{table} has more than one column named {_few(twice)}. Give each column its own name.")


def _check_column(column: str, frame: pd.DataFrame, table: str) -> None:
    if column in frame.columns:
        return
    near = difflib.get_close_matches(column, list(frame.columns), n=3)
    meant = f" Nearest: {_few(near)}." if near else ""
    only = " The header has one name: are the fields separated by something other than commas?"
    raise DataError(
        f"{table} has no column {column!r}.{meant} Its columns are: {_few(frame.columns)}."
        f"{only if frame.shape[1] == 1 else ''}"
    )


def _check_finite(frame: pd.DataFrame) -> None:
    bad = pd.DataFrame({column: _not_finite(frame[column]) for column in frame.columns})
    columns = [column for column in frame.columns if bad[column].any()]
    if columns:
        counts = ", ".join(f"{column!r} ({int(bad[column].sum())})" for column in columns[:5])
        more = f" and {len(columns) - 5} more columns" if len(columns) > 5 else ""
        rows = int(bad.any(axis="columns").sum())
        raise DataError(
            f"Missing or infinite values in {counts}{more}: {rows} of {len(frame)} rows have one, and a "
            "network cannot read them. Fill them in, remove these rows, or drop the columns."
        )


def _not_finite(values: pd.Series) -> pd.Series:
    if dtypes.is_numeric_dtype(values.dtype) and not dtypes.is_complex_dtype(values.dtype):
        numbers = values.to_numpy(dtype="float64", na_value=np.nan)
        return pd.Series(~np.isfinite(numbers), index=values.index)
    return values.isna()


def _pose(values: pd.Series, task: str | None) -> tuple[pd.Series, str, tuple[str, ...]]:
    """The target as the task needs it, the task, and its classes."""
    name, different, numeric = values.name, values.nunique(), _is_number(values)
    if different < 2:
        raise DataError(
            f"Target {name!r} is constant: every row has {_label(values.iloc[0])!r}, so there is nothing to predict. "
            "Choose another target."
        )
    task = task or _infer_task(values, different, numeric)
    if task == "regression":
        if not numeric:
            raise DataError(
                f"Target {name!r} is text, such as {_few(values.unique()[:3])}, and regression needs "
                f"numbers. {_why_text(values)}Choose another target, or the task binary or "
                "multiclass."
            )
        return values.astype("float64"), task, ()
    if task == "binary" and different != 2:
        raise DataError(
            f"Target {name!r} has {different} different values and a binary task two. "
            "Choose the task multiclass or regression."
        )
    ordered = sorted(values.unique()) if numeric else sorted(str(value) for value in values.unique())
    labels = values.map(_label)
    single = [label for label, count in labels.value_counts().items() if count < 2]
    if single:
        raise DataError(
            f"Target {name!r} has classes with one member: {_few(single)}. A class needs a row to train "
            "on and one to validate on; merge or remove these."
        )
    return labels, task, tuple(_label(value) for value in ordered)


def _infer_task(values: pd.Series, different: int, numeric: bool) -> str:
    if different == 2:
        return "binary"
    if not numeric:
        return "multiclass"
    whole = bool((values.astype("float64") % 1 == 0).all())
    few = different <= min(MOST_CLASSES_GUESSED, len(values) / ROWS_A_CLASS_GUESSED)
    return "multiclass" if whole and few else "regression"


def _is_number(values: pd.Series) -> bool:
    kind = values.dtype
    return dtypes.is_numeric_dtype(kind) and not dtypes.is_bool_dtype(kind) and not dtypes.is_complex_dtype(kind)


def _label(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, (float, np.floating)) else str(value)


def _feature(values: pd.Series) -> pd.Series:
    if _is_number(values) or dtypes.is_bool_dtype(values.dtype):
        return values.astype("float64")
    text = values.astype(str)
    different = text.nunique()
    if different > MOST_CATEGORIES or different > len(text) / 2:
        kind = "an identifier or free text" if different > len(text) / 2 else "too many to give each an input"
        raise DataError(
            f"Column {values.name!r} is text with {different} different values in {len(text)} rows: {kind} "
            f"(at most {MOST_CATEGORIES}). {_why_text(text)}Drop it, or group its values."
        )
    return text


def _why_text(values: pd.Series) -> str:
    """A column of numbers with a few odd values reads as text: name one of those."""
    odd = pd.to_numeric(values, errors="coerce").isna()
    if odd.mean() < 0.5:
        return f"It would be numbers but for values such as {values[odd].iloc[0]!r}. "
    return ""


def _fit_encoder(rows: pd.DataFrame) -> tuple[ColumnTransformer, tuple[str, ...], tuple[str, ...]]:
    numbers = [column for column in rows.columns if _is_number(rows[column])]
    texts = [column for column in rows.columns if column not in set(numbers)]
    encoder = ColumnTransformer(
        [
            ("numbers", StandardScaler(), numbers),
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
        ]
    )
    with np.errstate(over="ignore", invalid="ignore"):
        encoder.fit(rows)
    named = [(column, column) for column in numbers]
    if texts:
        categories = encoder.named_transformers_["categories"].categories_
        named += [
            (f"{column}={value}", column) for column, known in zip(texts, categories, strict=True) for value in known
        ]
    return encoder, tuple(name for name, _ in named), tuple(owner for _, owner in named)


def _encode_target(table: Table, training: np.ndarray) -> tuple[np.ndarray, float, float]:
    if table.task == "regression":
        values = table.target.to_numpy(dtype="float64")
        with np.errstate(over="ignore", invalid="ignore"):
            centre, scale = float(values[training].mean()), float(values[training].std()) or 1.0
            y = ((values - centre) / scale)[:, None]
        return _finite_float32(y, (str(table.target.name),)), centre, scale
    codes = table.target.map({label: code for code, label in enumerate(table.classes)}).to_numpy()
    if table.task == "binary":
        return codes.astype("float32")[:, None], 0.0, 1.0
    return codes.astype("int32"), 0.0, 1.0


def _finite_float32(values: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.asarray(values, dtype="float32")
    bad = [name for name, column in zip(names, values.T, strict=True) if not np.isfinite(column).all()]
    if bad:
        raise DataError(f"The numbers in {_few(bad)} are too large to standardise. Use other units.")
    return values


def _few(names: object, most: int = 8) -> str:
    listed = [repr(str(name)) for name in names]  # pyright: ignore[reportGeneralTypeIssues]
    return ", ".join(listed[:most]) + (f", … ({len(listed)} in all)" if len(listed) > most else "")
