"""Runs the guide's code and draws its pictures.

    python docs/draw.py          draws docs/pictures/why-*.png
    python docs/draw.py --text   also writes what the code printed into the guide

The pictures are made by Chromium through Playwright; name another browser with the variable CHROMIUM.
"""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
GUIDE = DOCS / "why-a-penalty-is-not-a-loss.md"
PREDICTION, PENALTY, WEIGHT = "#1f77b4", "#ff7f0e", "#444444"
SHADES = ["#ffbb78", "#ff7f0e", "#a34e00"]

FENCE = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    """The blocks of a Markdown page in their order, as matches whose groups are the language and the text."""
    return list(FENCE.finditer(page.read_text()))


def run(page):
    """Runs the Python blocks of a page in one namespace.

    Returns:
        The namespace, and a list of (what a block printed, the match of the text block that shows it, or None).
    """
    found = blocks(page)
    namespace, printed = {"__name__": page.stem}, []
    for block, following in zip(found, [*found[1:], None], strict=True):
        if block[1] == "text":
            continue
        line = page.read_text()[: block.start(2)].count("\n")
        code = compile("\n" * line + block[2], str(page), "exec")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(code, namespace)
        shown = following if following is not None and following[1] == "text" else None
        printed.append((output.getvalue(), shown))
    return namespace, printed


def write_text(page, printed):
    """Puts what was printed into the text blocks."""
    text = page.read_text()
    for output, shown in reversed(printed):
        if shown is not None:
            text = text[: shown.start(2)] + output + text[shown.end(2) :]
    page.write_text(text)


def draw(namespace):
    """The three pictures, as Plotly figures by the name of their file."""
    return {
        "why-batches": batches(**_of(namespace, "predictions penalties")),
        "why-alone": alone(**_of(namespace, "coupled decoupled proximal left strength")),
        "why-balance": balance(**_of(namespace, "settled smooth sparse kernels prediction_gradient x y strength")),
    }


def batches(predictions, penalties):
    """Left: two weights, an arrow a batch. Right: one weight, batch after batch."""
    import numpy as np

    first, second = np.argsort(-np.abs(penalties[0]))[:2]
    figure = _panels(2, ["Two weights, ten batches", "One weight, batch after batch"])
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


def alone(coupled, decoupled, proximal, left, strength):
    """The penalty without any data, under the three updates."""
    import numpy as np

    titles = ["coupled L2 (Adam)", "decoupled L2 (Adam)", "proximal L1 (SGD)"]
    figure = _panels(3, titles)
    steps = np.arange(0, 1001, 10)
    for column, paths in [(1, coupled), (2, decoupled)]:
        for (s, path), color, width in zip(paths.items(), SHADES, [7, 4, 1.8], strict=True):
            width = width if column == 1 else 3
            figure.add_scatter(
                x=steps, y=left(path), name=f"s = {s}", mode="lines", line={"color": color, "width": width},
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
    figure.update_yaxes(range=[-0.03, 1.05], row=1, col=1, title="weight norm left")
    figure.update_yaxes(range=[-0.03, 1.05], row=1, col=2)
    figure.update_yaxes(range=[-0.01, 0.35], row=1, col=3, title="size of nine weights")
    return _styled(figure, height=360, legend=True)


def balance(settled, smooth, sparse, kernels, prediction_gradient, x, y, strength):
    """Every weight at the end of training: what the data pull, and what the penalty pulls."""
    titles = ["L2, ReLU", "L2, GELU", "L1, GELU"]
    figure = _panels(3, titles)
    for column, model in [(1, settled), (2, smooth)]:
        pull, penalty = -prediction_gradient(model, x, y), 2 * strength * kernels(model.get_weights())
        reach = 1.1 * max(abs(pull).max(), abs(penalty).max())
        figure.add_scatter(
            x=[-reach, reach], y=[-reach, reach], mode="lines", line={"color": "#bbbbbb", "width": 1}, row=1, col=column
        )
        figure.add_scatter(x=pull, y=penalty, mode="markers", marker=_dots(WEIGHT), row=1, col=column)
        figure.update_xaxes(title=_colored("−∇prediction", PREDICTION), row=1, col=column, range=[-reach, reach])
        figure.update_yaxes(range=[-reach, reach], row=1, col=column)
    figure.update_yaxes(title=_colored("∇penalty", PENALTY), row=1, col=1)
    weights, pull = kernels(sparse.get_weights()), -prediction_gradient(sparse, x, y)
    s = sparse.optimizer.strength["weights"]
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


def save(figures):
    """Writes each figure as a PNG of twice 800 pixels width."""
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


def _of(namespace, names):
    return {name: namespace[name] for name in names.split()}


def _panels(columns, titles):
    from plotly.subplots import make_subplots

    return make_subplots(rows=1, cols=columns, subplot_titles=titles, horizontal_spacing=0.13 if columns == 2 else 0.1)


def _dots(color):
    return {"color": color, "size": 6, "opacity": 0.7}


def _colored(text, color):
    return f'<span style="color:{color}"><b>{text}</b></span>'


def _dashed(figure, x, y, column, legend=False):
    figure.add_scatter(
        x=x, y=y, name="formula", mode="lines", line={"color": "#000000", "width": 1, "dash": "dash"},
        showlegend=legend, row=1, col=column,
    )  # fmt: skip


def _styled(figure, height, legend=False):
    figure.update_layout(
        template="plotly_white", width=800, height=height, showlegend=legend, font={"size": 13, "color": "#222222"},
        margin={"l": 70, "r": 20, "t": 40, "b": 90 if legend else 60}, paper_bgcolor="white", plot_bgcolor="white",
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.22, "yanchor": "top"},
    )  # fmt: skip
    figure.update_xaxes(zerolinecolor="#999999", title_standoff=8)
    figure.update_yaxes(zerolinecolor="#999999", title_standoff=6)
    return figure


if __name__ == "__main__":
    names, output = run(GUIDE)
    if "--text" in sys.argv:
        write_text(GUIDE, output)
    save(draw(names))
