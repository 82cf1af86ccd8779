"""The three numbers below the verdict: the gain, the score on the test rows, and the columns (or the strength)."""

from dataclasses import dataclass

import numpy as np

from poise.study.findings import Findings, is_regularized
from poise.study.report.names import name_inside, quantity_of
from poise.study.report.numbers import format_interval, format_number

DIGITS = 2


@dataclass(frozen=True)
class KeyNumber:
    """A number of the verdict card.

    Args:
        label: What it is.
        value: The number.
        details: What it is compared with, line by line.
    """

    label: str
    value: str
    details: tuple[str, ...]


def list_key_numbers(study: Findings) -> list[KeyNumber]:
    """Return the three numbers that a reader needs first."""
    return [_make_gain(study), _make_score(study), _make_columns(study) or _make_strength(study)]


def _make_gain(study: Findings) -> KeyNumber:
    """Return the gain over early stopping in the score (or the loss), or, without a penalty, over a constant."""
    judged, score = study[study.verdict.judged], study.table.task.score_name
    if is_regularized(judged):
        comparison = study.verdict.over_baseline
        what, gain = ("gain in", comparison.score_gain) if comparison.shows_score else ("fall of", comparison.loss_gain)
        score = score if comparison.shows_score else "loss"
        label = f"{what} held-out {score} from {name_inside(judged)}, compared with early stopping alone"
    else:
        gain = study.verdict.over_references["mean"].score_gain
        label = f"gain in held-out {score} over {study.table.task.constant_name}"
    ends = format_interval(gain, DIGITS)
    sign = "+" if gain.value > 0 else ""
    return KeyNumber(label, f"{sign}{format_number(gain.value, DIGITS)}", (f"95% interval {ends}",) if ends else ())


def _make_score(study: Findings) -> KeyNumber:
    """Return the score of the saved network on the test rows, beside those of the reference models."""
    saved, score = study.saved, study.table.task.score_name
    mean = next(reference for reference in study.references if reference.name == "mean")
    others = [each for each in study.references if each is not mean and np.isfinite(each.score.value)]
    lines = [f"{mean.title.lower()}: {format_number(mean.score.value)}"]
    if others:
        best = max(others, key=lambda reference: reference.score.value)
        lines.append(f"best reference ({best.title.lower()}): {format_number(best.score.value)}")
    return KeyNumber(f"{score} of the saved network on the test rows", format_number(saved.score.value), tuple(lines))


def _make_columns(study: Findings) -> KeyNumber | None:
    """Return the number of selected columns; `None` if no candidate selects columns."""
    selector = study.selector
    if selector is None or selector.selected is None:
        return None
    needed, total = len(study.needed_columns), len(study.encoder.columns)
    needs = f"the saved network needs {f'all {total:,}' if needed == total else f'{needed:,}'} to predict"
    return KeyNumber(
        f"columns selected by {name_inside(selector)}", f"{len(selector.selected):,} of {total:,}", (needs,)
    )


def _make_strength(study: Findings) -> KeyNumber:
    best = study.best
    if not is_regularized(best):
        return KeyNumber("columns needed to predict", f"{len(study.needed_columns):,}", ("no penalty is used",))
    label = f"{quantity_of(best.name)} of {name_inside(best)}"
    return KeyNumber(label, format_number(best.strength, DIGITS), ("chosen by cross-validation",))
