"""Tables in memory, of any library that Narwhals knows, as pandas DataFrames."""

from typing import TYPE_CHECKING, Any

import narwhals as nw
import pandas as pd

from poise.study.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


def to_frame(data: Any) -> pd.DataFrame | None:
    """Return a table in memory as a DataFrame whose columns have types of NumPy or pandas, not of Arrow.

    Args:
        data: A DataFrame of pandas, polars or another library that Narwhals knows, lazy or not, or an Arrow table.

    Returns:
        The DataFrame, or `None` if `data` is not a table.

    Raises:
        DataError: If columns of an Arrow table have the same name.
    """
    if isinstance(data, pd.DataFrame):
        return _replace_arrow_types(data)
    try:
        table = nw.from_native(data)
    except TypeError:
        return None
    except nw.exceptions.DuplicateError:
        raise DataError("The table has columns of the same name. Give each column a unique name.", "data") from None
    return arrow_to_frame((table.collect() if isinstance(table, nw.LazyFrame) else table).to_arrow())


def arrow_to_frame(table: "pa.Table") -> pd.DataFrame:
    """Return an Arrow table as a DataFrame, without the index that pandas may have stored with it."""
    stored = (table.schema.pandas_metadata or {}).get("index_columns", [])
    table = table.drop_columns([name for name in stored if isinstance(name, str)])
    # The types that pandas stored may be types of Arrow, which it then cannot always read.
    return table.to_pandas(date_as_object=False, ignore_metadata=True)


def _replace_arrow_types(frame: pd.DataFrame) -> pd.DataFrame:
    places = [place for place, dtype in enumerate(frame.dtypes) if isinstance(dtype, pd.ArrowDtype)]
    if not places:
        return frame
    import pyarrow as pa

    replaced = frame.copy(deep=False)
    for place in places:
        values = pa.array(frame.iloc[:, place].array).to_pandas(date_as_object=False)
        replaced.isetitem(place, values.set_axis(frame.index))
    return replaced
