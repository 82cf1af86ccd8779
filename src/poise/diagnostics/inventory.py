"""Which variables of a model are penalized, how, and why others are not (poise.summary)."""

import html
import io
from typing import TYPE_CHECKING, Any

import keras
import pandas as pd

from poise.diagnostics.force_balance import Penalties, check_built, penalized_of, sync
from poise.optimizer.lookup import find_penalized_optimizer
from poise.optimizer.penalized import PenalizedOptimizer
from poise.optimizer.targets import assign_actions
from poise.rules.layers import register_layers
from poise.rules.members import path_of
from poise.rules.rule import Rule, kind_of

if TYPE_CHECKING:
    import rich.table

COLUMNS = ["variable", "shape", "role", "penalty", "strength", "update", "note"]


class Summary:
    """Every variable of a model with its penalties. Displays as a table in a terminal, in a notebook and as text.

    Attributes:
        title: Name of the model, and how many of its variables are penalized.
        table: DataFrame with the columns `variable` (path), `shape`, `role`, `penalty` (class), `strength`, `update`
            and `note`. A variable with several penalties has one row per penalty. `update` is how the penalty acts,
            which for `update="auto"` is "coupled" or "proximal". `note` is the rule that selects the variable, or why
            none does.
    """

    def __init__(self, title: str, table: pd.DataFrame) -> None:
        self.title = title
        self.table = table

    def __rich__(self) -> "rich.table.Table":
        import rich.box
        import rich.table
        import rich.text

        table = rich.table.Table(title=self.title, box=rich.box.SIMPLE_HEAD, title_justify="left")
        for column in self.table.columns:
            table.add_column(column, justify="right" if column == "strength" else "left", overflow="fold")
        for row in self.table.to_dict("records"):
            style = None if row["penalty"] else "dim"
            table.add_row(*(rich.text.Text(_format(value)) for value in row.values()), style=style)
        return table

    def __str__(self) -> str:
        import rich.console

        text = io.StringIO()
        # In a notebook, Rich would display the table and not write it.
        rich.console.Console(file=text, width=120, color_system=None, force_jupyter=False).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Return a table in the colors of the page, with pale rows for variables without a penalty."""
        head = "".join(f"<th>{column}</th>" for column in self.table.columns)
        rows = []
        for row in self.table.to_dict("records"):
            cells = "".join(f"<td>{html.escape(_format(value))}</td>" for value in row.values())
            rows.append(f"<tr>{cells}</tr>" if row["penalty"] else f'<tr style="opacity:0.6">{cells}</tr>')
        caption = f'<caption style="caption-side:top;text-align:left">{html.escape(self.title)}</caption>'
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def summary(model: keras.Model, *, optimizer: Any = None) -> Summary:
    """List every variable of a model with its penalties and strengths, or why it has none.

    Args:
        model: Any built `keras.Model`, compiled or not.
        optimizer: `poise.PenalizedOptimizer` whose rules are shown, for models with several optimizers and for custom
            training loops. Default: None, which uses the optimizer of the model, if it is a `PenalizedOptimizer`.

    Returns:
        A `poise.Summary`, which displays as a table; `summary(model).table` is the DataFrame.

    Raises:
        TypeError: If `optimizer` is not a `poise.PenalizedOptimizer`.
        ValueError: If the model is not built, if it has several `poise.PenalizedOptimizer` and `optimizer` is None, or
            if the rules do not fit the model.

    Examples:
        >>> import poise, keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="head")], name="net")
        >>> model.compile(poise.PenalizedOptimizer("adam", poise.L2(0.01)), loss="mse")
        >>> poise.summary(model).table["penalty"].tolist()
        ['L2', '']
    """
    check_built(model)
    penalized = penalized_of(model, optimizer) if optimizer is not None else _optimizer_of(model)
    sync(model)
    register_layers([model])
    trained, frozen = model.trainable_variables, model.non_trainable_variables
    rows, title = [], f"{model.name}: not compiled with poise.PenalizedOptimizer"
    updates: dict[int, list[tuple[int, str]]] = {}
    inactive: set[str] = set()
    if penalized is not None:
        updates = _updates_of(penalized, model)
        acting = {number for pairs in updates.values() for number, _ in pairs}
        inactive = {str(rule.name) for number, rule in enumerate(penalized.rules) if number not in acting}
        title = (
            f"{model.name}: {len(updates)} of {len(trained)} trained variables penalized, update={penalized.update!r}"
        )
    for variable in [*trained, *frozen]:
        pairs = updates.get(id(variable), [])
        about = {"variable": path_of(variable), "shape": tuple(variable.shape), "role": kind_of(variable)}
        if penalized is not None:
            rows += [about | _describe_rule(penalized, penalized.rules[number], update) for number, update in pairs]
        if not pairs:
            is_frozen = any(variable is other for other in frozen)
            note = _why_not_penalized(variable, penalized, is_frozen, inactive)
            rows.append(about | {"penalty": "", "strength": None, "update": "", "note": note})
    return Summary(title, pd.DataFrame(rows, columns=COLUMNS))


def _optimizer_of(model: Any) -> PenalizedOptimizer | None:
    has_one = any(isinstance(value, PenalizedOptimizer) for value in vars(model).values())
    return penalized_of(model) if has_one else find_penalized_optimizer(model)


def _updates_of(optimizer: PenalizedOptimizer, model: Any) -> dict[int, list[tuple[int, str]]]:
    """Return, by the id of a penalized variable, the numbers of its rules and the update by which each one acts.

    The targets of a built optimizer are what it does; to match the paths again could give another result.
    """
    penalties = Penalties.of(optimizer, model)
    updates = {}
    for target in penalties.targets:
        names = dict.fromkeys((number for number, _ in target.penalties), optimizer.update)
        if optimizer.update == "auto":
            coupled, _, proximal = assign_actions(target.penalties, "auto", None)
            names = {number: "coupled" for number, _ in coupled} | {number: "proximal" for number, _ in proximal}
        pairs = [(number, names[number]) for number, _ in target.penalties]
        updates |= {id(penalties.variables[number]): pairs for number in target.members}
    return updates


def _describe_rule(optimizer: PenalizedOptimizer, rule: Rule, update: str) -> dict[str, Any]:
    return {
        "penalty": type(rule.penalty).__name__,
        "strength": None if rule.penalty.strength_argument is None else optimizer.strength[rule.name],
        "update": update,
        "note": f"rule {rule.name!r}",
    }


def _why_not_penalized(variable: Any, optimizer: PenalizedOptimizer | None, is_frozen: bool, inactive: set[str]) -> str:
    regularizer = getattr(variable, "regularizer", None)
    if regularizer is not None and not is_frozen:
        return (
            f"penalized in the loss by the Keras regularizer {type(regularizer).__name__}; "
            "poise.adopt_regularizers(model) moves it to the optimizer"
        )
    rules = optimizer.rules if optimizer is not None else ()
    applying = [str(rule.name) for rule in rules if rule.applies_to(variable)]
    if applying:
        suffix = " (inactive)" if set(applying) & inactive else ""
        return f"frozen; rule {', '.join(map(repr, applying))}{suffix} would apply if it were trained"
    if is_frozen:
        return "not trained"
    excluding = [rule.name for rule in rules if rule.selects(variable)]
    if excluding:
        return f"excluded by rule {', '.join(map(repr, excluding))}"
    return "no rule selects it" if rules else "there are no rules"


def _format(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:g}"
    return "" if value is None else str(value)
