"""The answer of a study in sentences: does a penalty or dropout help, which columns are selected, how certain is that.

Every sentence is computed from the numbers and claims no more than they show: if the interval of the gain contains
zero, it says that there is no clear difference. A sentence has at most two numbers.
"""

import numpy as np

from poise.study.findings import Candidate, Findings, has_penalty, is_regularized
from poise.study.report.names import capitalize, name_inside, quantity_of
from poise.study.report.numbers import format_interval, format_number, format_with_error, join_words
from poise.study.report.selection_sentences import write_selection
from poise.study.scores import Estimate, score_name

NEARLY = 0.05
"""A relative residual below this is close to convergence."""
DIGITS = 2
ENDS = {
    "strength": (("weakest", "weaker"), ("strongest", "stronger")),
    "rate": (("lowest", "lower"), ("highest", "higher")),
}
"""By what is chosen along a path: what its first and its last value are, and what a value beyond them would be."""


def write_answer(study: Findings) -> list[str]:
    """Return three paragraphs: whether a penalty helps, which columns are selected, and how certain the strength is."""
    return [_write_verdict(study), write_selection(study), _write_certainty(study)]


def write_convergence(candidate: Candidate) -> str:
    """Return a sentence on how the training at the chosen strength ended."""
    residual, steps = float(candidate.row["relative_residual"]), int(candidate.row["settled"])
    has_stopped = steps < (candidate.stage.training.settle or 0)
    stop = f"Training stopped after {steps} steps, because the held-out loss no longer fell."
    if not has_penalty(candidate):  # no penalty balances the prediction force
        return stop if has_stopped else f"Training took all {steps} steps."
    if not np.isfinite(residual):
        return "It is unknown whether training converged."
    share = f"(relative residual {format_number(residual, DIGITS)})"
    if residual <= candidate.stage.training.tolerance:
        return f"Training converged {share}."
    if residual <= NEARLY:
        return f"Training nearly converged {share}."
    if has_stopped:
        return stop
    return f"Training did not converge {share}. More steps may help."


def _write_verdict(study: Findings) -> str:
    parts = [_write_comparison_with_mean(study)]
    judged = study[study.verdict.judged]
    if is_regularized(judged):
        parts += [_write_outcome(study, judged), _write_test_rows(study, judged)]
        parts += [] if judged is study.best else [f"The network without {_name_kind(judged)} was chosen instead."]
    else:
        parts.append(_explain_no_penalty(study))
    return " ".join(part for part in [*parts, _write_score(study), _write_references(study)] if part)


def _write_comparison_with_mean(study: Findings) -> str:
    """Return a warning if the chosen network does not predict better than a constant."""
    if study.verdict.over_references["mean"].outcome == "helps":
        return ""
    constant = "the class frequencies" if study.table.classes else "the mean"
    return f"It is not certain that the network predicts better than {constant}."


def _write_outcome(study: Findings, judged: Candidate) -> str:
    """Return whether the penalty helps, by all training rows."""
    comparison = study.verdict.over_baseline
    is_requested = study.settings.choose is not None
    kind = _name_kind(judged)
    subject = f"{capitalize(name_inside(judged))}, chosen by request," if is_requested else capitalize(kind)
    headline = {
        "helps": f"{subject} helps here.",
        "hurts": f"{subject} hurts here.",
        "unclear": f"{subject} makes no clear difference here.",
    }[comparison.outcome]
    has_classes = bool(study.table.classes)
    what = "held-out loss" if has_classes else f"held-out {score_name(study.table.task)}"
    gain = comparison.loss_gain if has_classes else comparison.score_gain
    change = -gain.value if has_classes else gain.value
    size = f"{format_number(abs(change), DIGITS)} {'lower' if change < 0 else 'higher'}"
    name = "it" if is_requested else name_inside(judged)
    low, high = (-gain.high, -gain.low) if has_classes else (gain.low, gain.high)
    ends = format_interval(Estimate(change, low, high), DIGITS)
    doubt = ", which contains zero" if comparison.outcome == "unclear" else ""
    interval = f" The 95% confidence interval of the difference is {ends}{doubt}." if ends else ""
    return f"{headline} With {name}, the {what} is {size} than without {kind} (both with early stopping).{interval}"


def _write_test_rows(study: Findings, judged: Candidate) -> str:
    """Return whether the test rows agree with the outcome."""
    losses = (format_number(loss.value, DIGITS) for loss in (study.baseline.test_loss, judged.test_loss))
    numbers = "the loss is {} without {kind} and {} with it".format(*losses, kind=_name_kind(judged))
    agrees = study.verdict.agrees_with(judged.gain)
    if agrees is None:
        return f"On the test rows, {numbers}. There are too few test rows for a confidence interval."
    if agrees:
        return f"The test rows are consistent with this: {numbers}."
    return f"The test rows disagree: {numbers}. Their gain differs from the held-out gain by more than chance explains."


def _write_references(study: Findings) -> str:
    """Return which reference models predict better, and which predict worse."""
    over = study.verdict.over_references
    names = {
        reference.name: reference.title
        for reference in study.references
        if reference.name != "mean" and np.isfinite(over[reference.name].loss_gain.value)
    }
    better = [title for name, title in names.items() if over[name].outcome == "hurts"]
    worse = [title for name, title in names.items() if over[name].outcome == "helps"]
    network = "the network" if not is_regularized(study.best) else f"the network with {name_inside(study.best)}"
    sentences = []
    if better:
        sentences.append(f"{_join_titles(better)} predict{_ending(better)} better here than {network}.")
    if worse:
        sentences.append(f"{_join_titles(worse)} predict{_ending(worse)} worse than {network}.")
    rest = [title for title in names.values() if title not in (*better, *worse)]
    if rest:
        sentences.append(f"{_join_titles(rest)} predict{_ending(rest)} neither clearly better nor clearly worse.")
    return " ".join(sentences)


def _join_titles(titles: list[str]) -> str:
    """Return "A linear model and boosted trees"."""
    nouns = [title.lower() if title.endswith("s") else f"a {title.lower()}" for title in titles]
    return capitalize(join_words(nouns))


def _ending(titles: list[str]) -> str:
    return "" if len(titles) > 1 or titles[0].endswith("s") else "s"


def _explain_no_penalty(study: Findings) -> str:
    if not study.penalized:
        return "No penalty was requested, so the network without a penalty was chosen."
    return "As requested, the network without a penalty was chosen."


def _write_score(study: Findings) -> str:
    best = study.best
    score = score_name(study.table.task)
    ends = format_interval(best.score, DIGITS)
    subject = f"The {score} on the test rows" if is_regularized(best) else f"Its {score} on the test rows"
    value = f"{subject} is {format_number(best.score.value, DIGITS)}."
    interval = f" The 95% confidence interval is {ends}." if ends else ""
    majority = study.metrics.get("majority rate")
    frequent = f" The most frequent class has {majority:.0%} of these rows." if majority is not None else ""
    return f"{value}{interval}{frequent}"


def _write_certainty(study: Findings) -> str:
    best = study.best
    spread = " (mean and standard error over the folds)" if np.isfinite(best.val_error) else ""
    held_out = f"The held-out loss is {format_with_error(best.val_loss, best.val_error, DIGITS)}{spread}."
    if not is_regularized(best):
        return f"Without a penalty there is no strength to choose. {held_out}"
    grid = best.stage.strengths
    at, last = int(np.argmin(np.abs(grid - best.strength))), len(grid) - 1
    place, quantity = "which is inside the grid", quantity_of(best.name)
    if at in (0, last):
        end, other = ENDS[quantity][0 if at == 0 else 1]
        place = f"the {end} of the grid; a {other} one might predict better"
    strength = format_number(best.strength, DIGITS)
    return (
        f"The chosen {quantity} of {name_inside(best)} is {strength}, {place}. {held_out} {write_convergence(best)}"
    )  # fmt: skip


def _name_kind(candidate: Candidate) -> str:
    """Return what a candidate has and the baseline does not: a penalty, or dropout."""
    return "a penalty" if has_penalty(candidate) else name_inside(candidate)
