"""Hooks of the documentation.

They fill in the tables of command-line options and the text of CONTRIBUTING.md. In notebooks, they resolve links to
other pages, and load Plotly from the site itself instead of from another host.
"""

import logging
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOG = logging.getLogger("mkdocs.hooks")
CONTRIBUTING = "<!-- contributing -->"
OPTIONS = re.compile(r"<!-- options: (\w+) -->")
REMOTE_SCRIPT = re.compile(
    r"<script\b(?:(?!</script>).)*?https://(?:cdn\.plot\.ly|cdnjs\.cloudflare\.com)/(?:(?!</script>).)*</script>",
    re.DOTALL,
)
LINK = re.compile(r'href="((?!\w+:)[^"#]+\.(?:md|ipynb))(#[^"]*)?"')
PLOTLY = "assets/plotly.min.js"


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Fill in `<!-- options: COMMAND -->` (tables of arguments and options) and `<!-- contributing -->`."""
    if CONTRIBUTING in markdown:
        text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        markdown = markdown.replace(CONTRIBUTING, text.replace("](docs/", "]("))
    return OPTIONS.sub(lambda match: options_of(match[1]), markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Resolve the links of a notebook, as MkDocs does for Markdown pages."""

    def resolve(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), match[1]))
        file = files.get_file_from_path(target)
        if file is None:
            LOG.warning(
                "Notebook '%s' contains a link '%s', but '%s' does not exist.", page.file.src_uri, match[1], target
            )
            return match[0]
        return f'href="{file.url_relative_to(page.file)}{match[2] or ""}"'

    return LINK.sub(resolve, html) if page.file.src_uri.endswith(".ipynb") else html


def on_post_page(output: str, page: Any, **kwargs: Any) -> str:
    """Replace scripts that a notebook would load from other hosts by one copy of Plotly on the site."""
    if not page.file.src_uri.endswith(".ipynb"):
        return output
    output = REMOTE_SCRIPT.sub("", output)
    folders_up = "../" * page.url.count("/")
    return output.replace("</head>", f'<script src="{folders_up}{PLOTLY}"></script></head>', 1)


def on_post_build(config: Any, **kwargs: Any) -> None:
    """Write Plotly's JavaScript into the site."""
    from plotly.offline import get_plotlyjs

    target = Path(config.site_dir) / PLOTLY
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(get_plotlyjs(), encoding="utf-8")


def options_of(command: str) -> str:
    """Return Markdown tables of the arguments and options of a command, read from the command itself."""
    sys.path.insert(0, str(ROOT / "src"))
    import typer

    from poise.cli.app import app

    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    arguments = [
        f"| `{p.metavar or p.name.upper()}` | {_cell(p.help)} |" for p in parameters if p.param_type_name == "argument"
    ]
    options = [
        f"| {', '.join(f'`{name}`' for name in p.opts)} | {_cell(p.help)} | {_default(p)} |"
        for p in parameters
        if p.param_type_name == "option" and p.name != "help"
    ]
    tables = [
        "\n".join(["| Argument | Meaning |", "|---|---|", *arguments]),
        "\n".join(["| Option | Meaning | Default |", "|---|---|---|", *options]),
    ]
    return "\n\n".join(table for table, rows in zip(tables, (arguments, options), strict=True) if rows)


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or callable(value) or not parameter.show_default:
        return ""
    return f"`{value}`"
