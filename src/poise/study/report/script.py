"""Write a Python script that trains the saved network again, for use in your own code."""

import glob
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import keras
import numpy as np
from jinja2 import Environment, PackageLoader

from poise.compaction.inputs import input_kernels
from poise.path.data.batches import settling_batch_size
from poise.rules.members import path_of
from poise.rules.rule import Role, Rule
from poise.study.candidates.dropout import final_seeds
from poise.study.candidates.penalties import DROPOUT
from poise.study.columns.encoding import STANDARD
from poise.study.file_options import FileOptions
from poise.study.findings import Findings, has_penalty
from poise.study.report.names import quantity_of
from poise.study.splits import split_test_rows
from poise.study.tasks.base import Task
from poise.study.weights import relative_weights

READ_ONCE = ("", "-")
"""Sources that cannot be read again: a DataFrame and standard input."""
WIDTH = 100


def default_folder(study: Findings) -> str:
    """Return the folder in which the command saves a study."""
    return f"runs/{study.table.name}"


def write_script(study: Findings, folder: str | None = None) -> str:
    """Return a complete script that trains the saved network on the same rows from the same initial weights.

    It has the exact strengths and factors. It loads the folder in which the study was saved; if the data were neither a
    file nor a built-in table, it expects them as the DataFrame `frame`.

    Args:
        study: The study.
        folder: The folder. Default: `None`, that of the command.
    """
    table, settings, saved = study.table, study.settings, study.saved
    training, _ = split_test_rows(table, settings.test, settings.seed)
    # The names in a custom network depend on what was built before it; its places do not.
    custom = saved.model if settings.model else None
    rules = saved.stage.rules_at(saved.strength) if has_penalty(saved) else []
    module, _, function = (settings.model or "").rpartition(":")
    encoding = study.encoder.encoding
    seeds = _list_dropout_seeds(study)
    most = settling_batch_size(study.rows["training"], table.task.compares_rows)
    return _render(
        "code.py.j2",
        title=" ".join(f"{table.name}: {saved.title} at {quantity_of(saved.name)} {saved.strength:.3g}".split()),
        folder=_quote(folder or default_folder(study)),
        arguments=_read_arguments(study),
        settings=settings,
        steps=int(saved.row["settled"]),
        module=module,
        function=function,
        is_file=table.source not in READ_ONCE,
        task=table.task,
        starts_at_zero=type(table.task).initial_bias is Task.initial_bias,
        center=_write_value(study.center, 0),
        scale=_write_value(study.scale, 0),
        has_weight=relative_weights(table.weight, training) is not None,
        is_weighted=relative_weights(table.loss_weight, training) is not None,
        has_class_weight=table.class_weight is not None,
        class_weight=_write_value(settings.class_weight, 0),
        encoding="" if encoding == STANDARD else f', "{encoding}"',
        hidden_inputs=_hidden_inputs(study),
        inputs=len(study.encoder.inputs),
        outputs=saved.model.output_shape[-1],
        rate=saved.strength,
        dropout_seeds=seeds,
        is_permuted=bool(seeds) or most < study.rows["training"],
        rows=study.rows["training"],
        activation=table.task.activation_code,
        rules=[write_rule(rule, custom) for rule in rules],
        loss=table.task.loss_code,
        most=most,
    )


def write_loading_script(study: Findings, folder: str | None = None) -> str:
    """Return a short script that loads the saved study, and predicts the rows that it was made from."""
    source, is_file = study.table.source, study.table.source not in READ_ONCE
    # The study remembers the other options.
    options = {name: getattr(study.settings, name) for name in ("delimiter", "text_encoding")} if is_file else {}
    keywords = [f"{name}={_write_value(value, 0)}" for name, value in options.items() if value is not None]
    return _render(
        "load.py.j2",
        folder=_quote(folder or default_folder(study)),
        source=_quote(source),
        is_file=is_file,
        arguments=", ".join(["new_rows", *keywords]),
    )


def _render(template: str, **values: Any) -> str:
    """Fill in a template of Python, not HTML: the page escapes the result as a whole."""
    environment = Environment(loader=PackageLoader("poise.study.report"), trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(**values)


def _hidden_inputs(study: Findings) -> str:
    """The inputs that the hidden layers read besides a skip connection, as Python; "" without a skip connection."""
    encoder, settings = study.encoder, study.settings
    if encoder.encoding == STANDARD or settings.model or not settings.hidden_layer_sizes:
        return ""
    taken = next(kernel for kernel in input_kernels(study.saved.model) or [] if kernel.position == 0).inputs
    others = encoder.other_inputs
    is_all = np.array_equal(taken, others) and np.array_equal(others, np.arange(len(others)))
    return f"range({len(others)})" if is_all else _write_list(taken.tolist(), 0)


def _list_dropout_seeds(study: Findings) -> list[int]:
    """The seeds of the dropout after each hidden layer; none if the saved network has no dropout."""
    saved, settings = study.saved, study.settings
    return final_seeds(settings.seed, len(settings.hidden_layer_sizes), saved.strength) if saved.name == DROPOUT else []


def _read_arguments(study: Findings) -> str:
    """The arguments of `read`."""
    table = study.table
    options: dict[str, Any] = {"task": table.task.name}
    options |= {} if table.event is None else {"event": table.event}
    options |= {name: [*columns] for name in ("drop", "keep") if (columns := getattr(study.settings, name))}
    roles = {"groups": table.groups, "time": table.time, "weight": table.weight}
    roles |= {"offset": table.offset, "exposure": table.exposure}
    options |= {name: str(role.name) for name, role in roles.items() if role is not None}
    options |= table.task.script_options()
    if study.settings.types:
        options["types"] = dict(study.settings.types)
    names = (*(option.name for option in fields(FileOptions)), "decimal", "missing")
    options |= {name: value for name in names if (value := getattr(study.settings, name)) is not None}
    source = "frame" if table.source in READ_ONCE else _quote(table.source)
    keywords = [f"{name}={_write_value(value, 0)}" for name, value in options.items()]
    target = table.targets[0] if len(table.targets) == 1 else list(table.targets)
    return ", ".join([source, _write_value(target, 0), *keywords])


def write_rule(rule: Rule, custom: keras.Model | None) -> str:
    """Return the call that makes a rule; `custom` is the network if it is a custom one."""
    penalty = type(rule.penalty).__name__
    config = {name: value for name, value in rule.penalty.get_config().items() if value is not None}
    arguments = [f"{name}={_write_value(value, 12)}" for name, value in config.items()]
    inside = ", ".join(arguments)
    if len(inside) > WIDTH - 20 or "\n" in inside:
        inside = "".join(f"\n            {argument}," for argument in arguments) + "\n        "
    lines = [_write_select(rule.select, custom), f"poise.{penalty}({inside})"]
    lines += [] if rule.exclude is None else [f"exclude={_write_select(rule.exclude, custom)}"]
    lines += [f"name={_quote(rule.name or '')}"]
    return "    poise.Rule(\n" + "".join(f"        {line},\n" for line in lines) + "    ),"


def _write_select(select: Any, custom: keras.Model | None) -> str:
    if isinstance(select, Role):
        return repr(select)
    if isinstance(select, str):
        place = None if custom is None else _find_place(select, custom)
        return _quote(select) if place is None else f"model.weights[{place}].path"
    return f"[{', '.join(_write_select(item, custom) for item in select)}]"


def _find_place(select: str, model: keras.Model) -> int | None:
    """The position of the weight that a path names, however the path begins in the rebuilt model."""
    for number, weight in enumerate(model.weights):
        path = path_of(weight)
        if any(select == name or select.endswith(f"/{name}") for name in (path, glob.escape(path))):
            return number
    return None


def _write_value(value: Any, indent: int) -> str:
    """A value as a Python literal, exact; long lists of numbers are wrapped."""
    if isinstance(value, list | tuple | np.ndarray):
        return _write_list([*value], indent)
    if isinstance(value, float | np.floating):
        return repr(float(value)) if np.isfinite(value) else f'float("{float(value)}")'
    return _quote(value) if isinstance(value, str) else repr(value)


def _quote(text: str) -> str:
    """A text as a Python literal, in double quotes if it holds none."""
    literal = repr(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def _write_list(values: Sequence, indent: int) -> str:
    if len(values) > 3 and all(value == [number] for number, value in enumerate(values)):
        return f"[[i] for i in range({len(values)})]"
    if len(values) > 3 and not isinstance(values[0], list) and all(value == values[0] for value in values):
        return f"[{_write_value(values[0], indent)}] * {len(values)}"
    flat = f"[{', '.join(_write_value(value, indent + 4) for value in values)}]"
    if len(flat) + indent <= WIDTH or any(isinstance(value, str) for value in values):
        return flat
    space = " " * (indent + 4)
    inside = textwrap.fill(
        flat[1:-1].replace("\n", " "), WIDTH, initial_indent=space, subsequent_indent=space,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return f"[\n{inside},\n{' ' * indent}]"
