"""The error that a study raises about data and settings, and the words that its messages share."""

from collections.abc import Iterable, Sequence

MOST_LISTED = 8


class DataError(ValueError):
    """Raised when a study cannot use the data or a setting.

    The message is one or two sentences that say what is wrong, the value received, and what to do.

    Args:
        message: Those sentences.
        argument: The name of the `poise.run_study` argument to change, such as `"cv"`. Programs with other names
            for their settings, such as the command line, can translate it. Default: `""`, if no single argument avoids
            the error.

    Examples:
        >>> import poise
        >>> try:
        ...     poise.run_study("wine", cv=1)
        ... except poise.DataError as error:
        ...     print(error)
        cv must be at least 2, got 1.
    """

    def __init__(self, message: str, argument: str = "") -> None:
        super().__init__(message)
        self.argument = argument


class OccupiedError(FileExistsError):
    """Raised when a folder holds something that must not be replaced.

    Args:
        message: What is wrong and what to do.
        argument: The name of the argument to change, as in `DataError`.
    """

    def __init__(self, message: str, argument: str = "") -> None:
        super().__init__(message)
        self.argument = argument


def count_noun(number: int, noun: str) -> str:
    """Return `"1 row"` or `"3 rows"`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def quote_names(names: Iterable[object], most: int = MOST_LISTED) -> str:
    """Return the first names in quotes, and how many more there are."""
    return list_first([repr(str(name)) for name in names], most)


def list_first(texts: Sequence[str], most: int = MOST_LISTED) -> str:
    """Return `"a, b, c and 12 more"`."""
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more:,} more" if more > 0 else "")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
