"""A study in words: does a penalty help, what survives it, how strong and how sure.

Every sentence is computed from the numbers, and none says more than they show: where the interval of the gain holds
zero, it is not said that the penalty helps.
"""

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from poise.escaping import visible
from poise.path.tables import replicas_of
from poise.study.report.script import code
from poise.study.result import NONE, Candidate, Study
from poise.study.scores import Estimate, score_name

__all__ = [
    "answer",
    "balance_in_words",
    "called",
    "code",
    "console_table",
    "figure",
    "interval",
    "listed",
    "names",
    "reason",
    "spread",
]

NEARLY = 0.05
"""A training whose relative residual is below this is nearly in balance."""
NAMED = 5
"""Columns that a sentence names."""


def answer(study: Study) -> list[str]:
    """Three sentences: whether a penalty helps, what survives, and how strong it is and how sure that is.

    Example:
        >>> from poise.study.report.sentences import answer
        >>> from poise.study.run import run_study
        >>> len(answer(run_study("wine", penalties=["l2"], strengths=3, cv=2, max_iter=20)))
        3
    """
    return [_verdict(study), _survival(study), _certainty(study)]


def console_table(study: Study) -> RichTable:
    """All candidates beside each other, for a terminal; the chosen one is marked by a star."""
    table = RichTable(
        title=Text(visible(f"{study.table.name}: {study.table.task}, {study.rows['test']:,} test rows")),
        title_justify="left", box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for heading in ("", "strength", "held-out loss", "test loss", score_name(study.table.task), "gain", "columns"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_column("zeros", justify="right")
    for one in study.candidates:
        share = one.row["zero_share"]
        zeros = f"{int(one.row['zeros']):,} ({'?' if share is None else format(share, '.0%')})"
        cells = [figure(one.strength), spread(one.val_loss, one.val_error)]
        cells += [_brackets(estimate) for estimate in (one.test_loss, one.score, one.gain)]
        star = " *" if one.name == study.chosen else ""
        table.add_row(Text(visible(one.title) + star), *cells, "?" if one.kept is None else f"{len(one.kept):,}", zeros)
    return table


def figure(number: float, digits: int = 3) -> str:
    """Few digits: enough to read, and not more than so many rows can tell."""
    if not np.isfinite(number):
        return "?"
    text = f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.{digits}g}"
    return text.replace("-", "−") if text != "-0" else "0"


def interval(estimate: Estimate) -> str:
    """The interval of an estimate as text; "" where too few rows tell none."""
    ends = (estimate.low, estimate.high)
    return f"{figure(ends[0])} to {figure(ends[1])}" if np.isfinite(ends).all() else ""


def spread(value: float, error: float) -> str:
    """A mean and its standard error, where that is known."""
    return f"{figure(value)} ± {figure(error, 2)}" if np.isfinite(error) else figure(value)


def names(columns: Sequence[str], most: int = NAMED) -> str:
    """Names of columns in quotes, the first ones where there are many."""
    plain = [" ".join(name.split()) for name in columns]
    quoted = [f"“{name if len(name) <= 40 else name[:39] + '…'}”" for name in plain[:most]]
    return listed(quoted if len(columns) <= most else [*quoted, f"{len(columns) - most:,} more"])


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def called(candidate: Candidate) -> str:
    """What a candidate is called inside a sentence: L2, the group lasso."""
    title = candidate.title
    return title if title[1:2].isupper() or title[1:2].isdigit() else f"the {title[0].lower()}{title[1:]}"


def reason(candidate: Candidate) -> str:
    """Why it is told at `kept_at` what survives."""
    if candidate.path.stages:
        return "where the held-out loss is lowest"
    return "the largest strength within one standard error of the lowest held-out loss"


def balance_in_words(candidate: Candidate) -> str:
    """Whether the training at the chosen strength ended in balance."""
    residual = float(candidate.row["relative_residual"])
    if not np.isfinite(residual):
        return "whether the two forces are in balance cannot be told"
    share = f"relative residual {figure(residual)}"
    if residual <= candidate.stage.training.tolerance:
        return f"the two forces are in balance ({share})"
    if residual <= NEARLY:
        return f"the two forces are nearly in balance ({share})"
    return f"the two forces are not in balance ({share}: more steps lower it, but for rows on the corner of a ReLU)"


def _verdict(study: Study) -> str:
    best, base = study.best, study.baseline
    score = score_name(study.table.task)
    rows = f"{study.rows['test']:,} test rows"
    if best.name == NONE:
        own = f"on the {rows} its loss is {_with_interval(best.test_loss)} and its {score} {_with_ends(best.score)}"
        return f"{_why_none(study)}: {own}."
    forced = study.settings.choose is not None
    what, chosen = (_capital(called(best)) + ", taken as asked,", "it") if forced else ("A penalty", called(best))
    numbers = (
        f"with {chosen} the loss is {_with_interval(best.test_loss)} and the {score} {_with_ends(best.score)}, "
        f"without a penalty {_with_ends(base.test_loss)} and {_with_ends(base.score)}, a paired gain of "
        f"{_with_ends(best.gain)}"
    )
    if base.val_loss <= best.val_loss:
        held = f"the held-out loss is {figure(base.val_loss)} without one and {figure(best.val_loss)} with {chosen}"
        odd = ", so that the test rows say otherwise" if best.gain.low > 0 else ""
        return f"{what} does not help here: {held}; on the {rows} {numbers}{odd}."
    if best.gain.value <= 0:
        return f"{what} does not help here: on the {rows} {numbers}."
    if best.gain.low > 0:
        return f"{what} helps here: on the {rows} {numbers}."
    doubt = "whose interval contains zero" if interval(best.gain) else "for which so few rows tell no interval"
    subject = f"{called(best)}, taken as asked," if forced else "a penalty"
    held = f"in the folds the held-out loss is {figure(best.val_loss)} with it and {figure(base.val_loss)} without"
    return f"These {rows} do not show that {subject} helps: {numbers}, {doubt}; {held}."


def _why_none(study: Study) -> str:
    if len(study.candidates) == 1:
        return "Only a network without a penalty was trained"
    return "No penalty was taken, as asked"


def _survival(study: Study) -> str:
    one = study.selector
    total = len({column.name for column in study.table.columns if column.kind != "set aside"})
    if one is None or one.kept is None or one.stability is None:
        unknown = any(candidate.kept is None for candidate in study.candidates)
        why = "it cannot be told which columns this network reads" if unknown else "no penalty here can drop a column"
        return f"Of the {total:,} columns none is dropped, since {why}."
    by = f"{called(one)} at strength {figure(one.kept_at)}, {reason(one)}"
    trainings = f"{len(replicas_of(one.path.lanes))} trainings"
    total, kept = len(one.stability), set(one.kept)
    shares = {
        is_kept: [float(share) for column, share in one.stability.items() if (column in kept) == is_kept]
        for is_kept in (True, False)
    }
    if not kept:
        highest = max(shares[False])
        most = (
            f"no column is kept in more than {highest:.0%} of the {trainings}" if highest else f"so say all {trainings}"
        )
        return f"Nothing survives: by {by}, no column is needed to predict as well as can be, and {most}."
    lowest = min(shares[True])
    least = f"the least stable of them is kept in {lowest:.0%} of the {trainings}"
    if lowest == 1.0:
        least = f"each of them is kept in all of the {trainings}"
    if len(kept) == total:
        every = f"all {total:,} columns survive" if total > 1 else "the one column survives"
        return f"No column is dropped: {every} {by}; {least}."
    highest = max(shares[False])
    most = f"the most stable of those dropped in {highest:.0%}" if highest else "none of those dropped in any"
    survive = "survives" if len(kept) == 1 else "survive"
    return f"Of {total:,} columns {len(kept):,} {survive} {by}: {names(one.kept)}; {least}, and {most}."


def _certainty(study: Study) -> str:
    one = study.best
    folds = replicas_of(one.stage.lanes)["fold"]
    count = folds[folds >= 0].nunique()
    held = f"the held-out loss is {spread(one.val_loss, one.val_error)}"
    held += f", one standard error over {count} folds" if np.isfinite(one.val_error) else ""
    if one.name == NONE:
        return f"Without a penalty there is no strength to choose; {held}."
    grid = one.stage.strengths
    at, last = int(np.argmin(np.abs(grid - one.strength))), len(grid) - 1
    ends = f"from {figure(grid[0])} to {figure(grid[-1])}"
    place = f"lies inside the grid {ends}, number {at + 1} of {last + 1}"
    if at in (0, last):
        end, other = ("weakest", "weaker") if at == 0 else ("strongest", "stronger")
        place = f"is the {end} of the grid {ends}, so that a {other} one might predict better"
    return (
        f"The chosen strength of {called(one)}, {figure(one.strength)}, {place}; {balance_in_words(one)}, and {held}."
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _with_interval(estimate: Estimate) -> str:
    ends = interval(estimate)
    return f"{figure(estimate.value)} (95% interval {ends})" if ends else figure(estimate.value)


def _with_ends(estimate: Estimate) -> str:
    ends = interval(estimate)
    return f"{figure(estimate.value)} ({ends})" if ends else figure(estimate.value)


def _brackets(estimate: Estimate) -> str:
    ends = interval(estimate).replace(" to ", ", ")
    return "" if np.isnan(estimate.value) else f"{figure(estimate.value)} [{ends}]" if ends else figure(estimate.value)
