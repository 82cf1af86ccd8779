"""The answer of a study in sentences: does a penalty or dropout help, which columns are selected, how certain is that.

Every sentence is computed from the numbers and claims no more than they show: if the interval of the gain contains
zero, it says that there is no clear difference. A sentence has at most two numbers.
"""

import numpy as np

from poise.study.findings import Candidate, Findings, has_penalty, is_regularized
from poise.study.report.names import capitalize, name_inside, quantity_of
from poise.study.report.numbers import format_interval, format_number, format_with_error, join_words
from poise.study.report.selection_sentences import write_selection
from poise.study.scores import Estimate

NEARLY = 0.05
"""A relative residual below this is close to convergence."""
DIGITS = 2
END_WORDS = {
    "strength": (("weakest", "weaker"), ("strongest", "stronger")),
    "rate": (("lowest", "lower"), ("highest", "higher")),
}
"""Words for the first and the last value of a grid, and for values beyond them."""
_SAME = "the same"


def write_answer(study: Findings) -> list[str]:
    """Return three paragraphs: whether a penalty helps, which columns are selected, and how certain the strength is.

    The first one begins with the headline.
    """
    return [" ".join(_write_verdict(study)), write_selection(study), _write_certainty(study)]


def write_headline(study: Findings) -> str:
    """Return the verdict in one sentence."""
    return _write_verdict(study)[0]


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


def _write_verdict(study: Findings) -> list[str]:
    """Return the sentences of the first paragraph."""
    parts = [_write_comparison_with_mean(study)]
    judged = study[study.verdict.judged]
    if is_regularized(judged):
        parts += [*_write_outcome(study, judged), _write_test_rows(study, judged)]
        parts += [] if judged is study.best else [f"The network without {_name_kind(judged)} was chosen instead."]
    else:
        parts.append(_explain_no_penalty(study))
    return [part for part in [*parts, _write_score(study), _write_references(study)] if part]


def _write_comparison_with_mean(study: Findings) -> str:
    """Return a warning if the chosen network does not predict better than a constant."""
    if study.verdict.over_references["mean"].outcome == "helps":
        return ""
    return f"It is not certain that the network predicts better than {study.table.task.constant_name}."


def _write_outcome(study: Findings, judged: Candidate) -> list[str]:
    """Return whether the penalty helps, by all training rows.

    The verdict depends only on the loss. The gain is that in the score if its interval leads to the same verdict;
    otherwise it is that in the loss, and another sentence has the score.
    """
    comparison, score = study.verdict.over_baseline, study.table.task.score_name
    is_requested = study.settings.choose is not None
    subject = (
        f"{capitalize(name_inside(judged))}, chosen by request," if is_requested else capitalize(_name_kind(judged))
    )
    effect = {"helps": "helps", "hurts": "hurts", "unclear": "makes no clear difference"}[comparison.outcome]
    what, change = (score, comparison.score_gain) if comparison.shows_score else ("loss", _negate(comparison.loss_gain))
    name = "it" if is_requested else name_inside(judged)
    size = _write_change(change, " than", " as")
    sentences = [f"{subject} {effect} here: with {name}, the held-out {what} is {size} with early stopping alone."]
    ends = format_interval(change, DIGITS)
    doubt = ", which contains zero" if comparison.outcome == "unclear" else ""
    if ends:
        sentences.append(f"The 95% confidence interval of the difference is {ends}{doubt}.")
    if not comparison.shows_score and np.isfinite(comparison.score_gain.value):
        difference = _write_change(comparison.score_gain)
        doubt = ", which is more than chance explains" if comparison.score_gain.is_certain else ", which may be chance"
        sentences.append(f"The held-out {score} is {difference}{'' if difference == _SAME else doubt}.")
    elif study.table.classes:
        sentences.append(
            f"The held-out loss, on which the verdict is based, is {_write_change(_negate(comparison.loss_gain))}."
        )
    return sentences


def _negate(gain: Estimate) -> Estimate:
    """Return the change of the loss."""
    return Estimate(-gain.value, -gain.high, -gain.low)


def _write_change(change: Estimate, than: str = "", same_as: str = "") -> str:
    size = format_number(abs(change.value), DIGITS)
    if size == "0":
        return f"{_SAME}{same_as}"
    return f"{size} {'lower' if change.value < 0 else 'higher'}{than}"


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
    score = study.table.task.score_name
    ends = format_interval(best.score, DIGITS)
    subject = f"The {score} on the test rows" if is_regularized(best) else f"Its {score} on the test rows"
    value = f"{subject} is {format_number(best.score.value, DIGITS)}."
    interval = f" The 95% confidence interval is {ends}." if ends else ""
    majority = study.metrics.get("majority rate")
    is_comparable = majority is not None and study.table.class_weight is None
    frequent = f" The most frequent class has {majority:.0%} of these rows." if is_comparable else ""
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
        end, other = END_WORDS[quantity][0 if at == 0 else 1]
        place = f"the {end} of the grid; a {other} one might predict better"
    strength = format_number(best.strength, DIGITS)
    return (
        f"The chosen {quantity} of {name_inside(best)} is {strength}, {place}. {held_out} {write_convergence(best)}"
    )  # fmt: skip


def _name_kind(candidate: Candidate) -> str:
    """Return what a candidate has and the baseline does not: a penalty, or dropout."""
    return "a penalty" if has_penalty(candidate) else name_inside(candidate)
