"""Write predictions to a file."""

from pathlib import Path

import pandas as pd

from poise.files import OutputExistsError, check_name, replace_file
from poise.study.errors import DataError

SUFFIXES = (".csv", ".parquet")


def check_output(out: Path, *, overwrite: bool = False) -> None:
    """Check, before anything is predicted, whether predictions can be written to a file.

    Raises:
        DataError: If the suffix is unknown or the path is a folder.
        FileExistsError: If the file exists and must not be replaced.
    """
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"The output file must end in .csv or .parquet, got {str(out)!r}.", "out")
    if out.is_dir():
        raise DataError(f"{str(out)!r} is a folder. Use the name of a file.", "out")
    if suffix == ".parquet":
        try:
            check_name(out.resolve())
        except OSError as error:
            raise DataError(
                f"The file {str(out)!r} cannot be written: {error.strerror}. Use another name, or the suffix .csv.",
                "out",
            ) from None
    if out.exists() and not overwrite:
        raise OutputExistsError(out)


def write_predictions(predictions: pd.DataFrame, out: Path) -> None:
    """Write a .csv or .parquet file, completely or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    with replace_file(out) as new:
        if out.suffix.lower() == ".csv":
            predictions.to_csv(new, index=False, lineterminator="\n", errors="backslashreplace")
        else:
            predictions.to_parquet(new, index=False)
