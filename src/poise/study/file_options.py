"""Options that the user sets for reading a file."""

from collections.abc import Collection
from dataclasses import dataclass, fields, replace

from poise.study.errors import DataError

DELIMITER_NAMES = {"tab": "\t", "\\t": "\t"}


@dataclass(frozen=True)
class FileOptions:
    """What the user sets about a file; `None` for the rest.

    Args:
        delimiter: Of CSV: one character or `"tab"`. Default: `None`, which finds it among , ; tab and |.
        text_encoding: Of CSV. Default: `None`, which takes the byte order mark, else UTF-8, else cp1252.
        sheet: Of Excel: the name of a sheet, or its number, from 1. Default: `None`, the first one.
        skip_rows: Of CSV and Excel: the number of lines above the column names. Default: `None`, no line.
        comment: Of CSV: the character that starts a comment, which ends with its line. Default: `None`, no comments.

    Raises:
        DataError: For a value that is not allowed.
    """

    delimiter: str | None = None
    text_encoding: str | None = None
    sheet: str | int | None = None
    skip_rows: int | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "delimiter", DELIMITER_NAMES.get(self.delimiter or "", self.delimiter))
        if not _is_mark(self.delimiter):
            raise DataError(
                f"delimiter must be one character or 'tab', got {self.delimiter!r}. Omit it to detect the delimiter.",
                "delimiter",
            )
        if self.skip_rows is not None and self.skip_rows < 0:
            raise DataError(f"skip_rows must be at least 0, got {self.skip_rows}.", "skip_rows")
        if not _is_mark(self.comment):
            raise DataError(f"comment must be one character, such as '#', got {self.comment!r}.", "comment")
        if self.comment is not None and self.comment == self.delimiter:
            raise DataError(f"comment must differ from the delimiter, got {self.comment!r} for both.", "comment")

    def select(self, used: Collection[str], table: str, recorded: "FileOptions | None" = None) -> "FileOptions":
        """Return the options for a table of one format.

        Args:
            used: The options that the format has.
            table: What error messages call the table.
            recorded: Options that fill in what is `None` here, if the format has them. Default: `None`.

        Raises:
            DataError: If an option is set that the format does not have.
        """
        for option in fields(self):
            if getattr(self, option.name) is not None and option.name not in used:
                raise DataError(f"{option.name} does not apply to {table}. Remove this argument.", option.name)
        inherited = {name: getattr(recorded, name, None) for name in used if getattr(self, name) is None}
        return replace(self, **inherited)


def _is_mark(text: str | None) -> bool:
    return text is None or (len(text) == 1 and text not in '"\r\n')


NO_OPTIONS = FileOptions()
