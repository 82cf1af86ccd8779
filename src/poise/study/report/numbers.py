"""Numbers and lists of names as text for people."""

from collections.abc import Sequence

import numpy as np

from poise.study.scores import Estimate

MOST_NAMES = 5
LONGEST_NAME = 40
LONGEST_IN_LEGEND = 28


def format_number(number: float, digits: int = 3) -> str:
    """Return a number with few significant digits, `"?"` if it is not finite."""
    if not np.isfinite(number):
        return "?"
    text = f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.{digits}g}"
    return text.replace("-", "−") if text != "-0" else "0"


def format_interval(estimate: Estimate, digits: int = 3) -> str:
    """Return the interval of an estimate, `""` if it is unknown."""
    ends = (estimate.low, estimate.high)
    return " to ".join(format_number(end, digits) for end in ends) if np.isfinite(ends).all() else ""


def format_with_error(value: float, error: float, digits: int = 3) -> str:
    """Return a mean and its standard error, if that is known."""
    mean = format_number(value, digits)
    return f"{mean} ± {format_number(error, 2)}" if np.isfinite(error) else mean


def round_values(values: np.ndarray, digits: int = 4) -> np.ndarray:
    """Round numbers to few digits of their range, for plots: the page need not hold the data exactly."""
    values = np.asarray(values, "float64")
    known = values[np.isfinite(values)]
    size = np.ptp(known) or np.abs(known).max() if len(known) else 0.0
    return values if not size else np.round(values, digits - 1 - int(np.floor(np.log10(size))))


def join_words(words: Sequence[str]) -> str:
    """Return `"a, b and c"`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def list_names(names: Sequence[str], most: int = MOST_NAMES) -> str:
    """Return names in quotes, each on one line and shortened; only the first ones if there are many."""
    plain = [" ".join(name.split()) for name in names]
    quoted = [f"“{name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + '…'}”" for name in plain[:most]]
    return join_words(quoted if len(names) <= most else [*quoted, f"{len(names) - most:,} more"])


def shorten(name: str) -> str:
    """Return a name in one line, without its middle if it is long: names that start alike often end differently."""
    plain = " ".join(name.split())
    return plain if len(plain) <= LONGEST_IN_LEGEND else plain[:17] + "…" + plain[-10:]
