"""`growth`: the time per lane and step against the rows, columns, lanes and width, without compilation.

One of them changes and the others stay as in `BASE`. Steps are those of a study: full-batch, and of 4,096 rows if the
table has more than 8,192. Two paths that differ only in the number of steps are timed; their difference has no
compilation in it. The curves are drawn to docs/pictures/growth.png, or growth-gpu.png for a GPU.
"""

import importlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .contenders import build_network
from .harness import Numbers, Options, Row, list_missing, measure, run_contender
from .machine import describe_device

DOCS = Path(__file__).parents[2] / "docs"
BASE = {"rows": 1000, "columns": 10, "lanes": 10, "width": 64}
VALUES = {
    "rows": (100, 1000, 10_000, 100_000),
    "columns": (10, 100, 1000, 10_000),
    "lanes": (1, 10, 100, 1000),
    "width": (16, 64, 256, 1024),
}
QUICK_VALUES = {"rows": (500, 1000), "columns": (10,), "lanes": (10,), "width": (64,)}
FEW_STEPS, SHORTEST = 100, 8.0
"""Steps of the shorter path, and the least seconds by which the longer one must take longer."""


def run(options: Options) -> Iterator[Row]:
    curves: dict[str, dict[int, float]] = {}
    known: dict[tuple[int, ...], float] = {}
    few, shortest = (20, 0.0) if options.quick else (FEW_STEPS, SHORTEST)
    for size, values in (QUICK_VALUES if options.quick else VALUES).items():
        for value in values:
            setting: dict[str, Any] = {**BASE, size: value}
            key = tuple(setting.values())
            if key not in known:
                known[key] = measure(time_step, options, few=few, shortest=shortest, **setting)["microseconds"]
            curves.setdefault(size, {})[value] = known[key]
            yield Row(f"{size} {value:,}: per lane and step", known[key], unit="µs")
    yield draw(options, curves)


def time_step(rows: int, columns: int, lanes: int, width: int, few: int, shortest: float) -> Numbers:
    """Return the microseconds per lane and step."""
    import numpy as np

    import poise

    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, columns)).astype("float32")
    y = x[:, :1] + 0.1 * generator.normal(size=(rows, 1)).astype("float32")
    model = build_network((columns, width, 1))

    def time_path(steps: int) -> float:
        start = time.perf_counter()
        poise.fit_path(
            model, x, y, poise.L2(), strengths=np.geomspace(1e-4, 1e-1, lanes), validation_data=(x[:50], y[:50]),
            training=poise.Training(epochs=0, settle=steps, update="proximal", tolerance=1e-30), progress=False,
        )  # fmt: skip
        return time.perf_counter() - start

    base = time_path(few)
    steps = 10 * few
    while (longer := time_path(few + steps) - base) < shortest:
        # Twice as many as needed at the rate measured so far, which is uncertain: at most ten times as many
        steps = few * max(round(min(2 * shortest / max(longer, 1e-9), 10) * steps / few), steps // few + 1)
    return {"microseconds": 1e6 * longer / steps / lanes}


def draw(options: Options, curves: dict[str, dict[int, float]]) -> Row:
    """Draw four small panels, and return a row that names the picture."""
    if list_missing(["playwright"]):
        return Row("picture", None, note="playwright missing, not drawn")
    device = run_contender(describe_device, options)
    folder = Path(tempfile.mkdtemp()) if options.quick else DOCS / "pictures"
    file = folder / ("growth.png" if device["platform"] == "cpu" else "growth-gpu.png")
    arguments = {"file": str(file), "curves": {size: [*curve.items()] for size, curve in curves.items()}}
    run_contender(draw_curves, options, **arguments)
    return Row("picture", None, note=str(file))


def draw_curves(file: str, curves: dict[str, list[tuple[int, float]]]) -> dict[str, Any]:
    """Draw the curves with the style and the browser of the other pictures of the docs."""
    from plotly.subplots import make_subplots

    sys.path.insert(0, str(DOCS))
    pictures = importlib.import_module("draw")
    figure = make_subplots(rows=1, cols=len(curves), shared_yaxes=True, horizontal_spacing=0.04)
    for column, (size, points) in enumerate(curves.items(), 1):
        x, y = zip(*points, strict=True)
        figure.add_scatter(
            x=x, y=y, mode="lines+markers", line={"color": pictures.PREDICTION, "width": 2}, row=1, col=column
        )
        labels = [f"{value // 1000}k" if value % 1000 == 0 else str(value) for value in x]
        figure.update_xaxes(title=size, tickvals=x, ticktext=labels, tickangle=0, row=1, col=column)
    figure.update_layout(
        template="plotly_white", width=800, height=280, showlegend=False, font={"size": 13, "color": "#222222"},
        margin={"l": 70, "r": 20, "t": 20, "b": 60}, paper_bgcolor="white", plot_bgcolor="white",
    )  # fmt: skip
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log", dtick=1, exponentformat="power")
    figure.update_yaxes(title="µs per lane and step", row=1, col=1)
    pictures.save_pictures({str(Path(file).with_suffix("")): figure})
    return {}
