"""The report of a study: one HTML file that needs nothing else.

Jinja escapes text that stems from the data in the page, `neutral` escapes it inside plots (Plotly reads a subset of
HTML), and `embed_json` inside scripts. The page contains only these values of the data, rounded: the target of the
test rows (regression and counts), and quantiles and category names of the most important columns.
"""

import shlex
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import plotly.graph_objects as go
from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

from poise._version import __version__
from poise.study.findings import Findings, has_penalty, is_regularized
from poise.study.report.names import name_inside, quantity_of
from poise.study.report.numbers import format_number, list_names
from poise.study.report.script import default_folder
from poise.study.report.sections.answer import AnswerSection
from poise.study.report.sections.base import Section
from poise.study.report.sections.code import CodeSection
from poise.study.report.sections.coefficients import CoefficientsSection
from poise.study.report.sections.comparison import ComparisonSection
from poise.study.report.sections.convergence import ConvergenceSection
from poise.study.report.sections.effects import EffectsSection
from poise.study.report.sections.predictions import PredictionsSection
from poise.study.report.sections.saved import SavedSection
from poise.study.report.sections.selection import SelectionSection
from poise.study.report.sections.settings import SettingsSection
from poise.study.report.sections.strengths import StrengthsSection
from poise.study.report.sections.training import TrainingSection
from poise.study.report.sections.weights import WeightsSection
from poise.study.report.selection_sentences import explain_selection
from poise.study.report.sentences import write_convergence

SECTIONS: tuple[Section, ...] = (
    AnswerSection(), ComparisonSection(), SelectionSection(), EffectsSection(), CoefficientsSection(),
    PredictionsSection(), StrengthsSection(), SavedSection(), ConvergenceSection(), TrainingSection(), WeightsSection(),
    CodeSection(), SettingsSection(),
)  # fmt: skip
"""The sections in order."""


def render_page(study: Findings, folder: str | None = None) -> str:
    """Return the report as HTML.

    Args:
        study: The study.
        folder: The folder in which it is saved, for the code in the report. Default: `None`, that of the command.
    """
    environment = make_environment()
    environment.filters["shell"] = shlex.quote
    environment.globals |= {
        "has_penalty": has_penalty,
        "is_regularized": is_regularized,
        "name_inside": name_inside,
        "quantity_of": quantity_of,
        "explain_selection": explain_selection,
        "write_convergence": write_convergence,
        "folder": folder or default_folder(study),
    }
    sections = []
    for section in SECTIONS:
        context = section.context(study)
        if context is not None:
            template = environment.get_template(f"sections/{section.name}.html.j2")
            sections.append((section, Markup(template.render(context))))
    title = f"{study.table.name}: does regularization help?"
    return render_sections(environment, sections, title=title, command="poise study", first="verdict")


def make_environment(*loaders: BaseLoader) -> Environment:
    """Return Jinja's environment for a report, with the templates of these loaders and of the report of a study."""
    loader = ChoiceLoader([*loaders, PackageLoader("poise.study.report")])
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": format_number, "names": list_names, "embedded": embed_figure}
    return environment


def render_sections(
    environment: Environment, sections: Sequence[tuple[Any, Markup]], *, title: str, command: str, first: str
) -> str:
    """Return a page of sections as HTML.

    Args:
        environment: What `make_environment` returns.
        sections: Pairs of an object with `name`, `title`, `link` and `is_detail`, as a `Section`, and its content.
        title: The title of the page.
        command: The command that wrote it.
        first: What the first section holds.
    """
    return environment.get_template("report.html.j2").render(
        sections=sections, title=title, command=command, first=first, version=__version__, plotly=Markup(read_plotly())
    )


@cache
def read_plotly() -> str:
    """Return the basic bundle of Plotly's JavaScript (scatter, bar and pie), a quarter of the size of the whole."""
    return (files("poise.study.report") / "templates" / "plotly-basic.min.js").read_text(encoding="utf-8")


def embed_figure(figure: go.Figure) -> Markup:
    """Return a figure as JSON inside a script element."""
    return embed_json(str(figure.to_json()))


def embed_json(text: str) -> Markup:
    """Return JSON in which no character can end a script element."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
