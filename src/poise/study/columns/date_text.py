"""Dates written as text. pandas reads each text on its own, so that no date depends on the order of rows."""

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from poise.study.columns.tolerance import MOST_IGNORED_TEXTS

FIRST_YEAR, LAST_YEAR = 1678, 2261  # whole years within datetime64[ns]
LONGEST = 40
MONTH = r"(?<![a-z])(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
TIME = r"(?:(?:\s*,)?\s+|(?<=\d)T)(?P<time>\d{1,2}(?::\d\d|\s*[ap]\.?m\b).*)"
DAY_AND_MONTH = r"\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d\d)"
SHAPE = re.compile(
    r"\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?(?:[T ].*)?"
    rf"|{DAY_AND_MONTH}(?:{TIME})?"
    rf"|\d{{1,2}}[-/.\s]*{MONTH}[-/.\s]*\d\d(?:{TIME.replace('?P<time>', '')})?"
    rf"|.*{MONTH}.*\d{{4}}.*|.*\d{{4}}.*{MONTH}.*",
    re.IGNORECASE | re.ASCII,
)
TIME_AT_END = re.compile(rf"{TIME}$", re.IGNORECASE | re.ASCII)
TWO_DIGIT_YEAR = re.compile(rf"\d{{1,2}}(?:[-/.]\d{{1,2}}[-/.]|[-/.\s]*{MONTH}[-/.\s]*)\d\d(?!\d)", re.I | re.ASCII)
IGNORED_WORDS = {"st", "nd", "rd", "th", "of"}
WEEKDAYS = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
ORDERS = {
    "day first": ("%d/%m/%Y", "%d/%m/%y"),
    "month first": ("%m/%d/%Y", "%m/%d/%y"),
}
"""The two orders of day and month, and their formats."""
DATES = ("%Y/%m/%d", "%d/%b/%Y", "%d/%b/%y", "%b/%d/%Y", "%b/%Y", "%Y/%b/%d", "%Y/%m", "%Y/%b")
CLOCKS = ("%H:%M:%S", "%H:%M", "%I:%M:%S%p", "%I:%M%p", "%H:%M:%S.%f", "%I%p")
TIMES = tuple(clock + zone for clock in CLOCKS for zone in ("", "%z"))
MIDNIGHT = np.datetime64("1900-01-01", "us")
"""What a time without a date is added to."""


@dataclass(frozen=True)
class Order:
    """How the dates of a column are written.

    Args:
        name: `"day first"` or `"month first"`; `""` if every date shows it.
        notes: How they were read.
        doubt: What no date shows, so that it was assumed, or `""`.
    """

    name: str
    notes: tuple[str, ...]
    doubt: str


def find_order(labels: Sequence[str]) -> Order | None:
    """Return how texts are written, of which nearly all must look like dates; None if they do not.

    The order of day and month is the one in which more of the texts are dates.
    """
    if not _are_dates(labels):
        return None
    notes = ["two-digit years read as 1969 to 2068"] if any(map(TWO_DIGIT_YEAR.match, labels)) else []
    local = sorted({match[0] for label in labels if (match := re.match(DAY_AND_MONTH, label, re.ASCII))})
    if not local:
        return Order("", tuple(notes), "")
    with_points = sum("." in label[:3] for label in local)
    usual, other = ORDERS if 2 * with_points > len(local) else reversed(ORDERS)
    lost = {order: int(np.isnat(parse_dates(local, order)).sum()) for order in ORDERS}
    name = other if lost[other] < lost[usual] else usual
    doubt = f"whether the day or the month comes first, so dates were read {name}"
    return Order(name, (f"dates read {name}", *notes), doubt if lost[usual] == lost[other] else "")


def parse_dates(labels: Sequence[str], order: str) -> np.ndarray:
    """Return the dates of texts, in UTC and as datetime64[us]; NaT for what is not a date.

    Args:
        labels: The texts.
        order: The name of an `Order`.
    """
    dates = pd.Series(np.full(len(labels), np.datetime64("NaT", "us")))
    places = [place for place, label in enumerate(labels) if _is_like_date(label)]
    texts = pd.Series([labels[place] for place in places], index=places, dtype=object)
    for parse in (_parse_years_outside, _parse_iso, lambda left: _parse_parts(left, order), _parse_months_in_words):
        left = texts[dates[texts.index].isna()]
        if left.empty:
            break
        dates[left.index] = parse(left)
    return dates.to_numpy()


def _are_dates(labels: Iterable[str]) -> bool:
    """Return whether any text looks like a date of a year in range, and few do not look like one."""
    failed, is_any = 0, False
    for label in labels:
        is_like_date = _is_like_date(label)
        is_any = is_any or (is_like_date and not _is_outside(label))
        failed += not is_like_date
        if failed > MOST_IGNORED_TEXTS:
            return False
    return is_any


def _is_like_date(label: str) -> bool:
    return len(label) <= LONGEST and SHAPE.fullmatch(label) is not None


def _is_outside(label: str) -> bool:
    if TWO_DIGIT_YEAR.match(label):  # four digits are then part of a second or a time zone
        return False
    year = re.search(r"\d{4}", label, re.ASCII)
    return year is not None and not FIRST_YEAR <= int(year[0]) <= LAST_YEAR


def _parse_years_outside(texts: pd.Series) -> np.ndarray:
    """Return the first day of each year that datetime64[ns] cannot hold: the callers make it a missing value."""
    years = [re.findall(r"\d{4}", text)[0] if _is_outside(text) else "NaT" for text in texts]
    return np.array(years, "datetime64[Y]").astype("datetime64[us]")


def _parse_iso(texts: pd.Series) -> np.ndarray:
    return _parse(texts.where(texts.str.match(r"\d{4}")), "ISO8601")


def _parse_parts(texts: pd.Series, order: str) -> np.ndarray:
    """Return a date and a time that are written one after the other."""
    matches = [TIME_AT_END.search(text) for text in texts]
    parts = [text[: match.start()] if match else text for text, match in zip(texts, matches, strict=True)]
    dates = _parse_distinct(parts, _normalize_date, (*DATES, *ORDERS.get(order, ())))
    times = _parse_distinct([match["time"] if match else "0:00" for match in matches], _normalize_time, TIMES)
    return dates + (times - MIDNIGHT)


def _parse_months_in_words(texts: pd.Series) -> np.ndarray:
    """Return dates in other layouts, such as "Mon Jan 15 10:00:00 2024", whose year and month stand out."""
    return _parse(texts.where(texts.str.contains(f"(?i){MONTH}") & texts.str.contains(r"\d{4}")), "mixed")


def _normalize_date(text: str) -> str:
    """Return `"15/jan/2020"` for `"Wed, Jan 15th 2020"`, with its parts in the order of the text."""
    words = re.findall(r"\d+|[^\W\d_]+", text.lower())
    kept = [word for word in words if word not in IGNORED_WORDS and word[:3] not in WEEKDAYS]
    return "/".join(word if word.isdigit() else word[:3] for word in kept)


def _normalize_time(text: str) -> str:
    """Return `"10:30:00PM+0000"` for `"10:30:00 p.m. UTC"`."""
    text = re.sub(r"\s+", "", text.upper()).replace(",", ".")
    return re.sub(r"(?:UTC|GMT|Z)$", "+0000", re.sub(r"([AP])\.?M\.?", r"\1M", text))


def _parse_distinct(texts: Sequence[str], normalize: Callable[[str], str], formats: Sequence[str]) -> np.ndarray:
    """Return what each text is, after it is normalized, by the first format that fits."""
    codes, distinct = pd.factorize(np.array(texts, dtype=object))
    left = pd.Series([normalize(text) for text in distinct], dtype=object)
    parsed = np.full(len(distinct), np.datetime64("NaT", "us"))
    for text_format in formats:
        is_open = np.isnat(parsed)
        if not is_open.any():
            break
        parsed[is_open] = _parse(left[is_open], text_format)
    return parsed[codes]


def _parse(texts: pd.Series, text_format: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unknown time zones
        parsed = pd.to_datetime(texts, format=text_format, utc=True, errors="coerce")
    return parsed.dt.tz_localize(None).to_numpy("datetime64[us]")
