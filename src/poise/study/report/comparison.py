"""The comparison of a study's candidates as text, from the content of study.json."""

from collections.abc import Mapping

import numpy as np

from poise.study.report.numbers import format_interval, format_number, format_with_error
from poise.study.scores import Estimate


def compare_candidates(description: Mapping) -> tuple[list[str], list[list[str]]]:
    """Return the headings and one row of cells per candidate and reference model; a star marks the saved one."""
    score = description["candidates"][0]["score_name"]
    headings = ["", "strength", "held-out loss", "test loss", score, "gain", "columns", "zeros"]
    return headings, [_cells(row, description["saved"]) for row in list_rows(description)]


def list_networks(description: Mapping) -> list[Mapping]:
    """Return the candidates, with the network of the selected columns below the one that selects them."""
    selected = {description["selector"]: description["selection"]}
    pairs = ((candidate, selected.get(candidate["candidate"])) for candidate in description["candidates"])
    return [network for pair in pairs for network in pair if network is not None]


def list_rows(description: Mapping) -> list[Mapping]:
    """Return the networks, then the reference models, which have no strength, columns or zeros."""
    empty = {"candidate": None, "strength": None, "columns": None, "zeros": None, "zero_share": None}
    return [*list_networks(description), *({**empty, **reference} for reference in description["references"])]


def show_counts(row: Mapping) -> tuple[str, str, str]:
    """Return the number of columns that a network reads, the number of zeros, and their share."""
    if row["zeros"] is None:
        return "", "", ""
    columns = "?" if row["columns"] is None else f"{row['columns']:,.0f}"
    return columns, f"{row['zeros']:,}", "?" if row["zero_share"] is None else format(row["zero_share"], ".0%")


def read_estimate(candidate: Mapping, name: str) -> Estimate:
    """Return an estimate of a candidate, such as `"gain"`; NaN for what is unknown."""
    return Estimate(*(_number(candidate[key]) for key in (name, f"{name}_low", f"{name}_high")))


def show_estimate(candidate: Mapping, name: str) -> str:
    """Return an estimate and its interval in brackets, `""` if it is unknown."""
    estimate = read_estimate(candidate, name)
    ends = format_interval(estimate).replace(" to ", ", ")
    if np.isnan(estimate.value):
        return ""
    return format_number(estimate.value) + (f" [{ends}]" if ends else "")


def _cells(candidate: Mapping, saved: str) -> list[str]:
    columns, zeros, share = show_counts(candidate)
    return [
        candidate["title"] + (" *" if candidate["candidate"] == saved else ""),
        "" if candidate["strength"] is None else format_number(candidate["strength"]),
        format_with_error(_number(candidate["val_loss"]), _number(candidate["val_error"])),
        *(show_estimate(candidate, name) for name in ("test_loss", "score", "gain")),
        columns,
        f"{zeros} ({share})" if zeros else "",
    ]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
