"""Read CSV as text: find the encoding and the delimiter unless they are set."""

import codecs
import csv
import io
import itertools
import re
import warnings
from typing import TypeVar

import pandas as pd

from poise.study.errors import DataError, count_noun, quote_names
from poise.study.file_options import FileOptions
from poise.study.first_line import Line, check_first_line
from poise.study.headers import check_header, name_columns

Text = TypeVar("Text", bound=io.TextIOBase)
OPTIONS = ("delimiter", "text_encoding", "skip_rows", "comment")
DELIMITERS = ",;\t|"
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16 does, so it comes first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
DELIMITER_LINE = re.compile(r'"?sep=(.)"?[ \t]*[\r\n]', re.IGNORECASE)
"""The first line of a file that Excel wrote may name the delimiter."""
SAMPLE_SIZE = 1 << 20
SAMPLE_ROWS = 200


def read_csv(content: bytes, name: str, options: FileOptions) -> pd.DataFrame:
    """Read CSV. All values are text, as they are written; `poise.study.columns` finds what they are.

    Args:
        content: The bytes of the file.
        name: What error messages call it.
        options: What is set; `OPTIONS` lists the ones in use.

    Raises:
        DataError: If the content cannot be read.
    """
    encoding = _find_encoding(content, name, options.text_encoding)
    sample = _sample(content, encoding)
    if "\0" in sample:
        raise DataError(
            f"{name!r} is not text, because it contains NUL bytes (value 0). Save it as CSV in UTF-8, or give its "
            "encoding, such as 'utf-16'.",
            "text_encoding",
        )
    if not sample.strip():
        raise DataError(f"{name!r} is empty. A table needs a header line and rows.")
    announced = DELIMITER_LINE.match(sample)
    skipped = max(options.skip_rows or 0, int(announced is not None))
    sample = _remove_comments(_skip_lines(io.StringIO(sample, newline=""), skipped).read(), options.comment)
    if not sample.strip():
        raise DataError(f"{name!r} has no lines after the {count_noun(skipped, 'line')} that are skipped.", "skip_rows")
    detected = announced[1] if announced else _find_delimiter(sample)
    delimiter = options.delimiter or detected
    lines = _lines(sample, delimiter, skipped)
    if delimiter != detected and lines and len(lines[0].fields) == 1 < _count_fields(sample, detected):
        raise DataError(
            f"{name!r} does not use the delimiter {delimiter!r}: the header {quote_names(lines[0].fields)} was read as "
            f"one column. Use the delimiter {detected!r}, or omit it to detect it.",
            "delimiter",
        )
    if lines:
        check_first_line(lines, name)
        check_header(name_columns(lines[0].fields), name)
    try:
        with warnings.catch_warnings():
            # Rows longer than the header would otherwise lose their last fields, or shift by one, without a word.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                _skip_lines(io.TextIOWrapper(io.BytesIO(content), encoding, newline=""), skipped),
                sep=delimiter,
                comment=options.comment,
                dtype=str,
                na_filter=False,
                skipinitialspace=True,
                low_memory=False,
                index_col=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        reason = re.sub(r"(?<=\bline )\d+", lambda number: str(int(number[0]) + skipped), reason)
        raise DataError(
            f"{name!r} cannot be read as CSV: {reason}. Each row needs as many fields as the header, separated by "
            f"{delimiter!r}."
        ) from None


def _find_encoding(content: bytes, name: str, encoding: str | None) -> str:
    marked = next((known for mark, known in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    candidates = (marked,) if marked else ("utf-8", "cp1252")
    if encoding is not None:
        is_same = marked == "utf-8-sig" and encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        candidates = (marked,) if is_same else (encoding,)
    for candidate in candidates:
        try:
            content.decode(str(candidate))
        except UnicodeError:
            continue
        except LookupError:
            raise DataError(
                f"The encoding {encoding!r} is unknown. Use one such as 'utf-8', 'cp1252' or 'utf-16'.", "text_encoding"
            ) from None
        return str(candidate)
    raise DataError(
        f"{name!r} is not text in {' or '.join(map(str, candidates))}. Save it as CSV in UTF-8, or give its encoding, "
        "such as 'utf-16'.",
        "text_encoding",
    )


def _sample(content: bytes, encoding: str) -> str:
    """Whole lines from the start, enough to hold a header of 10,000 names."""
    text = content[:SAMPLE_SIZE].decode(encoding, errors="ignore")
    return text[: text.rfind("\n") + 1] or text if len(content) > SAMPLE_SIZE else text


def _skip_lines(text: Text, count: int) -> Text:
    for _ in range(count):
        text.readline()
    return text


def _remove_comments(sample: str, comment: str | None) -> str:
    """Remove comments as pandas does, and keep the lines; in lines with quotes, only comments at the start."""
    if comment is None:
        return sample
    lines = []
    for line in io.StringIO(sample, newline=""):
        content = line.rstrip("\r\n")
        is_comment = content.startswith(comment) or (comment in content and '"' not in content)
        lines.append(content.partition(comment)[0] + line[len(content) :] if is_comment else line)
    return "".join(lines)


def _lines(sample: str, delimiter: str, skipped: int) -> list[Line]:
    """Return the first lines that are not blank, numbered as in the whole file."""
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        return [Line(skipped + reader.line_num, row) for row in itertools.islice(reader, SAMPLE_ROWS) if row]
    except csv.Error:  # a field without an end, which a wrong delimiter can make
        return []


def _count_fields(sample: str, delimiter: str) -> int:
    lines = _lines(sample, delimiter, 0)
    return len(lines[0].fields) if lines else 0


def _find_delimiter(sample: str) -> str:
    lines = "".join(sample.splitlines(keepends=True)[:SAMPLE_ROWS])
    try:
        return csv.Sniffer().sniff(lines, DELIMITERS).delimiter
    except csv.Error:  # a single column
        return ","
