"""The part of the answer about columns: which are selected, how stable that is, and which predictions need.

A column is selected if the network of all training rows reads it, at one strength. Its stability is the share of the
training runs at that strength that select it. Where the two seem to contradict each other, a sentence explains it.
"""

from collections.abc import Sequence

import pandas as pd

from poise.path.tables import replica_table
from poise.study.errors import count_noun
from poise.study.findings import Candidate, Findings
from poise.study.report.names import capitalize, name_inside
from poise.study.report.numbers import format_number, list_names

DIGITS = 2
MOST_RUNS = 0.5
"""A column is uncertain if a smaller share of training runs selects it, or a larger one although it is not selected."""


def write_selection(study: Findings) -> str:
    """Return a paragraph: which columns are selected, how stable that is, and which columns predictions need."""
    selector = study.selector
    total = sum(column.is_used for column in study.table.columns)
    if selector is None or selector.selected is None or selector.stability is None:
        is_unknown = any(candidate.selected is None for candidate in study.candidates)
        if is_unknown:
            return (
                f"All {total:,} columns are inputs of the network; poise cannot determine which of them the network "
                "actually uses."
            )
        return f"All {total:,} columns are needed to predict, because no penalty in this study can drop a column."
    sentences = [
        _name_selected(selector, len(selector.stability)),
        f"Columns are selected at {explain_selection(selector)}.",
        *_write_stability(selector, selector.selected, selector.stability),
        *_explain_uncertain_columns(selector.selected, selector.stability),
        _write_needs(study, study.selection or selector),
        *_write_stability_selection(study),
    ]
    return " ".join(sentences)


def explain_selection(candidate: Candidate) -> str:
    """Return which strength selects columns."""
    path, strength = candidate.path, candidate.selection_strength
    if strength <= path.one_se_strength:
        return "the largest strength whose held-out loss is within one standard error of the lowest"
    if strength <= path.selection_strength:
        return "the largest strength that keeps 95% of the decrease in held-out loss from a model without columns"
    return "the smallest strength at which at least 80% of the training runs keep each selected column"


def _name_selected(selector: Candidate, total: int) -> str:
    selected, penalty = selector.selected or (), capitalize(name_inside(selector))
    if not selected:
        return f"{penalty} selects no column."
    if len(selected) == total:
        return f"{penalty} selects {f'all {total:,} columns' if total > 1 else 'the only column'}."
    return f"{penalty} selects {len(selected):,} of {total:,} columns: {list_names(selected)}."


def _write_stability(selector: Candidate, selected: Sequence[str], stability: pd.Series) -> list[str]:
    """Return the stability of the selected columns, and of the others."""
    is_selected = stability.index.isin(list(selected))
    runs = len(replica_table(selector.path.lanes))
    meaning = f"stability, the share of the {runs} training runs that select a column,"
    sentences = []
    if is_selected.any():
        lowest = stability[is_selected].min()
        share = "100%" if lowest == 1.0 else f"at least {lowest:.0%}"
        sentences.append(f"The {meaning} is {share} for each selected column.")
    if not is_selected.all():
        highest, subject = stability[~is_selected].max(), "any other column" if is_selected.any() else "any column"
        if not highest:
            sentences.append(f"No training run selects {subject}.")
        elif is_selected.any():
            sentences.append(f"It is at most {highest:.0%} for {subject}.")
        else:
            sentences.append(f"The {meaning} is at most {highest:.0%}.")
    return sentences


def _explain_uncertain_columns(selected: Sequence[str], stability: pd.Series) -> list[str]:
    """Return what to think of columns on which the selection and most training runs differ."""
    is_selected = stability.index.isin(list(selected))
    doubtful = [str(name) for name in stability.index[is_selected & (stability < MOST_RUNS)]]
    left_out = [str(name) for name in stability.index[~is_selected & (stability > MOST_RUNS)]]
    sentences = []
    if len(doubtful) == 1:
        share = f"in only {stability[doubtful[0]]:.0%} of the training runs"
        sentences.append(f"{list_names(doubtful)} is selected, but {share}: it is an uncertain choice.")
    elif doubtful:
        share = "each in fewer than half of the training runs"
        sentences.append(f"{list_names(doubtful)} are selected, but {share}: they are uncertain choices.")
    if len(left_out) == 1:
        share = f"{stability[left_out[0]]:.0%} of the training runs select it"
        sentences.append(f"{list_names(left_out)} is not selected, although {share}: it may matter as well.")
    elif left_out:
        share = "more than half of the training runs select each of them"
        sentences.append(f"{list_names(left_out)} are not selected, although {share}: they may matter as well.")
    return sentences


def _write_stability_selection(study: Findings) -> list[str]:
    """Return what the stability selection selects, and the bound on its errors."""
    found = study.stability_selection
    if found is None:
        return []
    subject = f"Separately, stability selection on {found.halves} random halves of the training rows"
    if not found.selected:
        return [f"{subject} selects no column."]
    count = f"{len(found.selected):,} of {count_noun(len(found.share), 'column')}"
    return [
        f"{subject} selects {count}: {list_names(found.selected)}. The expected number of false columns among them is "
        f"at most {format_number(found.expected_false, DIGITS)}."
    ]


def _write_needs(study: Findings, selected: Candidate) -> str:
    """Return which columns the saved network needs, and how well that of the selected columns predicts."""
    roles = [str(role.name) for role in (study.table.offset, study.table.exposure) if role is not None]
    needs = f"needs {_count_needed(study)}{f' and {list_names(roles)}' if roles else ''} to predict"
    score = format_number(selected.score.value, DIGITS)
    name = f"{study.table.task.score_name} on the test rows"
    if study.settings.sparse:
        return f"As requested, the network of the selected columns is saved. It {needs}. Its {name} is {score}."
    if selected is study.saved:
        return f"The saved network is that of the selected columns. It {needs}."
    return f"The saved network {needs}. For the network of the selected columns, the {name} is {score}."


def _count_needed(study: Findings) -> str:
    needed, total, read = len(study.needed_columns), len(study.encoder.columns), study.saved.columns
    if needed == 0:
        return "no column"
    if needed < total:
        return f"only {needed:,} of {total:,} columns"
    unread = f" (although it reads only {len(read):,} of them)" if read is not None and len(read) < total else ""
    return f"all {total:,} columns{unread}" if total > 1 else "its only column"
