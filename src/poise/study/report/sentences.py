"""The answer of a study in sentences: does a penalty help, which columns are selected, and how certain is that.

Every sentence is computed from the numbers and claims no more than they show: if the interval of the gain contains
zero, it does not say that the penalty helps. A sentence has at most two numbers.
"""

import numpy as np

from poise.path.tables import replica_table
from poise.study.findings import Candidate, Findings, has_penalty
from poise.study.report.numbers import format_interval, format_number, format_with_error, list_names
from poise.study.scores import score_name

NEARLY = 0.05
"""A relative residual below this is close to convergence."""
DIGITS = 2


def write_answer(study: Findings) -> list[str]:
    """Return three paragraphs: whether a penalty helps, which columns are selected, and how certain the strength is."""
    return [_write_verdict(study), _write_selection(study), _write_certainty(study)]


def name_inside(candidate: Candidate) -> str:
    """Return a candidate's name inside a sentence: L2, the group lasso."""
    title = candidate.title
    is_acronym = title[1:2].isupper() or title[1:2].isdigit()
    return title if is_acronym else f"the {title[0].lower()}{title[1:]}"


def explain_selection(candidate: Candidate) -> str:
    """Return which strength selects columns."""
    if candidate.path.stages:
        return "the strength with the lowest held-out loss"
    return "the largest strength whose held-out loss is within one standard error of the lowest"


def write_convergence(candidate: Candidate) -> str:
    """Return a sentence on how the training at the chosen strength ended."""
    residual, steps = float(candidate.row["relative_residual"]), int(candidate.row["settled"])
    if not np.isfinite(residual):
        return "It is unknown whether training converged."
    share = f"(relative residual {format_number(residual, DIGITS)})"
    if residual <= candidate.stage.training.tolerance:
        return f"Training converged {share}."
    if residual <= NEARLY:
        return f"Training nearly converged {share}."
    if steps < (candidate.stage.training.settle or 0):
        return f"Training stopped after {steps} steps, because the held-out loss no longer fell."
    return f"Training did not converge {share}. More steps may help."


def _write_verdict(study: Findings) -> str:
    best, base = study.best, study.baseline
    if not has_penalty(best):
        return f"{_explain_no_penalty(study)} {_write_score(study)}"
    is_requested = study.settings.choose is not None
    penalty = f"{_capitalize(name_inside(best))}, chosen by request," if is_requested else "A penalty"
    name = "it" if is_requested else name_inside(best)
    test_losses = (format_number(loss.value, DIGITS) for loss in (base.test_loss, best.test_loss))
    test_sentence = "On the test rows the loss is {} without a penalty and {} with {}.".format(*test_losses, name)
    gain = f"The gain is {format_number(best.gain.value, DIGITS)}"
    ends = format_interval(best.gain, DIGITS)
    interval = f"Its 95% confidence interval is {ends}." if ends else "There are too few test rows for an interval."
    if base.val_loss <= best.val_loss:
        held_out = (
            f"In cross-validation the loss is {format_number(base.val_loss, DIGITS)} without a penalty and "
            f"{format_number(best.val_loss, DIGITS)} with {name}."
        )
        disagrees = f" On the test rows, however, {name} lowers the loss." if best.gain.low > 0 else ""
        return f"{penalty} does not help here. {held_out}{disagrees}"
    if best.gain.value <= 0:
        return f"{penalty} does not help here. {test_sentence}"
    if best.gain.low > 0:
        return f"{penalty} helps here. {test_sentence} {gain}. {interval} {_write_score(study)}"
    subject = f"{name_inside(best)}, chosen by request," if is_requested else "a penalty"
    doubt = f", but its 95% confidence interval contains zero. The interval is {ends}." if ends else f". {interval}"
    held_out = (
        f"In cross-validation the loss falls from {format_number(base.val_loss, DIGITS)} to "
        f"{format_number(best.val_loss, DIGITS)}."
    )
    return f"It is not certain that {subject} helps here. {test_sentence} {gain}{doubt} {held_out}"


def _explain_no_penalty(study: Findings) -> str:
    if len(study.candidates) == 1:
        return "Only a network without a penalty was trained."
    return "As requested, the network without a penalty was chosen."


def _write_score(study: Findings) -> str:
    best = study.best
    score = score_name(study.table.task)
    ends = format_interval(best.score, DIGITS)
    subject = f"The {score} on the test rows" if has_penalty(best) else f"Its {score} on the test rows"
    value = f"{subject} is {format_number(best.score.value, DIGITS)}."
    return f"{value} The 95% confidence interval is {ends}." if ends else value


def _write_selection(study: Findings) -> str:
    selector = study.selector
    total = sum(column.is_used for column in study.table.columns)
    if selector is None or selector.selected is None or selector.stability is None:
        is_unknown = any(candidate.selected is None for candidate in study.candidates)
        if is_unknown:
            return (
                f"All {total:,} columns are inputs of the network; poise cannot determine which of them the network "
                "actually uses."
            )
        return f"All {total:,} columns are used, because no penalty in this study can drop a column."
    total, selected = len(selector.stability), set(selector.selected)
    penalty = _capitalize(name_inside(selector))
    shares = selector.stability
    inside, outside = (
        [float(share) for column, share in shares.items() if (column in selected) == is_selected]
        for is_selected in (True, False)
    )
    runs = f"the {len(replica_table(selector.path.lanes))} training runs"
    reason = f"Columns are selected at {explain_selection(selector)}."
    if not selected:
        highest = max(outside)
        stable = (
            f"No column is selected in more than {highest:.0%} of {runs}."
            if highest
            else "No training run selects any column."
        )
        return f"{penalty} selects no column. {reason} {stable}"
    lowest = min(inside)
    least = f"Every selected column is selected in at least {lowest:.0%} of {runs}."
    if lowest == 1.0:
        least = f"Each selected column is selected in all of {runs}."
    if len(selected) == total:
        every = f"all {total:,} columns" if total > 1 else "the only column"
        return f"{penalty} selects {every}. {reason} {least}"
    highest = max(outside)
    most = "No other column is selected in any of them."
    if highest:
        most = f"No other column is selected in more than {highest:.0%} of them."
    count = f"{len(selected):,} of {total:,} columns"
    return f"{penalty} selects {count}: {list_names(selector.selected)}. {reason} {least} {most}"


def _write_certainty(study: Findings) -> str:
    best = study.best
    spread = " (mean and standard error over the folds)" if np.isfinite(best.val_error) else ""
    held_out = f"The held-out loss is {format_with_error(best.val_loss, best.val_error, DIGITS)}{spread}."
    if not has_penalty(best):
        return f"Without a penalty there is no strength to choose. {held_out}"
    grid = best.stage.strengths
    at, last = int(np.argmin(np.abs(grid - best.strength))), len(grid) - 1
    place = "which is inside the grid"
    if at in (0, last):
        end, other = ("weakest", "weaker") if at == 0 else ("strongest", "stronger")
        place = f"the {end} of the grid; a {other} one might predict better"
    strength = format_number(best.strength, DIGITS)
    return (
        f"The chosen strength of {name_inside(best)} is {strength}, {place}. {held_out} {write_convergence(best)}"
    )  # fmt: skip


def _capitalize(text: str) -> str:
    return text[0].upper() + text[1:]
