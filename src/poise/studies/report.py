"""A study in words and pictures: one HTML file that needs nothing else.

Every sentence is computed from the numbers, and none says that a penalty helps where it does not. Text that stems
from the data is escaped by Jinja in the page, by `neutral` inside pictures (Plotly reads a subset of HTML) and by
`embedded` inside scripts. Colours are roles: the page knows them, for light, dark and paper.
"""

import html
import json
import os
import platform
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots
from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from poise.studies.run import Outcome, Study, layer_name

FILES = ("table.csv", "study.json", "report.html")
LOSSES = (
    ("loss", "prediction, training rows", "prediction", "dot"),
    ("val_loss", "prediction, validation rows", "prediction", "solid"),
    ("penalty", "penalty", "penalty", "solid"),
    ("total_loss", "total = prediction + penalty, training", "total", "dash"),
)
FORCES = (
    ("exact", "prediction", "prediction, all training rows", "prediction", "solid"),
    ("forces", "prediction", "prediction, a single batch", "prediction", "dot"),
    ("forces", "penalty", "penalty", "penalty", "solid"),
)
BINS = 41
MOST_MARKED = 12
LOADER = PackageLoader("poise.studies")


def save(study: Study, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Writes the run's three files, each whole or not at all; returns the report's path.

    Raises:
        FileExistsError: the folder already holds a run and `overwrite` is false.
        OSError: the folder cannot be written.
    """
    check_folder(folder, overwrite=overwrite)
    contents = (study.table.to_csv(), as_json(study), page(study))
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, text in zip(FILES, contents, strict=True):
            _write(Path(folder) / name, text)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return Path(folder) / FILES[-1]


def check_folder(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Finds out, before anything is trained, whether a run can be saved in `folder`; leaves no trace.

    Raises:
        FileExistsError: the folder already holds a run and `overwrite` is false.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        if not overwrite and folder.is_dir() and any(folder.iterdir()):
            raise FileExistsError(
                f"The folder {str(folder)!r} already holds something, and nothing is overwritten "
                "unasked. Use --force (overwrite=True), or another folder."
            )
        new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / "probe", "", keep=False)
        finally:
            for made in new:
                if made.is_dir():
                    made.rmdir()
    except FileExistsError as error:
        raise error if error.errno is None else _unwritable(folder, error) from None
    except OSError as error:
        raise _unwritable(folder, error) from None


def as_json(study: Study) -> str:
    """Settings, table and versions as JSON."""
    table = study.rows.table
    recipes = []
    for outcome in study.outcomes:
        finite = {key: None if value != value else value for key, value in vars(outcome.row).items()}
        named = {"name": outcome.recipe.name, "strength": outcome.recipe.strength, "dropped": outcome.dropped}
        recipes.append(finite | named)
    content = {
        "data": {key: getattr(table, key) for key in ("name", "source", "task", "classes")},
        "target": table.target.name,
        "rows": {"training": len(study.rows.x_train), "validation": len(study.rows.x_validation)},
        "settings": vars(study.settings),
        "recipes": recipes,
        "answer": answer(study),
        "seconds": round(study.seconds, 1),
        "versions": versions(),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def page(study: Study) -> str:
    """The report as HTML."""
    environment = Environment(loader=LOADER, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pictures = {"losses": losses_picture(study), "forces": forces_picture(study), "weights": weights_picture(study)}
    environment.filters["figure"] = _figure
    return environment.get_template("report.html.j2").render(
        study=study,
        rows=study.rows,
        table=study.rows.table,
        names=_names,
        answer=answer(study),
        measures=measures(study),
        best=study.outcomes.index(study.best),
        pictures={name: embedded(str(picture.to_json())) for name, picture in pictures.items()},
        legends={"losses": [line[1:] for line in LOSSES], "forces": [line[2:] for line in FORCES]},
        cut=_highest(study, 0) > 1.05 * _highest(study, study.settings.epochs // 20),
        nearest=_nearest(study),
        noise=noise_of_a_batch(study),
        layer_name=layer_name,
        listed=_listed,
        settings=study.settings,
        code=code(study),
        versions=versions(),
        plotly=Markup(get_plotlyjs()),
    )


def console_table(study: Study) -> RichTable:
    """The table for a terminal."""
    table = RichTable(
        title=Text(f"{study.rows.table.name}: {study.rows.table.task}"),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("")
    for outcome in study.outcomes:
        table.add_column(Text(outcome.recipe.title), justify="right")
    for label, *cells in measures(study):
        table.add_row(label, *cells)
    return table


def measures(study: Study) -> list[list[str]]:
    """The table as people read it: a label, then one cell a recipe."""
    score = "R²" if study.rows.table.task == "regression" else "accuracy"
    lines = {
        "prediction loss, training": "{0.loss:.4f}",
        "prediction loss, validation": "{0.val_loss:.4f}",
        "gap (validation - training)": "{0.gap:.4f}",
        f"{score}, validation": "{0.val_score:.3f}",
        "penalty": "{0.penalty:.4f}",
        "total, training": "{0.total:.4f}",
        "weight norm": "{0.weight_norm:.2f}",
        f"exact zeros of {study.baseline.row.weights}": "{0.zeros} ({1:.0%})",
        "residual / prediction force": "{0.relative_residual:.2g}",
    }
    rows = [(outcome.row, outcome.row.zeros / outcome.row.weights) for outcome in study.outcomes]
    cells = [[label, *(form.format(*row) for row in rows)] for label, form in lines.items()]
    winners = zip(*(outcome.balance["winner"] for outcome in study.outcomes), strict=True)
    names = [layer_name(variable) for variable in study.baseline.balance["variable"]]
    return cells + [[f"stronger force on {name}", *words] for name, words in zip(names, winners, strict=True)]


def answer(study: Study) -> list[str]:
    """Three sentences: who predicts best, what that costs, what became exactly zero."""
    if len(study.outcomes) == 1:
        loss = _figure(study.baseline.row.val_loss)
        return [f"Only the training without a penalty was asked for: its prediction loss on {_rows(study)} is {loss}."]
    return [_verdict(study, _nearest(study)), _price(study, _nearest(study)), _zeros(study)]


def _verdict(study: Study, nearest: Outcome) -> str:
    base, title, (gain, error) = study.baseline.row.val_loss, nearest.recipe.title, study.gain(nearest)
    loss, other = _figure(base), _figure(nearest.row.val_loss)
    if gain <= 0.0:
        plain = f"without one the prediction loss on {_rows(study)} is {loss}"
        return f"No penalty helps here at these strengths: {plain}, and the nearest recipe, {title}, comes to {other}."
    share = f"{gain / base:.0%}" if gain >= 0.01 * base else "less than 1%"
    lower = f"its prediction loss is {other}, {share} below the {loss} without a penalty"
    found = f"On {_rows(study)} {title} predicts best: {lower}"
    if gain < 2.0 * error:
        doubt = "so these rows do not show that the penalty helps"
        return f"{found}; the difference is only {gain / error:.1f} standard errors, {doubt}."
    return f"{found}, a difference of {gain / error:.1f} standard errors." if error else f"{found}, on every row alike."


def _rows(study: Study) -> str:
    return f"the {len(study.rows.x_validation)} validation rows"


def _price(study: Study, outcome: Outcome) -> str:
    before, after = study.baseline.row, outcome.row
    loss = _change(before.loss, after.loss, "rises", "falls")
    gap = _change(before.gap, after.gap, "widens", "narrows")
    bought = "" if after.val_loss < before.val_loss else ", which buys nothing as the validation loss is no lower"
    return (
        f"With {outcome.recipe.title} the prediction loss on the training rows {loss}, the penalty adds "
        f"{_figure(after.penalty)} to the total, and the gap between validation and training rows {gap}{bought}."
    )


def _change(before: float, after: float, up: str, down: str) -> str:
    if _figure(before) == _figure(after):
        return f"stays at {_figure(after)}"
    return f"{up if after > before else down} from {_figure(before)} to {_figure(after)}"


def _zeros(study: Study) -> str:
    none = [outcome.recipe.title for outcome in study.outcomes[1:] if not outcome.row.zeros]
    columns, parts = study.rows.table.features.shape[1], []
    for outcome in study.outcomes[1:]:
        row, dropped = outcome.row, outcome.dropped
        gone = (
            f"{_names(dropped)} ({len(dropped)} of {columns} columns)" if dropped else f"none of the {columns} columns"
        )
        share = f"{row.zeros} of {row.weights} weights ({row.zeros / row.weights:.0%})"
        if row.zeros:
            parts.append(f"{outcome.recipe.title} left {share} at exactly zero and drops {gone}")
    if not parts:
        return "No weight became exactly zero."
    return "; ".join(parts) + (f"; {_listed(none)} left none" if none else "") + "."


def _names(columns: Sequence[str], most: int = 5) -> str:
    quoted = [f"“{name if len(name) <= 40 else name[:39] + '…'}”" for name in columns]
    return _listed(quoted if len(quoted) <= most else [*quoted[:most], f"{len(quoted) - most} more"])


def _figure(number: float) -> str:
    """Three digits: enough to read, and not more than one split can tell."""
    return f"{number:.3g}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def noise_of_a_batch(study: Study) -> str:
    """How many times stronger the prediction force is on single batches than over all rows, as "5 to 8"."""
    ratios = []
    for outcome in study.outcomes:
        batches = outcome.forces[outcome.forces["epoch"] == study.settings.epochs]
        ratios.append(np.linalg.norm(batches["prediction"]) / np.linalg.norm(outcome.balance["prediction"]))
    return " to ".join(dict.fromkeys(f"{ratio:.2g}" for ratio in (min(ratios), max(ratios))))


def losses_picture(study: Study) -> go.Figure:
    """Prediction loss on both kinds of rows, penalty and total over the epochs, one panel a recipe."""
    titles = [outcome.recipe.title for outcome in study.outcomes]
    picture = _panels([titles], "epoch", f"loss for {study.rows.table.target.name}")
    for column, outcome in enumerate(study.outcomes, start=1):
        for key, *style in LOSSES:
            _add_line(picture, 1, column, outcome.history.index, outcome.history[key].round(5), *style)
    picture.update_traces(hovertemplate="%{y:.4f}").update_xaxes(range=[0, 1.02 * study.settings.epochs])
    return picture.update_yaxes(range=[0.0, 1.05 * _highest(study, study.settings.epochs // 20)])


def _highest(study: Study, skipped: int) -> float:
    """The highest of all losses, the first epochs skipped: they would press everything else against the floor."""
    keys = [line[0] for line in LOSSES]
    return max(float(outcome.history[keys].iloc[skipped:].to_numpy().max()) for outcome in study.outcomes)


def forces_picture(study: Study) -> go.Figure:
    """Norm of both gradients over the epochs, one row of panels a layer, one column a recipe."""
    variables = list(study.baseline.balance["variable"])
    titles = [[f"{outcome.recipe.title}, {layer_name(name)}" for outcome in study.outcomes] for name in variables]
    picture = _panels(titles, "epoch", "gradient norm")
    seen = []
    for column, outcome in enumerate(study.outcomes, start=1):
        for row, variable in enumerate(variables, start=1):
            for source, key, *style in FORCES:
                table = getattr(outcome, source)
                table = table[table["variable"] == variable]
                # A logarithm has no place for zero: a force that is absent leaves a gap.
                force = table[key].where(table[key] > 0.0)
                _add_line(picture, row, column, table["epoch"], force, *style)
                seen += [force.min(), force.max()]
    low, high = np.log10(np.nanmin(seen)), np.log10(np.nanmax(seen))
    picture.update_traces(hovertemplate="%{y:.3g}").update_xaxes(range=[0, 1.02 * study.settings.epochs])
    return picture.update_yaxes(type="log", tickformat="~g", range=[low - 0.1, high + 0.1])


def weights_picture(study: Study) -> go.Figure:
    """How many weights lie where, and how many are exactly zero, one panel a recipe."""
    every = [np.concatenate([kernel.ravel() for kernel in outcome.weights.values()]) for outcome in study.outcomes]
    end = max(float(np.abs(weights).max()) for weights in every) or 1.0
    edges = np.linspace(-end, end, BINS + 1)
    middles, bounds, width = (
        (edges[:-1] + edges[1:]) / 2.0,
        np.column_stack([edges[:-1], edges[1:]]),
        edges[1] - edges[0],
    )
    titles = [f"{one.recipe.title}\n{one.row.zeros} of {one.row.weights} exactly zero" for one in study.outcomes]
    picture = _panels([titles], "weight", "number of weights")
    between = "%{y} between %{customdata[0]:.2f} and %{customdata[1]:.2f}"
    for column, weights in enumerate(every, start=1):
        cell = {"row": 1, "col": column, "width": width, "hoverlabel_namelength": 0}
        counts, _ = np.histogram(weights[weights != 0.0], edges)
        picture.add_bar(x=middles, y=counts, customdata=bounds, meta="weights", hovertemplate=between, **cell)
        zeros = int((weights == 0.0).sum())
        picture.add_bar(x=[0.0], y=[zeros], meta="zeros", hovertemplate="%{y} exactly zero", **cell)
    picture.update_layout(barmode="stack", hovermode="closest")
    return picture


def _add_line(picture: go.Figure, row: int, column: int, x, y, name: str, role: str, dash: str) -> None:
    mode = "lines+markers" if len(x) <= MOST_MARKED else "lines"
    picture.add_scatter(x=x, y=y, row=row, col=column, name=name, meta=role, line_dash=dash, mode=mode, marker_size=5)


def _panels(titles: list[list[str]], x: str, y: str) -> go.Figure:
    """An empty picture with shared axes; the page arranges its panels by the room there is."""
    flat = ["<br>".join(map(neutral, title.split("\n"))) for row in titles for title in row]
    picture = make_subplots(rows=len(titles), cols=len(titles[0]), subplot_titles=flat)
    picture.update_xaxes(title_text=neutral(x), matches="x").update_yaxes(title_text=neutral(y), matches="y")
    picture.update_layout(xaxis_matches=None, yaxis_matches=None)  # no axis may match itself
    picture.update_layout(template="none", showlegend=False, hovermode="x unified", meta={"columns": len(titles[0])})
    return picture


def neutral(text: str, most: int = 40) -> str:
    """Text as Plotly shows it letter by letter: no tags, no links, no line breaks, not endless."""
    plain = " ".join(text.split())
    return html.escape(plain if len(plain) <= most else plain[: most - 1] + "…", quote=False)


def embedded(text: str) -> Markup:
    """JSON that may stand inside a script element: no character there can end it."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def code(study: Study) -> str:
    """Lines of Python that train the best penalised recipe again, outside of the study."""
    rows, settings, table = study.rows, study.settings, study.rows.table
    recipe = _nearest(study).recipe
    arguments = "".join(f", {name}={value!r}" for name, value in recipe.kind.arguments.items())
    # Python and not HTML: the page escapes the result as a whole.
    return (
        Environment(loader=LOADER, trim_blocks=True)
        .get_template("code.py.j2")
        .render(
            source=repr(table.source) if table.source else "frame",
            target=repr(table.target.name),
            task=repr(table.task),
            drop=repr(list(settings.drop)) if settings.drop else "",
            settings=settings,
            inputs=len(rows.inputs),
            outputs=study.baseline.model.output_shape[-1],
            steps=settings.epochs * -(-len(rows.x_train) // settings.batch_size),
            penalty=f"{recipe.kind.penalty.__name__}(strength={recipe.strength!r}{arguments})",
            update=repr(recipe.kind.update),
            loss={
                "regression": '"mse"',
                "binary": "keras.losses.BinaryCrossentropy(from_logits=True)",
                "multiclass": "keras.losses.SparseCategoricalCrossentropy(from_logits=True)",
            }[table.task],
        )
    )


def _nearest(study: Study) -> Outcome:
    """The penalised recipe that predicts best; the baseline where there is no other."""
    return min(study.outcomes[1:] or study.outcomes, key=lambda outcome: outcome.row.val_loss)


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    modules = ("poise", "keras", keras.backend.backend(), "numpy", "pandas", "sklearn", "plotly")
    return {"Python": platform.python_version()} | {name: import_module(name).__version__ for name in modules}


def _write(path: Path, text: str, *, keep: bool = True) -> None:
    """Beside its place first, then moved onto it: a reader never finds half a file."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        if keep:
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _unwritable(folder: str | os.PathLike[str], error: OSError) -> OSError:
    reason = error.strerror or str(error)
    return OSError(f"The folder {os.fspath(folder)!r} cannot be written: {reason}. Choose another with --out.")
