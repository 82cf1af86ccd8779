"""A study in words and pictures: one HTML file that needs nothing else.

Text that stems from the data is escaped by Jinja in the page, by `neutral` inside pictures (Plotly reads a subset of
HTML) and by `embedded` inside scripts. Colors are roles: the page knows them, for light, dark and paper. No row of
the data is in it.
"""

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from poise.path.plots import neutral
from poise.path.tables import replicas_of
from poise.study.candidates.candidates import kind_of
from poise.study.report import plots
from poise.study.report.description import versions
from poise.study.report.script import code
from poise.study.report.sentences import (
    answer,
    balance_in_words,
    called,
    figure,
    interval,
    listed,
    names,
    reason,
    spread,
)
from poise.study.result import NONE, Study
from poise.study.scores import score_name

LISTED = 200
"""Columns that a table lists."""


def page(study: Study) -> str:
    """The report as HTML.

    Example:
        >>> from poise.study.report.page import page
        >>> from poise.study.run import run_study
        >>> page(run_study("wine", penalties=["l2"], strengths=3, cv=2, max_iter=20))[:15]
        '<!doctype html>'
    """
    environment = Environment(
        loader=PackageLoader("poise.study.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": figure, "interval": interval, "names": names, "listed": listed}
    drawn = {"losses": plots.losses_picture(study), "weights": plots.weights_picture(study)}
    layers = plots.drawn_layers(study)
    if layers:
        drawn["forces"] = plots.forces_picture(study)
    if len(study.candidates) > 1:
        drawn["paths"] = plots.paths_picture(study)
    survivors = survivors_table(study)
    selector = study.selector
    if selector is not None and survivors is not None:
        drawn["columns"] = plots.columns_picture(study, selector)
    used = [column for column in study.table.columns if column.kind != "set aside"]
    return environment.get_template("report.html.j2").render(
        study=study,
        table=study.table,
        settings=study.settings,
        best=study.best,
        base=study.baseline,
        selector=selector,
        answer=answer(study),
        pictures={name: embedded(str(picture.to_json())) for name, picture in drawn.items()},
        legends=_legends(study),
        called=called,
        reason=reason,
        balance_in_words=balance_in_words,
        layer_name=plots.layer_name,
        meaning={one.name: kind_of(one.name).meaning for one in study.candidates[1:]},
        cv=replicas_of(study.baseline.path.lanes).query("fold >= 0")["fold"].nunique(),
        trainings=0 if selector is None else len(replicas_of(selector.path.lanes)),
        survivors=None if survivors is None else survivors.head(LISTED),
        left_out=0 if survivors is None else max(len(survivors) - LISTED, 0),
        is_cut=plots.is_cut(study),
        hidden_layers=len(study.watched[study.chosen].balance) - len(layers),
        listed_columns=study.table.columns[:LISTED],
        used=len(used),
        inputs=len(study.encoder.inputs),
        outputs=study.best.model.output_shape[-1],
        score=score_name(study.table.task),
        rows=_rows_of_results(study),
        code=code(study),
        versions=versions(),
        plotly=Markup(get_plotlyjs()),
    )


def survivors_table(study: Study) -> pd.DataFrame | None:
    """Every column with `kept`, `share` (of the trainings that keep it) and `size`, the survivors first.

    The share and the size are those at the strength at which it is told what survives. None where it cannot be told.
    """
    one = study.selector
    if one is None or one.kept is None or one.stability is None:
        return None
    sizes = plots.column_sizes(one, study.encoder.owners)
    at = int(np.argmin(np.abs(one.path.strengths - one.kept_at)))
    table = pd.DataFrame({"share": one.stability, "size": sizes.iloc[:, at].reindex(one.stability.index)})
    table.insert(0, "kept", table.index.isin(list(one.kept)))
    return table.sort_values(["kept", "share", "size"], ascending=False, kind="stable")


def embedded(text: str) -> Markup:
    """JSON that may stand inside a script element: no character there can end it."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _legends(study: Study) -> dict[str, list[tuple[str, str, str]]]:
    """By picture its legend: label, role and line."""
    penalized = study.candidates[1:]
    other = any(one.path is not one.stage for one in penalized)
    legends = {
        "paths": [*plots.PATHS, *([plots.OTHER_STAGE] if other else [])],
        "losses": [line[1:] for line in plots.LOSSES if study.best.name != NONE or line[0].endswith("loss")],
        "forces": [line[1:] for line in plots.FORCES],
    }
    if study.best.name == NONE:
        legends["losses"] = [line[1:] for line in plots.LOSSES if line[0] in ("loss", "val_loss")]
        legends["forces"] = legends["forces"][:1]
    one = study.selector
    if one is not None:
        sizes = plots.column_sizes(one, study.encoder.owners)
        order = plots.named_columns(sizes)
        legends["columns"] = [
            (
                _short(str(sizes.index[number])),
                f"line{rank % plots.COLORS + 1}",
                plots.DASHES[rank // plots.COLORS],
            )
            for rank, number in enumerate(order[: plots.NAMED])
        ]
        more = len(order) - plots.NAMED
        if more > 0:
            drawn = f"{min(more, plots.UNNAMED):,} of {more:,}" if more > plots.UNNAMED else f"{more:,}"
            legends["columns"].append((f"{drawn} more columns", "weights", "solid"))
        legends["columns"].append(("strength at which it is told what survives", "ink", "dot"))
    return legends


def _short(name: str) -> str:
    plain = " ".join(name.split())
    return plain if len(plain) <= 28 else plain[:17] + "…" + plain[-10:]


def _rows_of_results(study: Study) -> list[dict]:
    """The table of all candidates, each cell as text and as a number by which it is sorted."""
    rows = []
    for one in study.candidates:
        own = one.row
        balance = float("nan") if one.name == NONE else float(own["relative_residual"])
        cells = [
            (figure(one.strength), one.strength, ""),
            (figure(own["loss"]), own["loss"], ""),
            (spread(one.val_loss, one.val_error), one.val_loss, ""),
            *((figure(e.value) if np.isfinite(e.value) else "", e.value, interval(e)) for e in _estimates(one)),
            ("?", np.nan, "") if one.kept is None else (f"{len(one.kept):,}", len(one.kept), ""),
            (f"{int(own['zeros']):,}", own["zeros"], f"{own['zero_share']:.0%}"),
            (figure(balance) if np.isfinite(balance) else "", balance, ""),
        ]
        rows.append({"one": one, "cells": [(text, _sorted_by(number), ends) for text, number, ends in cells]})
    return rows


def _estimates(one):
    return one.test_loss, one.score, one.gain


def _sorted_by(number) -> str:
    return repr(float(number)) if np.isfinite(number) else ""


__all__ = ["embedded", "neutral", "page", "survivors_table"]
