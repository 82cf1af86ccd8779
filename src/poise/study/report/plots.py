"""The pictures of a report, without colors: every trace names its role, and the page knows the colors of roles.

A picture is a grid of panels; `meta` tells the page how many belong in a row at most and which axes are shared, and
the page arranges them by the room there is.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from poise.compaction.inputs import input_kernels
from poise.path.plots import neutral, places
from poise.path.result import RegularizationPath
from poise.study.result import NONE, Candidate, Study

LOSSES = (
    ("loss", "prediction, rows that train", "prediction", "dot"),
    ("val_loss", "prediction, rows held out", "prediction", "solid"),
    ("penalty", "penalty", "penalty", "solid"),
    ("total_loss", "total = prediction + penalty", "total", "dash"),
)
FORCES = (("prediction", "prediction", "prediction", "solid"), ("penalty", "penalty", "penalty", "solid"))
PATHS = (
    ("rows held out", "prediction", "solid"),
    ("± 1 standard error", "band", "band"),
    ("rows that train", "prediction", "dot"),
    ("rows held out, without a penalty", "total", "dash"),
    ("strength taken to predict", "ink", "disc"),
    ("strength at which it is told what survives", "zeros", "diamond"),
)
OTHER_STAGE = ("rows held out, last adaptive stage", "prediction", "dash")
BINS = 41
NAMED = 12
"""Columns that are drawn in color."""
UNNAMED = 300
"""Columns that are drawn in gray, the next largest."""
COLORS = 6
DASHES = ("solid", "dash")
LAYERS = 6
"""Layers whose forces are drawn."""
WIDE_RANGE = 20.0
"""Losses that differ by more than this factor stand on a logarithmic axis."""


def paths_picture(study: Study) -> go.Figure:
    """Held-out and training loss over the strengths, one panel a penalty."""
    candidates = study.candidates[1:]
    titles = [f"{one.title}{', chosen' if one.name == study.chosen else ''}" for one in candidates]
    picture = _panels([titles], "strength", "prediction loss", shared="y", columns=len(titles))
    low, high, is_log = _loss_range(study)
    for column, one in enumerate(candidates, start=1):
        _add_path(picture, column, one, study.baseline.val_loss, low)
    picture.update_yaxes(_on_logarithms(low, high, 7) if is_log else {"range": [low, high]})
    return picture.update_layout(hovermode="closest")


def columns_picture(study: Study, one: Candidate) -> go.Figure:
    """The sizes of the columns over the strengths, and how many survive."""
    sizes = column_sizes(one, study.encoder.owners)
    strengths = one.path.strengths
    x = places(strengths)
    picture = _panels([["Size of each column", "Columns that survive"]], "strength", "", shared="", columns=2)
    order = named_columns(sizes)
    gray = sizes.iloc[order[NAMED : NAMED + UNNAMED]]
    if len(gray):
        # One trace with gaps instead of hundreds.
        apart = np.column_stack([gray.to_numpy(), np.full(len(gray), np.nan)]).ravel()
        along = np.tile(np.append(x, np.nan), len(gray))
        names = np.repeat([neutral(str(name)) for name in gray.index], len(x) + 1)
        picture.add_scatter(
            x=along, y=apart.round(6), text=names, mode="lines", meta="weights", line_width=1, opacity=0.6,
            row=1, col=1, hovertemplate="%{text}<br>%{y:.3g} at strength %{x:.3g}<extra></extra>",
        )  # fmt: skip
    for rank, number in enumerate(order[:NAMED]):
        picture.add_scatter(
            x=x, y=sizes.iloc[number].round(6), name=neutral(str(sizes.index[number])), mode="lines+markers",
            marker_size=4, meta=f"line{rank % COLORS + 1}", line_dash=DASHES[rank // COLORS], row=1, col=1,
            customdata=strengths, text=[neutral(str(sizes.index[number]))] * len(x),
            hovertemplate="%{text}<br>%{y:.3g} at strength %{customdata:.3g}<extra></extra>",
        )  # fmt: skip
    left = (sizes > 0).sum(axis=0).to_numpy()
    picture.add_scatter(
        x=x, y=left, customdata=strengths, mode="lines+markers", marker_size=5, meta="zeros", row=1, col=2,
        hovertemplate=f"%{{y:,}} of {len(sizes):,} at strength %{{customdata:.3g}}<extra></extra>",
    )  # fmt: skip
    at = x[int(np.argmin(np.abs(strengths - one.kept_at)))]
    for column, top in ((1, float(np.nanmax(sizes.to_numpy())) or 1.0), (2, len(sizes))):
        picture.add_scatter(
            x=[at, at], y=[0, 1.08 * top], mode="lines", meta="ink", line_dash="dot", line_width=1.5, row=1, col=column,
            hoverinfo="skip",
        )  # fmt: skip
        picture.update_yaxes(range=[-0.03 * top, 1.08 * top], tickformat=",~g", row=1, col=column)
    for column in (1, 2):
        _on_strengths(picture, column, [strengths], [one.kept_at])
    return picture.update_layout(hovermode="closest")


def column_sizes(one: Candidate, owners: Sequence[str]) -> pd.DataFrame:
    """The norm of all weights that read a column, one row a column, one column a strength, all rows training."""
    kernels = input_kernels(one.model) or []
    squares = np.zeros((len(one.path.strengths), len(owners)))
    for reader in kernels:
        kernel = np.square(one.path.lanes.weights[reader.position][0].astype("float64"))
        own = kernel.sum(axis=tuple(a for a in range(1, kernel.ndim) if a != reader.axis + 1))
        np.add.at(squares, (slice(None), reader.inputs), own)
    norms = pd.DataFrame(squares.T, index=pd.Index([*owners], name="column")).groupby(level=0, sort=False).sum() ** 0.5
    return norms.set_axis(one.path.strengths, axis="columns")


def named_columns(sizes: pd.DataFrame) -> np.ndarray:
    """The positions of the columns by their largest size, the largest first; without those that never are."""
    largest = np.nan_to_num(sizes.to_numpy()).max(axis=1)
    order = np.argsort(-largest, kind="stable")
    return order[largest[order] > 0]


def losses_picture(study: Study) -> go.Figure:
    """Both losses, penalty and total over the steps, without a penalty and with the chosen one."""
    watched = _watched(study)
    picture = _panels([[one.title for one in watched]], "step", "loss", shared="xy", columns=2)
    for column, one in enumerate(watched, start=1):
        history = study.watched[one.name].history
        for key, *style in LOSSES:
            if key == "loss" or one.name != NONE or key == "val_loss":
                _add_line(picture, 1, column, history.index, history[key].round(6), *style)
    picture.update_traces(hovertemplate="%{y:.4g}")
    low, high = _heights(study, watched)
    picture.update_xaxes(range=[0, study.settings.max_iter])
    return picture.update_yaxes(range=[low, high]).update_layout(hovermode="x unified")


def is_cut(study: Study) -> bool:
    """Whether the first steps of the losses lie above the picture's edge."""
    keys = [line[0] for line in LOSSES]
    watched = _watched(study)
    return any(study.watched[one.name].history[keys].max().max() > _heights(study, watched)[1] for one in watched)


def forces_picture(study: Study) -> go.Figure:
    """The norms of both gradients over the steps, one row of panels a layer."""
    watched = _watched(study)
    variables = drawn_layers(study)
    titles = [[f"{one.title}, {layer_name(variable)}" for one in watched] for variable in variables]
    picture = _panels(titles, "step", "gradient norm", shared="xy", columns=len(watched))
    seen = [1.0]
    for column, one in enumerate(watched, start=1):
        table = study.watched[one.name].forces
        for row, variable in enumerate(variables, start=1):
            own = table[table["variable"] == variable]
            for key, *style in FORCES:
                # A logarithm has no place for zero: a force that is absent leaves a gap.
                force = own[key].where(own[key] > 0.0)
                if force.notna().any():
                    _add_line(picture, row, column, own["step"], force.round(9), *style)
                    seen += [force.min(), force.max()]
    forces = seen[1:] or seen
    picture.update_traces(hovertemplate="%{y:.3g}").update_xaxes(range=[0, study.settings.max_iter])
    picture.update_yaxes(_on_logarithms(min(forces) / 1.25, max(forces) * 1.25, 7))
    return picture.update_layout(hovermode="x unified")


def drawn_layers(study: Study) -> list[str]:
    """The penalized variables whose forces are drawn, the first ones."""
    found = [[*study.watched[one.name].forces["variable"].unique()] for one in _watched(study)]
    return [variable for variable in found[-1] if all(variable in own for own in found)][:LAYERS]


def weights_picture(study: Study) -> go.Figure:
    """How many weights lie where before and after, and how many are exactly zero."""
    watched = _watched(study)
    parts = {"At the start": study.watched[watched[0].name].before}
    parts |= {one.title: study.watched[one.name].after for one in watched}
    end = max(float(np.abs(weights).max(initial=0.0)) for weights in parts.values()) or 1.0
    edges = np.linspace(-end, end, BINS + 1)
    middles, bounds = (edges[:-1] + edges[1:]) / 2.0, np.column_stack([edges[:-1], edges[1:]]).round(6)
    zeros = {name: int((weights == 0.0).sum()) for name, weights in parts.items()}
    titles = [f"{name}\n{zeros[name]:,} of {len(weights):,} exactly zero" for name, weights in parts.items()]
    picture = _panels([titles], "weight", "number of weights", shared="xy", columns=3)
    between, highest = "%{y:,} between %{customdata[0]:.3g} and %{customdata[1]:.3g}<extra></extra>", 1
    for column, (name, weights) in enumerate(parts.items(), start=1):
        cell = {"row": 1, "col": column, "width": edges[1] - edges[0], "name": ""}
        counts, _ = np.histogram(weights[weights != 0.0], edges)
        highest = max(highest, int(counts.max()))
        picture.add_bar(x=middles.round(6), y=counts, customdata=bounds, meta="weights", hovertemplate=between, **cell)
        picture.add_bar(
            x=[0.0], y=[zeros[name]], meta="zeros", hovertemplate="%{y:,} exactly zero<extra></extra>", **cell
        )
    # The bar of zeros may go over the edge: it would else press everything against the floor.
    picture.update_yaxes(range=[0, 1.15 * highest])
    return picture.update_layout(barmode="stack", hovermode="closest")


def layer_name(variable: str) -> str:
    """A variable by its layer, and by its own name where it is no kernel."""
    parts = variable.split("/")
    return "/".join(part for part in parts[-2:] if part != "kernel") or variable


def _watched(study: Study) -> list[Candidate]:
    return [one for one in study.candidates if one.name in study.watched]


def _loss_range(study: Study) -> tuple[float, float, bool]:
    """(lowest, highest, whether logarithmic) of what the panels of the paths show."""
    tables = [stage.table for one in study.candidates[1:] for stage in {one.stage, one.path}]
    held = np.concatenate([*(table["val_loss"] for table in tables), [study.baseline.val_loss]])
    train = np.concatenate([table["loss"] for table in tables])
    held, train = held[np.isfinite(held)], train[np.isfinite(train)]
    errors = np.concatenate([table["val_loss"] + table["val_se"].fillna(0.0) for table in tables])
    if not len(held):
        return 0.0, 1.0, False
    high = float(np.nanmax([held.max(), *errors[np.isfinite(errors)]]))
    low = float(min(held.min(), train.min(initial=held.min())))
    if 0 < held.min() < held.max() / WIDE_RANGE:
        return max(low, held.min() / 10) / 1.2, 1.2 * high, True
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin, False


def _add_path(picture: go.Figure, column: int, one: Candidate, baseline: float, low: float) -> None:
    cell = {"row": 1, "col": column}
    table, strengths = one.stage.table, one.stage.strengths
    x = places(strengths)
    mean, error = table["val_loss"].to_numpy(), table["val_se"].to_numpy()
    at = np.isfinite(mean) & np.isfinite(error)
    if at.any():
        top, bottom = (mean + error)[at], np.maximum((mean - error)[at], low)
        picture.add_scatter(
            x=np.append(x[at], x[at][::-1]), y=np.append(top, bottom[::-1]), fill="toself", mode="lines", meta="band",
            hoverinfo="skip", **cell,
        )  # fmt: skip
    line = {"customdata": np.column_stack([strengths, error]), "marker_size": 5, **cell}
    hover = "{}<br>%{{y:.4g}}{} at strength %{{customdata{}:.3g}}<extra></extra>"
    picture.add_scatter(
        x=x, y=table["loss"], mode="lines", meta="prediction", line_dash="dot", name="rows that train",
        hovertemplate=hover.format("rows that train", "", "[0]"), **line,
    )  # fmt: skip
    ends = [x]
    if one.path is not one.stage:
        own = one.path.strengths
        ends.append(places(own))
        picture.add_scatter(
            x=ends[-1], y=one.path.table["val_loss"], mode="lines", meta="prediction", line_dash="dash",
            name="rows held out, last adaptive stage", customdata=own,
            hovertemplate=hover.format("rows held out, last adaptive stage", "", ""), **cell,
        )  # fmt: skip
    across = np.geomspace(min(part[0] for part in ends), max(part[-1] for part in ends), 25)
    picture.add_scatter(
        x=across, y=np.full(25, baseline), mode="lines", meta="total", line_dash="dash",
        name="without a penalty", hovertemplate="without a penalty<br>%{y:.4g}<extra></extra>", **cell,
    )  # fmt: skip
    picture.add_scatter(
        x=x, y=mean, mode="lines+markers", meta="prediction", name="rows held out",
        hovertemplate=hover.format("rows held out", " ± %{customdata[1]:.2g}", "[0]"), **line,
    )  # fmt: skip
    diverged = table["diverged"].to_numpy() > 0
    if diverged.any():
        picture.add_scatter(
            x=x[diverged], y=np.full(diverged.sum(), low), mode="markers", meta="penalty", name="",
            marker={"symbol": "x", "size": 8}, hovertemplate="diverged<extra></extra>", cliponaxis=False, **cell,
        )  # fmt: skip
    _add_mark(picture, cell, one.path, one.kept_at, "zeros", {"symbol": "diamond-open", "size": 14}, "what survives")
    _add_mark(picture, cell, one.stage, one.strength, "ink", {"symbol": "circle", "size": 9}, "taken to predict")
    _on_strengths(picture, column, [one.stage.strengths, one.path.strengths], [one.strength, one.kept_at])


def _add_mark(
    picture: go.Figure, cell, path: RegularizationPath, strength: float, role: str, marker: dict, name: str
) -> None:
    at = int(np.argmin(np.abs(path.strengths - strength)))
    picture.add_scatter(
        x=[places(path.strengths)[at]], y=[path.table["val_loss"].iloc[at]], mode="markers", meta=role, marker=marker,
        name=name, customdata=[path.strengths[at]],
        hovertemplate=f"{name}<br>%{{y:.4g}} at strength %{{customdata:.3g}}<extra></extra>", **cell,
    )  # fmt: skip


def _on_strengths(picture: go.Figure, column: int, grids: Sequence[np.ndarray], marks: Sequence[float]) -> None:
    """A logarithmic axis, on which a strength of zero stands left of the others.

    It ends before the strength of the null model, far above the others, unless a mark stands there.
    """
    strengths = np.unique(np.concatenate([_near(grid, marks) for grid in grids]))
    x = places(strengths)
    across = x[-1] / x[0]
    margin = across**0.04 if across > 1 else 2.0
    axis = _on_logarithms(x[0] / margin, x[-1] * margin, 5)
    if strengths.min() == 0.0:
        inside = [tick for tick in axis["tickvals"] if tick >= x[1]]
        axis |= {"tickvals": [x[0], *inside], "ticktext": ["0", *(f"{tick:.3g}" for tick in inside)]}
    picture.update_xaxes(axis, row=1, col=column)


def _near(strengths: np.ndarray, marks: Sequence[float]) -> np.ndarray:
    """The strengths without the last, where a wider step than any other leads to it and no mark stands there."""
    steps = np.diff(np.log(places(strengths)))
    is_far = len(steps) > 1 and steps[-1] > 1.1 * steps[:-1].max()
    return strengths[:-1] if is_far and strengths[-1] not in marks else strengths


def _on_logarithms(low: float, high: float, most: int) -> dict:
    """A logarithmic axis with at most so many ticks: at round numbers, or powers of ten as there are more."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = []
    for digits, every in (((1, 2, 5), 1), ((1, 3), 1), *(((1,), every) for every in range(1, 9))):
        ticks = [digit * 10.0**power for power in powers if power % every == 0 for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    texts = [f"{tick:.3g}" for tick in ticks]
    return {"type": "log", "range": [np.log10(low), np.log10(high)], "tickvals": ticks, "ticktext": texts}


def _heights(study: Study, watched: Sequence[Candidate]) -> tuple[float, float]:
    """The lowest and highest loss, the first steps skipped: they would press everything else against the floor."""
    keys = [line[0] for line in LOSSES]
    histories = [study.watched[one.name].history[keys] for one in watched]
    values = np.concatenate([history.iloc[len(history) // 20 :].to_numpy().ravel() for history in histories])
    values = values[np.isfinite(values)]
    low, high = min(float(values.min(initial=0.0)), 0.0), float(values.max(initial=0.1))
    return low - (0.05 * (high - low) if low < 0 else 0.0), high + 0.05 * (high - low)


def _add_line(picture: go.Figure, row: int, column: int, x, y, name: str, role: str, dash: str) -> None:
    picture.add_scatter(x=x, y=y, row=row, col=column, name=name, meta=role, line_dash=dash, mode="lines")


def _panels(titles: list[list[str]], x: str, y: str, *, shared: str, columns: int) -> go.Figure:
    """An empty picture; `shared` names the axes that all panels share."""
    flat = ["<br>".join(map(neutral, title.split("\n"))) for row in titles for title in row]
    picture = make_subplots(rows=len(titles), cols=len(titles[0]), subplot_titles=flat)
    picture.update_xaxes(title_text=x).update_yaxes(title_text=y)
    if "x" in shared:
        picture.update_xaxes(matches="x").update_layout(xaxis_matches=None)  # no axis may match itself
    if "y" in shared:
        picture.update_yaxes(matches="y").update_layout(yaxis_matches=None)
    picture.update_layout(template="none", showlegend=False, meta={"columns": columns, "shared": shared, "over": x})
    return picture
