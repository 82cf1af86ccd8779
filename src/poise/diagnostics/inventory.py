"""What is penalized and what is not, and why (poise.summary)."""

import io

import pandas as pd
import rich.box
import rich.console
import rich.table
import rich.text

from poise.diagnostics.force_balance import check_built, penalized_of, sync
from poise.optimizer.penalized import PenalizedOptimizer
from poise.rules.layers import learn
from poise.rules.members import path_of
from poise.rules.rule import kind_of

COLUMNS = ["variable", "shape", "role", "penalty", "strength", "update", "note"]


class Summary:
    """Every variable of a model with its penalties. Prints as a table in a terminal, a notebook and as text.

    Attributes:
        table: a DataFrame with the columns variable, shape, role, penalty, strength, update and note. A variable with
            several penalties has a row for each; `note` says which rule selects it, or why none does.
    """

    def __init__(self, title: str, table: pd.DataFrame):
        self.title = title
        self.table = table

    def __rich__(self):
        table = rich.table.Table(title=self.title, box=rich.box.SIMPLE_HEAD, title_justify="left")
        for column in self.table.columns:
            table.add_column(column, justify="right" if column == "strength" else "left", overflow="fold")
        for row in self.table.to_dict("records"):
            style = None if row["penalty"] else "dim"
            table.add_row(*(rich.text.Text(_cell(value)) for value in row.values()), style=style)
        return table

    def __str__(self):
        text = io.StringIO()
        rich.console.Console(file=text, width=120, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def __repr__(self):
        return str(self)

    def _repr_html_(self):
        shown = self.table.map(_cell)
        return shown.to_html(index=False, escape=True, border=0)


def summary(model, *, optimizer=None) -> Summary:
    """Every variable of a model: its shape, its role, its penalties with their strengths, or why it has none.

    Works on any built model.

    Args:
        model: the model.
        optimizer: the `poise.PenalizedOptimizer` whose rules are shown, by default that of the model, if it has one. For models
            with several optimizers and for custom training loops.

    Raises:
        TypeError: if `optimizer` is not a `poise.PenalizedOptimizer`.
        ValueError: if the model is not built, has several `poise.PenalizedOptimizer` of which none is passed, or if the rules do
            not fit it.

    Example:
        >>> import poise, keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="head")], name="net")
        >>> model.compile(poise.PenalizedOptimizer("adam", poise.L2(0.01)), loss="mse")
        >>> poise.summary(model).table["penalty"].tolist()
        ['L2', '']
    """
    check_built(model)
    optimizer = penalized_of(model, optimizer) if optimizer is not None else _optimizer_of(model)
    sync(model)
    learn([model])
    trained, frozen = model.trainable_variables, model.non_trainable_variables
    rows, title = [], f"{model.name}: not compiled with poise.PenalizedOptimizer"
    rules_of, asleep = {}, set()
    if optimizer is not None:
        rules_of, asleep = _rules_of(optimizer, model)
        title = f"{model.name}: {len(rules_of)} of {len(trained)} trained variables penalized, {optimizer.update}"
    for variable in [*trained, *frozen]:
        numbers = rules_of.get(id(variable), [])
        about = {"variable": path_of(variable), "shape": tuple(variable.shape), "role": kind_of(variable)}
        if optimizer is not None:
            rows += [{**about, **_about_rule(optimizer, optimizer.rules[number])} for number in numbers]
        if not numbers:
            is_frozen = any(variable is other for other in frozen)
            note = _why_not(variable, optimizer, is_frozen, asleep)
            rows.append({**about, "penalty": "", "strength": None, "update": "", "note": note})
    return Summary(title, pd.DataFrame(rows, columns=COLUMNS))


def _optimizer_of(model):
    try:
        return penalized_of(model)
    except ValueError:
        if any(isinstance(value, PenalizedOptimizer) for value in vars(model).values()):
            raise
        return None


def _rules_of(optimizer, model):
    """By the id of a variable the numbers of its rules, and the names of the rules that act on nothing.

    For a built optimizer, what it does, which matching the paths again need not give.
    """
    if not optimizer.built:
        trained = model.trainable_variables
        plan = optimizer.plan(trained, model)
        numbers_of = {id(trained[i]): numbers for i, numbers in plan.rules_of.items()}
        return numbers_of, {optimizer.rules[number].name for number in plan.asleep}
    numbers_of = {
        id(variable): [number for number, _ in target.penalties]
        for target in optimizer.targets
        for variable in optimizer.variables_of(target)
    }
    acting = {number for numbers in numbers_of.values() for number in numbers}
    return numbers_of, {rule.name for number, rule in enumerate(optimizer.rules) if number not in acting}


def _about_rule(optimizer, rule):
    return {
        "penalty": type(rule.penalty).__name__,
        "strength": optimizer.strength[rule.name],
        "update": optimizer.update,
        "note": f"rule {rule.name!r}",
    }


def _why_not(variable, optimizer, is_frozen, asleep):
    regularizer = getattr(variable, "regularizer", None)
    if regularizer is not None and not is_frozen:
        return f"penalized inside the loss by its Keras regularizer {type(regularizer).__name__}: poise.adopt_regularizers moves it"
    rules = optimizer.rules if optimizer is not None else ()
    meant = [rule.name for rule in rules if rule.applies_to(variable)]
    if meant:
        sleeping = " (a sleeping rule)" if set(meant) & asleep else ""
        return f"frozen; else rule {', '.join(map(repr, meant))}{sleeping}"
    if is_frozen:
        return "not trained"
    excluding = [rule.name for rule in rules if rule.selects(variable)]
    if excluding:
        return f"excluded by rule {', '.join(map(repr, excluding))}"
    return "no rule selects it" if rules else "there are no rules"


def _cell(value):
    if isinstance(value, float):
        return "" if value != value else f"{value:g}"
    return "" if value is None else str(value)
