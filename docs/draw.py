"""Run the code of the page "Why a penalty is not a loss", draw its pictures, and execute the notebooks of the gallery.

    python docs/draw.py              draw docs/pictures/why-*.png
    python docs/draw.py --text       also update the printed text on the page
    python docs/draw.py --notebooks  execute docs/gallery/*.ipynb and store their outputs, nothing else

Chromium draws the pictures through Playwright. The environment variable CHROMIUM names another browser.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

DOCS = Path(__file__).parent
GUIDE = DOCS / "explanation" / "why-a-penalty-is-not-a-loss.md"
GALLERY = DOCS / "gallery"
PREDICTION, PENALTY, WEIGHT = "#1f77b4", "#ff7f0e", "#444444"
SHADES = ["#ffbb78", "#ff7f0e", "#a34e00"]

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}

FIGURE_ID = re.compile(r'<div id="([0-9a-f-]{36})" class="plotly-graph-div"')
FENCE = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[re.Match[str]]:
    """Return the code blocks of a Markdown page as matches: group 1 is the language, group 2 the text."""
    return list(FENCE.finditer(page.read_text(encoding="utf-8")))


def run(page: Path) -> tuple[dict[str, Any], list[tuple[str, re.Match[str] | None]]]:
    """Run the Python blocks of a page in one namespace.

    Returns:
        The namespace, and one pair per Python block: its printed output, and the text block that follows it or None.
    """
    all_blocks = blocks(page)
    namespace: dict[str, Any] = {"__name__": page.stem}
    printed = []
    for block, following in zip(all_blocks, [*all_blocks[1:], None], strict=True):
        if block[1] == "text":
            continue
        line = page.read_text(encoding="utf-8")[: block.start(2)].count("\n")
        code = compile("\n" * line + block[2], str(page), "exec")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(code, namespace)
        shown = following if following is not None and following[1] == "text" else None
        printed.append((output.getvalue(), shown))
    return namespace, printed


def write_text(page: Path, printed: list[tuple[str, re.Match[str] | None]]) -> None:
    """Replace the text blocks of a page by the printed output."""
    text = page.read_text(encoding="utf-8")
    for output, shown in reversed(printed):
        if shown is not None:
            text = text[: shown.start(2)] + output + text[shown.end(2) :]
    page.write_text(text, encoding="utf-8")


def execute_notebooks() -> None:
    """Execute the notebooks of the gallery in a new kernel each, and store their outputs."""
    import nbformat
    from nbclient import NotebookClient

    os.environ["PLOTLY_RENDERER"] = "notebook_connected"  # figures of a few kB, without Plotly's JavaScript in each
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # otherwise TensorFlow prints that it is on
    for path in sorted(GALLERY.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False).execute()
        notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number}"
            for output in cell.get("outputs", []):
                html = output.get("data", {}).get("text/html", "")
                if match := FIGURE_ID.search(html):  # Plotly draws a random one, which would change in every run
                    output["data"]["text/html"] = html.replace(match[1], f"{path.stem}-{number}")
        nbformat.write(notebook, path)


def draw_figures(namespace: dict[str, Any]) -> dict[str, go.Figure]:
    """Return the figures of the page by file name."""
    balance = "relu_l2 gelu_l2 gelu_l1 flatten_kernels prediction_gradient x y strength"
    return {
        "why-batches": draw_batches(**_select(namespace, "predictions penalties")),
        "why-penalty-only": draw_penalty_only(
            **_select(namespace, "coupled decoupled proximal remaining_norm strength")
        ),
        "why-balance": draw_balance(**_select(namespace, balance)),
    }


def draw_batches(predictions: np.ndarray, penalties: np.ndarray) -> go.Figure:
    """Draw the gradients of two weights as one arrow per batch (left), and those of one weight over batches (right)."""
    first, second = np.argsort(-np.abs(penalties[0]))[:2]
    figure = _panels(2, ["Two weights, ten batches", "One weight, ten batches"])
    for (a, b), color, width in [((g[first], g[second]), PREDICTION, 1.5) for g in -predictions] + [
        ((g[first], g[second]), PENALTY, 2) for g in -penalties
    ]:
        figure.add_annotation(
            x=a, y=b, ax=0, ay=0, xref="x", yref="y", axref="x", ayref="y", text="",
            showarrow=True, arrowhead=2, arrowsize=1, arrowwidth=width, arrowcolor=color,
        )  # fmt: skip
    reach = 1.05 * np.abs(predictions[:, [first, second]]).max()
    figure.update_xaxes(title="pull on weight A (−gradient)", range=[-reach, reach], row=1, col=1)
    figure.update_yaxes(title="pull on weight B (−gradient)", range=[-reach, reach], row=1, col=1)
    steps = np.arange(1, len(predictions) + 1)
    for name, gradients, color in [("prediction", predictions, PREDICTION), ("penalty", penalties, PENALTY)]:
        figure.add_scatter(
            x=steps, y=-gradients[:, first], name=name, mode="lines+markers", line={"color": color, "width": 2},
            row=1, col=2,
        )  # fmt: skip
    figure.update_xaxes(title="batch", dtick=1, row=1, col=2)
    figure.update_yaxes(title="pull on weight A (−gradient)", range=[-reach, reach], row=1, col=2)
    return _styled(figure, height=400, legend=True)


def draw_penalty_only(
    coupled: dict[float, np.ndarray],
    decoupled: dict[float, np.ndarray],
    proximal: np.ndarray,
    remaining_norm: Callable[[np.ndarray], np.ndarray],
    strength: float,
) -> go.Figure:
    """Draw training on the penalty only, under the three updates."""
    titles = ["coupled L2 (Adam)", "decoupled L2 (Adam)", "proximal L1 (SGD)"]
    figure = _panels(3, titles)
    steps = np.arange(0, 1001, 10)
    for column, paths in [(1, coupled), (2, decoupled)]:
        for (s, path), color, width in zip(paths.items(), SHADES, [7, 4, 1.8], strict=True):
            width = width if column == 1 else 3
            figure.add_scatter(
                x=steps, y=remaining_norm(path), name=f"s = {s}", mode="lines", line={"color": color, "width": width},
                showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
            if column == 2:
                _dashed(figure, steps, (1 - 2 * 0.01 * s) ** steps, column, legend=s == strength)
    sizes = np.abs(proximal)
    order = np.argsort(sizes[0])
    for number in order[np.linspace(20, len(order) - 20, 9).astype(int)]:
        figure.add_scatter(
            x=steps, y=sizes[:, number], mode="lines", line={"color": PENALTY, "width": 3}, showlegend=False,
            row=1, col=3,
        )  # fmt: skip
        _dashed(figure, steps, np.maximum(sizes[0, number] - 0.01 * strength * steps, 0), 3)
    figure.update_xaxes(title="step", tickvals=[0, 500, 1000])
    figure.update_yaxes(range=[-0.03, 1.05], row=1, col=1, title="remaining norm")
    figure.update_yaxes(range=[-0.03, 1.05], row=1, col=2)
    figure.update_yaxes(range=[-0.01, 0.35], row=1, col=3, title="size of nine weights")
    return _styled(figure, height=360, legend=True)


def draw_balance(
    relu_l2: Any,
    gelu_l2: Any,
    gelu_l1: Any,
    flatten_kernels: Callable[[list[np.ndarray]], np.ndarray],
    prediction_gradient: Callable[..., np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    strength: float,
) -> go.Figure:
    """Draw the two gradients of every weight at the end of training."""
    titles = ["L2, ReLU", "L2, GELU", "L1, GELU"]
    figure = _panels(3, titles)
    for column, model in [(1, relu_l2), (2, gelu_l2)]:
        pull, penalty = -prediction_gradient(model, x, y), 2 * strength * flatten_kernels(model.get_weights())
        reach = 1.1 * max(abs(pull).max(), abs(penalty).max())
        figure.add_scatter(
            x=[-reach, reach], y=[-reach, reach], mode="lines", line={"color": "#bbbbbb", "width": 1}, row=1, col=column
        )
        figure.add_scatter(x=pull, y=penalty, mode="markers", marker=_dots(WEIGHT), row=1, col=column)
        figure.update_xaxes(title=_colored("−∇prediction", PREDICTION), row=1, col=column, range=[-reach, reach])
        figure.update_yaxes(range=[-reach, reach], row=1, col=column)
    figure.update_yaxes(title=_colored("∇penalty", PENALTY), row=1, col=1)
    weights, pull = flatten_kernels(gelu_l1.get_weights()), -prediction_gradient(gelu_l1, x, y)
    s = gelu_l1.optimizer.strength["kernels"]
    figure.add_scatter(x=weights, y=pull, mode="markers", marker=_dots(PREDICTION), row=1, col=3)
    figure.add_hrect(y0=-s, y1=s, fillcolor=PENALTY, opacity=0.2, line_width=0, layer="below", row=1, col=3)
    for edge in (-s, s):
        figure.add_hline(y=edge, line={"color": PENALTY, "width": 2}, layer="below", row=1, col=3)
    figure.update_xaxes(title="weight", showgrid=False, row=1, col=3)
    figure.update_yaxes(
        title=_colored("−∇prediction", PREDICTION), row=1, col=3, range=[-1.6 * s, 1.6 * s],
        tickvals=[-s, 0, s], ticktext=["−s", "0", "s"], showgrid=False, zeroline=False,
    )  # fmt: skip
    return _styled(figure, height=330)


def save_pictures(figures: dict[str, go.Figure]) -> None:
    """Save each figure as a PNG file, 1,600 pixels wide."""
    from playwright.sync_api import sync_playwright

    (DOCS / "pictures").mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
        for name, figure in figures.items():
            size = {"width": figure.layout.width, "height": figure.layout.height}
            page = browser.new_page(viewport=size, device_scale_factor=2)
            html = figure.to_html(include_plotlyjs=True, config={"staticPlot": True})
            page.set_content(html.replace("<body>", '<body style="margin:0">'))
            page.wait_for_function("document.querySelector('.main-svg') !== null")
            page.wait_for_timeout(500)
            page.screenshot(path=DOCS / "pictures" / f"{name}.png")
        browser.close()


def _select(namespace: dict[str, Any], names: str) -> dict[str, Any]:
    return {name: namespace[name] for name in names.split()}


def _panels(columns: int, titles: list[str]) -> go.Figure:
    return make_subplots(rows=1, cols=columns, subplot_titles=titles, horizontal_spacing=0.13 if columns == 2 else 0.1)


def _dots(color: str) -> dict[str, Any]:
    return {"color": color, "size": 6, "opacity": 0.7}


def _colored(text: str, color: str) -> str:
    return f'<span style="color:{color}"><b>{text}</b></span>'


def _dashed(figure: go.Figure, x: np.ndarray, y: np.ndarray, column: int, legend: bool = False) -> None:
    figure.add_scatter(
        x=x, y=y, name="formula", mode="lines", line={"color": "#000000", "width": 1, "dash": "dash"},
        showlegend=legend, row=1, col=column,
    )  # fmt: skip


def _styled(figure: go.Figure, height: int, legend: bool = False) -> go.Figure:
    figure.update_layout(
        template="plotly_white", width=800, height=height, showlegend=legend, font={"size": 13, "color": "#222222"},
        margin={"l": 70, "r": 20, "t": 40, "b": 90 if legend else 60}, paper_bgcolor="white", plot_bgcolor="white",
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.22, "yanchor": "top"},
    )  # fmt: skip
    figure.update_xaxes(zerolinecolor="#999999", title_standoff=8)
    figure.update_yaxes(zerolinecolor="#999999", title_standoff=6)
    return figure


def main() -> None:
    if "--notebooks" in sys.argv:
        execute_notebooks()
        return
    namespace, printed = run(GUIDE)
    if "--text" in sys.argv:
        write_text(GUIDE, printed)
    save_pictures(draw_figures(namespace))


if __name__ == "__main__":
    main()
