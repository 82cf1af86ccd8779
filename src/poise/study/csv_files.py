"""Read CSV as text: find the encoding and the delimiter unless they are given."""

import codecs
import csv
import io
import itertools
import warnings

import pandas as pd

from poise.study.errors import DataError, quote_names
from poise.study.headers import check_header

DELIMITERS = ",;\t|"
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16 does, so it comes first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SAMPLE_SIZE = 1 << 20
SAMPLE_ROWS = 200


def read_csv(content: bytes, name: str, delimiter: str | None, encoding: str | None) -> pd.DataFrame:
    """Read CSV. All values are text, as they are written; `poise.study.columns` finds what they are.

    Args:
        content: The bytes of the file.
        name: What error messages call it.
        delimiter: One character or `"tab"`; `None` finds it among , ; tab and |.
        encoding: `None` takes the byte order mark, else UTF-8, else cp1252.

    Raises:
        DataError: If the content cannot be read.
    """
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise DataError(
            f"The delimiter must be one character, got {delimiter!r}. Use one such as ';', or omit it to detect it.",
            "delimiter",
        )
    encoding = _find_encoding(content, name, encoding)
    sample = _sample(content, encoding)
    if "\0" in sample:
        raise DataError(
            f"{name!r} is not text, because it contains NUL bytes (value 0). Save it as CSV in UTF-8, or give its "
            "encoding, such as 'utf-16'.",
            "encoding",
        )
    if not sample.strip():
        raise DataError(f"{name!r} is empty. A table needs a header line and rows.")
    detected = _find_delimiter(sample)
    rows = _rows(sample, delimiter or detected)
    if delimiter and rows and len(rows[0]) == 1 and len((_rows(sample, detected) or [[]])[0]) > 1:
        raise DataError(
            f"{name!r} does not use the delimiter {delimiter!r}: the header {quote_names(rows[0])} was read as one "
            f"column. Use the delimiter {detected!r}, or omit it to detect it.",
            "delimiter",
        )
    check_header(rows[0] if rows else [], name)
    delimiter = delimiter or detected
    try:
        with warnings.catch_warnings():
            # Rows longer than the header would otherwise lose their last fields, or shift by one, without a word.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.BytesIO(content),
                sep=delimiter,
                encoding=encoding,
                dtype=str,
                na_filter=False,
                skipinitialspace=True,
                low_memory=False,
                index_col=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{name!r} cannot be read as CSV: {reason}. Each row needs as many fields as the header, separated by "
            f"{delimiter!r}."
        ) from None


def _find_encoding(content: bytes, name: str, encoding: str | None) -> str:
    marked = next((known for mark, known in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    candidates = (marked,) if marked else ("utf-8", "cp1252")
    if encoding is not None:
        is_same = marked == "utf-8-sig" and encoding.lower() in ("utf-8", "utf8")
        candidates = (marked,) if is_same else (encoding,)
    for candidate in candidates:
        try:
            content.decode(str(candidate))
        except UnicodeError:
            continue
        except LookupError:
            raise DataError(
                f"The encoding {encoding!r} is unknown. Use one such as 'utf-8', 'cp1252' or 'utf-16'.", "encoding"
            ) from None
        return str(candidate)
    raise DataError(
        f"{name!r} is not text in {' or '.join(map(str, candidates))}. Save it as CSV in UTF-8, or give its encoding, "
        "such as 'utf-16'.",
        "encoding",
    )


def _sample(content: bytes, encoding: str) -> str:
    """Whole lines from the start, enough to hold a header of 10,000 names."""
    text = content[:SAMPLE_SIZE].decode(encoding, errors="ignore")
    return text[: text.rfind("\n") + 1] or text if len(content) > SAMPLE_SIZE else text


def _rows(sample: str, delimiter: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        return [row for row in itertools.islice(reader, SAMPLE_ROWS) if row]
    except csv.Error:  # a field without an end, which a wrong delimiter can make
        return []


def _find_delimiter(sample: str) -> str:
    lines = "".join(sample.splitlines(keepends=True)[:SAMPLE_ROWS])
    try:
        return csv.Sniffer().sniff(lines, DELIMITERS).delimiter
    except csv.Error:  # a single column
        return ","
