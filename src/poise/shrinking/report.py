"""The report of `poise.shrink`: one HTML file that needs nothing else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import PackageLoader
from markupsafe import Markup

from poise.files import replace_file
from poise.shrinking.result import ShrinkResult
from poise.study.report.page import make_environment, render_sections
from poise.study.report.panels import Plot, log_axis, make_panels


@dataclass(frozen=True)
class Section:
    """A section of the report, with the template of the same name."""

    name: str
    title: str
    link: str
    is_detail: bool = False


SECTIONS = (
    Section("shrink_answer", "Result", "result"),
    Section("shrink_curve", "Accuracy against size", "curve"),
    Section("shrink_layers", "Units of each layer", "layers"),
    Section("shrink_latency", "Time of a prediction", "time"),
)
"""The sections in order."""
SIZE_TICKS = ".3~s"
"""How ticks show numbers such as 50k."""


def write_report(result: ShrinkResult, name: str, path: Path) -> None:
    """Write the report of a result, completely or not at all.

    Args:
        result: The result.
        name: What the model is called.
        path: The HTML file.

    Raises:
        CannotWriteError: If it cannot be written.
    """
    with replace_file(path) as new:
        new.write_text(render_report(result, name), encoding="utf-8")


def render_report(result: ShrinkResult, name: str) -> str:
    """Return the report as HTML; arguments as for `write_report`."""
    environment = make_environment(PackageLoader("poise.shrinking"))
    metrics = [column for column in result.stages.columns[4:] if column != "chosen"]
    context: dict[str, Any] = {
        "result": result,
        "metrics": metrics,
        "plot": _plot(result),
        "numbers": _numbers(result),
        "stages": result.stages.to_dict("records"),
        "layers": result.layers.to_dict("records"),
        "latency": result.latency.reset_index().to_dict("records"),
    }
    sections = [
        (section, Markup(environment.get_template(f"{section.name}.html.j2").render(context))) for section in SECTIONS
    ]
    title = f"{name}: a smaller network"
    return render_sections(environment, sections, title=title, command="poise shrink", first="result")


def _numbers(result: ShrinkResult) -> list[dict[str, Any]]:
    """Return label, value and detail of the key numbers."""
    original, chosen = result.original, result.chosen
    sizes, largest = result.sizes, result.latency.index[-1]
    return [
        {
            "label": f"validation {result.accuracy}",
            "value": f"{chosen[result.accuracy]:.3g}",
            "detail": f"{original[result.accuracy]:.3g} before",
        },
        *(
            {
                "label": size,
                "value": f"÷ {sizes.loc[size, 'ratio']:.1f}",
                "detail": f"{sizes.loc[size, 'after']:,.0f} after",
            }
            for size in (["FLOPs per sample"] if result.size == "FLOPs" else []) + ["parameters"]
        ),
        {
            "label": f"time per batch of {largest}",
            "value": f"÷ {result.latency.loc[largest, 'ratio']:.1f}",
            "detail": f"{result.latency.loc[largest, 'after']:.2g} ms after",
        },
    ]


def _plot(result: ShrinkResult) -> Plot:
    """Return the scores of all networks over their FLOPs, or over their parameters if FLOPs are not known."""
    stages = result.stages.sort_values(["FLOPs", "parameters"])
    size = result.size
    label = "FLOPs per sample" if size == "FLOPs" else size
    figure = make_panels([[f"validation {result.accuracy}"]], label, "", shared="", columns=1)
    figure.add_scatter(
        x=stages[size], y=stages[result.accuracy], meta="prediction", mode="lines+markers", text=stages["stage"],
        hovertemplate="%{text}: %{y:.4g}<extra></extra>",
    )  # fmt: skip
    chosen = stages[stages["chosen"]]
    figure.add_scatter(
        x=chosen[size], y=chosen[result.accuracy], meta="zeros", mode="markers", text=chosen["stage"],
        marker={"size": 13, "symbol": "diamond-open"}, hovertemplate="chosen: %{y:.4g}<extra></extra>",
    )  # fmt: skip
    low, high = stages[size].min(), stages[size].max()
    figure.update_xaxes({**log_axis(low / 1.2, high * 1.2), "tickformat": SIZE_TICKS})
    legend = [("all networks", "prediction", "solid"), ("chosen network", "zeros", "diamond")]
    return Plot("curve", figure, f"Validation {result.accuracy} of all networks against their {size}.", legend)
