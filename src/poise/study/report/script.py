"""The chosen setting as a script that trains it again: what one takes from a study into one's own code."""

import glob
import textwrap
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from jinja2 import Environment, PackageLoader

from poise.path.data.batches import at_once
from poise.rules.members import path_of
from poise.rules.rule import Role, Rule
from poise.study.result import NONE, Study

LOSSES = {
    "regression": "keras.losses.MeanSquaredError()",
    "counts": "keras.losses.Poisson()",
    "binary": "keras.losses.BinaryCrossentropy(from_logits=True)",
    "multiclass": "keras.losses.SparseCategoricalCrossentropy(from_logits=True)",
}
READ_ONCE = ("", "-")
"""The sources that cannot be read again: a DataFrame and the standard input."""
WIDTH = 100


def code(study: Study) -> str:
    """A complete script that trains the chosen setting on the same rows from the same initial weights.

    Strengths and factors stand in it as exactly as they were used. It reads the folder in which the study was saved,
    and, where the data were no file or built-in table, expects them as the DataFrame `frame`.

    Example:
        >>> from poise.study.run import run_study
        >>> from poise.study.report.script import code
        >>> "poise.PenalizedOptimizer(" in code(run_study("wine", penalties=["l2"], strengths=3, cv=2, max_iter=20))
        True
    """
    table, settings, best = study.table, study.settings, study.best
    # Of a network of the user's the names depend on what was built before it, the places do not.
    own = best.model if settings.model else None
    rules = [] if best.name == NONE else best.stage.rules_at(best.strength)
    module, _, function = (settings.model or "").rpartition(":")
    # Python and not HTML: the page escapes the result as a whole.
    environment = Environment(loader=PackageLoader("poise.study.report"), trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("code.py.j2").render(
        title=" ".join(f"{table.name}: {best.title} at strength {best.strength:.3g}".split()),
        folder=_text(f"runs/{table.name}"),
        arguments=_reading(study),
        settings=settings,
        module=module,
        function=function,
        is_file=table.source not in READ_ONCE,
        task=table.task,
        center=study.center,
        scale=study.scale,
        is_weighted=table.weight is not None,
        inputs=len(study.encoder.inputs),
        outputs=best.model.output_shape[-1],
        activation=', activation="exponential"' if table.task == "counts" else "",
        rules=[_rule(rule, own) for rule in rules],
        loss=LOSSES[table.task],
        most=at_once(study.rows["training"]),
    )


def _reading(study: Study) -> str:
    """The arguments of `read`."""
    table = study.table
    given: dict[str, Any] = {"task": table.task}
    if study.settings.drop:
        given["drop"] = [*study.settings.drop]
    roles = {"groups": table.groups, "time": table.time, "weight": table.weight}
    given |= {name: str(role.name) for name, role in roles.items() if role is not None}
    written = ("delimiter", "decimal", "encoding")
    given |= {name: value for name in written if (value := getattr(study.settings, name)) is not None}
    source = "frame" if table.source in READ_ONCE else _text(table.source)
    rest = [f"{name}={_python(value, 0)}" for name, value in given.items()]
    return ", ".join([source, _text(str(table.target.name)), *rest])


def _rule(rule: Rule, own: keras.Model | None) -> str:
    """A rule as the call that makes it."""
    penalty = type(rule.penalty).__name__
    given = {name: value for name, value in rule.penalty.get_config().items() if value is not None}
    arguments = [f"{name}={_python(value, 12)}" for name, value in given.items()]
    inside = ", ".join(arguments)
    if len(inside) > WIDTH - 20 or "\n" in inside:
        inside = "".join(f"\n            {argument}," for argument in arguments) + "\n        "
    lines = [_select(rule.select, own), f"poise.{penalty}({inside})"]
    lines += [] if rule.exclude is None else [f"exclude={_select(rule.exclude, own)}"]
    lines += [f"name={_text(rule.name or '')}"]
    return "    poise.Rule(\n" + "".join(f"        {line},\n" for line in lines) + "    ),"


def _select(select, own: keras.Model | None) -> str:
    if isinstance(select, Role):
        return repr(select)
    if isinstance(select, str):
        place = None if own is None else _place(select, own)
        return _text(select) if place is None else f"model.weights[{place}].path"
    return f"[{', '.join(_select(one, own) for one in select)}]"


def _place(select: str, model: keras.Model) -> int | None:
    """Which of the model's weights a path means, whatever it begins with in the model that is rebuilt."""
    for number, weight in enumerate(model.weights):
        path = path_of(weight)
        if any(select == one or select.endswith(f"/{one}") for one in (path, glob.escape(path))):
            return number
    return None


def _python(value, indent: int) -> str:
    """A value as Python reads it again, exactly; long lists of numbers wrapped."""
    if isinstance(value, list | tuple | np.ndarray):
        return _list([*value], indent)
    if isinstance(value, float | np.floating):
        return repr(float(value)) if np.isfinite(value) else f'float("{float(value)}")'
    return _text(value) if isinstance(value, str) else repr(value)


def _text(text: str) -> str:
    """A text as Python reads it again, in double quotes where it holds none."""
    literal = repr(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def _list(values: Sequence, indent: int) -> str:
    if len(values) > 3 and all(value == [number] for number, value in enumerate(values)):
        return f"[[i] for i in range({len(values)})]"
    if len(values) > 3 and not isinstance(values[0], list) and all(value == values[0] for value in values):
        return f"[{_python(values[0], indent)}] * {len(values)}"
    flat = f"[{', '.join(_python(value, indent + 4) for value in values)}]"
    if len(flat) + indent <= WIDTH or any(isinstance(value, str) for value in values):
        return flat
    space = " " * (indent + 4)
    inside = textwrap.fill(
        flat[1:-1].replace("\n", " "), WIDTH, initial_indent=space, subsequent_indent=space,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return f"[\n{inside},\n{' ' * indent}]"
