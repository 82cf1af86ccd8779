"""One split, several recipes, the same start: what does a penalty change?

`study` trains the same network once without a penalty and once with each recipe. All begin at the same weights and
see the same batches in the same order, so whatever differs at the end is the penalty's doing. The result holds the
prediction loss apart from the penalty, the two forces on each layer, and what became exactly zero.
"""

import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table as RichTable

from poise.balance import forces
from poise.callbacks import ForceHistory, LossSplit
from poise.optimizer import Penalized
from poise.penalties import L1, L2, ElasticNet, GroupLasso, Penalty
from poise.studies.data import DataError, Split, read, split

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Kind:
    """A penalty that a recipe can name: its class, what it is called with, how it acts, and its usual strengths.

    Squared errors of standardised targets and cross-entropies differ in scale and in noise, hence one strength for
    regression and one for classes.
    """

    title: str
    penalty: type[Penalty]
    arguments: Mapping[str, object]
    update: str
    regression: float
    classes: float


KINDS = {
    "none": Kind("No penalty", L2, {}, "coupled", 0.0, 0.0),
    "l2": Kind("L2", L2, {}, "coupled", 0.02, 0.001),
    "l1": Kind("L1", L1, {}, "proximal", 0.01, 0.0005),
    "elasticnet": Kind("Elastic net", ElasticNet, {"l1": 1.0, "l2": 1.0}, "proximal", 0.01, 0.0005),
    "group": Kind("Group lasso", GroupLasso, {"groups": "inputs"}, "proximal", 0.01, 0.0005),
}
DEFAULT_RECIPES = ("l2", "l1")


@dataclass(frozen=True)
class Recipe:
    """A penalty, how strong, and how it acts; `Recipe.parse("l2=0.01", "regression")` reads one.

    The recipe "none" is a penalty of strength zero: the prediction force is then measured on the same weights.
    """

    name: str
    strength: float

    @classmethod
    def parse(cls, text: str, task: str) -> "Recipe":
        """Reads "NAME=STRENGTH", or "NAME" for the usual strength of the task."""
        name, given, number = text.partition("=")
        if name not in KINDS:
            raise DataError(
                f"Penalty {name!r} is unknown. Use one of {', '.join(KINDS)}, with a strength or not: l2=0.01."
            )
        kind = KINDS[name]
        try:
            strength = float(number) if given else kind.regression if task == "regression" else kind.classes
        except ValueError:
            raise DataError(f"The strength in {text!r} is not a number. Write it like {name}=0.01.") from None
        if not 0.0 <= strength < float("inf"):
            raise DataError(f"The strength in {text!r} must be finite and not negative. Write it like {name}=0.01.")
        if name == "none" and strength:
            raise DataError(f"{text!r} asks for no penalty with a strength. Name a penalty, such as l2=0.01.")
        return cls(name, strength)

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def title(self) -> str:
        """The recipe in a few letters, such as "L2 0.01"."""
        return self.kind.title if self.name == "none" else f"{self.kind.title} {self.strength:g}"

    @property
    def penalty(self) -> Penalty:
        return self.kind.penalty(strength=self.strength, **self.kind.arguments)


@dataclass(frozen=True)
class Settings:
    """How every recipe is trained, and how the rows were split."""

    hidden: tuple[int, ...] = (64,)
    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 0.005
    validation: float = 0.3
    seed: int = 0
    drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        limits = {
            "hidden": (all(units >= 1 for units in self.hidden), "hold one unit a layer at least, as (64, 32) or ()"),
            "epochs": (self.epochs >= 1, "be at least 1"),
            "batch_size": (self.batch_size >= 1, "be at least 1"),
            "learning_rate": (0.0 < self.learning_rate < float("inf"), "be positive and finite, such as 0.005"),
            "seed": (0 <= self.seed < 2**32, "lie between 0 and 2**32 - 1"),
        }
        for name, (fine, demand) in limits.items():
            if not fine:
                raise DataError(f"{name} is {getattr(self, name)!r} and must {demand}.")


@dataclass(frozen=True)
class Row:
    """A recipe in numbers, all at the final weights and exact; one row of `Study.table`.

    Args:
        recipe: its title.
        loss, val_loss, gap: prediction loss on the training and on the validation rows, and the second less the first.
        val_score: R² or accuracy on the validation rows.
        penalty, total: strength · R, and `loss` + `penalty`.
        weight_norm, zeros, weights: the norm of all kernels, how many entries are exactly zero, and how many there are.
        winner: the stronger force, or one a layer where layers differ.
        residual, relative_residual: the distance from balance, and its share of the prediction force.
    """

    recipe: str
    loss: float
    val_loss: float
    gap: float
    val_score: float
    penalty: float
    total: float
    weight_norm: float
    zeros: int
    weights: int
    winner: str
    residual: float
    relative_residual: float


@dataclass(frozen=True)
class Outcome:
    """What one recipe came to.

    Args:
        recipe: what was trained.
        model: the trained network.
        history: one row an epoch, as `LossSplit` tells the losses apart.
        forces: both forces per epoch and layer, on single batches, as `ForceHistory` remembers them.
        exact: both forces after some epochs, and after the last, over all training rows: `poise.forces(model, x, y)`.
        losses: the prediction loss of each validation row.
        row: this recipe's row of `Study.table`.
        dropped: the columns whose every weight into the first layer is exactly zero.
    """

    recipe: Recipe
    model: keras.Model
    history: pd.DataFrame
    forces: pd.DataFrame
    exact: pd.DataFrame
    losses: np.ndarray
    row: Row
    dropped: tuple[str, ...]

    @property
    def balance(self) -> pd.DataFrame:
        """Both forces at the end, over all training rows, one row a layer."""
        return self.exact[self.exact["epoch"] == self.exact["epoch"].max()].reset_index(drop=True)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The kernels by layer: what the penalty acts on."""
        return {layer.name: np.asarray(layer.get_weights()[0]) for layer in self.model.layers}


@dataclass(frozen=True, repr=False)
class Study:
    """The recipes beside each other; prints as a table. `save` writes the report."""

    rows: Split
    settings: Settings
    outcomes: tuple[Outcome, ...]
    seconds: float

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a recipe: losses, penalty, gap, weights, zeros, forces."""
        return pd.DataFrame([vars(outcome.row) for outcome in self.outcomes]).set_index("recipe")

    @property
    def baseline(self) -> Outcome:
        """The training without a penalty."""
        return self.outcomes[0]

    @property
    def best(self) -> Outcome:
        """The recipe with the lowest prediction loss on the validation rows; of equals, the first."""
        return min(self.outcomes, key=lambda outcome: outcome.losses.mean())

    def gain(self, outcome: Outcome) -> tuple[float, float]:
        """How far the validation loss is below the baseline's, and the standard error over the paired rows."""
        difference = self.baseline.losses - outcome.losses
        return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes report.html, table.csv and study.json into `folder`; returns the report's path.

        Raises:
            FileExistsError: the folder already holds a run and `overwrite` is false.
            OSError: the folder cannot be written.
        """
        from poise.studies import report

        return report.save(self, folder, overwrite=overwrite)

    def __rich__(self) -> RichTable:
        from poise.studies import report

        return report.console_table(self)

    def __repr__(self) -> str:
        page = io.StringIO()
        Console(file=page, width=240, color_system=None).print(self)
        return page.getvalue().rstrip("\n")

    def _repr_html_(self) -> str:
        return self.table.to_html()


def study(
    data: str | os.PathLike[str] | pd.DataFrame,
    target: str | None = None,
    *,
    task: str | None = None,
    recipes: Sequence[str] = DEFAULT_RECIPES,
    hidden: Sequence[int] = (64,),
    epochs: int = 100,
    batch_size: int = 32,
    learning_rate: float = 0.005,
    validation: float = 0.3,
    seed: int = 0,
    drop: Sequence[str] = (),
    progress: Progress | None = None,
) -> Study:
    """Trains one network without a penalty and with each recipe, from the same weights on the same batches.

    Args:
        data: "diabetes", "breast_cancer", "digits", "wine", the path of a CSV file, or a DataFrame.
        target: the column to predict; a built-in table has its own.
        task: "regression", "binary" or "multiclass"; None infers it.
        recipes: "l2", "l1", "elasticnet" or "group", each alone or with a strength: "l2=0.01". A baseline without
            a penalty is always trained.
        hidden: units of the hidden layers; () is a linear model.
        epochs, batch_size: how long, and on how many rows a step.
        learning_rate: Adam's, falling to zero by a cosine.
        validation: share of the rows that are put aside for validation.
        seed: decides split, initial weights and batches; Keras' and NumPy's global seeds are set to it.
        drop: columns to leave out.
        progress: called after every epoch with the recipe's title, the epochs done and their number.

    Returns:
        A `Study`: `table`, `outcomes`, `save(folder)`.

    Raises:
        DataError: the data or a setting cannot be used; the text says why and what to do.

    Example:
        >>> from poise.studies import study
        >>> list(study("wine", recipes=["l2=0.01"], epochs=2).table.index)
        ['No penalty', 'L2 0.01']
    """
    began = time.perf_counter()
    settings = Settings(tuple(hidden), epochs, batch_size, learning_rate, validation, seed, tuple(drop))
    table = read(data, target, task=task, drop=drop)
    # Each recipe once, in order; asking for "none" adds nothing.
    parsed = dict.fromkeys(Recipe.parse(text, table.task) for text in ("none", *recipes))
    rows = split(table, validation=validation, seed=seed)
    keras.utils.set_random_seed(seed)
    start = network(rows, settings.hidden).get_weights()
    outcomes = tuple(_train(recipe, rows, settings, start, progress) for recipe in parsed)
    return Study(rows, settings, outcomes, time.perf_counter() - began)


def network(rows: Split, hidden: Sequence[int]) -> keras.Model:
    """Dense ReLU layers and one linear output layer: a number, a logit, or a logit a class."""
    outputs = len(rows.table.classes) if rows.table.task == "multiclass" else 1
    layers = [keras.layers.Dense(units, activation="relu", name=f"hidden_{i}") for i, units in enumerate(hidden, 1)]
    inputs = keras.Input((rows.x_train.shape[1],))
    return keras.Sequential([inputs, *layers, keras.layers.Dense(outputs, name="output")], name="network")


def row_losses(task: str, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """The prediction loss of each row: squared error, or cross-entropy of the logits."""
    y, outputs = np.asarray(y), np.asarray(outputs, dtype="float64")
    if task == "regression":
        return np.square(y - outputs)[:, 0]
    if task == "binary":
        return np.logaddexp(0.0, outputs * (1.0 - 2.0 * y))[:, 0]
    return np.logaddexp.reduce(outputs, axis=1) - outputs[np.arange(len(y)), y]


def _train(
    recipe: Recipe, rows: Split, settings: Settings, start: Sequence[np.ndarray], progress: Progress | None
) -> Outcome:
    model, task = network(rows, settings.hidden), rows.table.task
    model.set_weights(start)
    batches = -(-len(rows.x_train) // settings.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * batches)
    inner = keras.optimizers.Adam(rate)
    optimizer = Penalized(inner, recipe.penalty, update=recipe.kind.update, observe=max(1, batches // 5))
    model.compile(optimizer=optimizer, loss=_loss(task))
    force_history, exact = ForceHistory(), _ExactForces(rows, settings.epochs)
    callbacks = [LossSplit(), force_history, exact]
    if progress:
        report = lambda epoch, logs: progress(recipe.title, epoch + 1, settings.epochs)  # noqa: E731
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=report))
    keras.utils.set_random_seed(settings.seed)
    x, y, batch_size, epochs = rows.x_train, rows.y_train, settings.batch_size, settings.epochs
    history = model.fit(x, y, batch_size, epochs, verbose=0, callbacks=callbacks, validation_data=rows.validation)
    if not np.isfinite([values[-1] for values in history.history.values()]).all():
        found = f"The training of {recipe.title!r} diverged: a loss is no longer finite."
        raise DataError(f"{found} Lower learning_rate ({settings.learning_rate:g}) or the strength.")
    by_epoch = pd.DataFrame(history.history, index=pd.RangeIndex(1, epochs + 1, name="epoch"))
    batch_forces = force_history.table.assign(epoch=force_history.table["epoch"] + 1)
    all_forces = pd.concat(exact.tables, ignore_index=True)
    losses, row = _summarise(recipe, model, rows, exact.tables[-1])
    return Outcome(recipe, model, by_epoch, batch_forces, all_forces, losses, row, _dropped(model, rows))


def _loss(task: str) -> keras.losses.Loss:
    if task == "regression":
        return keras.losses.MeanSquaredError()
    if task == "binary":
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class _ExactForces(keras.callbacks.Callback):
    """Measures both forces over all training rows after a dozen epochs, close together at the start."""

    def __init__(self, rows: Split, epochs: int):
        super().__init__()
        self.rows, self.tables = rows, []
        self.moments = set((np.linspace(1.0, np.sqrt(epochs), 12) ** 2).round().astype(int))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if epoch + 1 in self.moments:
            # One batch where memory allows: each batch size is compiled anew.
            size = min(len(self.rows.x_train), 8192)
            table = forces(self.model, self.rows.x_train, self.rows.y_train, batch_size=size)
            table.insert(0, "epoch", epoch + 1)
            self.tables.append(table)


def _summarise(recipe: Recipe, model: keras.Model, rows: Split, balance: pd.DataFrame) -> tuple[np.ndarray, Row]:
    task = rows.table.task
    trained = row_losses(task, rows.y_train, model.predict(rows.x_train, batch_size=1024, verbose=0))
    outputs = model.predict(rows.x_validation, batch_size=1024, verbose=0)
    losses = row_losses(task, rows.y_validation, outputs)
    kernels = [layer.kernel for layer in model.layers]
    penalty = sum(float(recipe.penalty.value(kernel, recipe.strength)) for kernel in kernels)
    weights = np.concatenate([np.asarray(keras.ops.convert_to_numpy(kernel)).ravel() for kernel in kernels])
    residual, prediction = (float(np.linalg.norm(balance[force])) for force in ("residual", "prediction"))
    row = Row(
        recipe=recipe.title,
        loss=float(trained.mean()),
        val_loss=float(losses.mean()),
        gap=float(losses.mean() - trained.mean()),
        val_score=_score(task, rows.y_validation, outputs),
        penalty=penalty,
        total=float(trained.mean()) + penalty,
        weight_norm=float(np.linalg.norm(weights)),
        zeros=int((weights == 0.0).sum()),
        weights=weights.size,
        winner=_winner(balance),
        residual=residual,
        relative_residual=residual / prediction if prediction else float("nan"),
    )
    return losses, row


def _score(task: str, y: np.ndarray, outputs: np.ndarray) -> float:
    if task == "regression":
        return float(1.0 - np.square(y - outputs).mean() / np.var(y))
    chosen = outputs[:, 0] > 0.0 if task == "binary" else outputs.argmax(axis=1)
    return float((chosen == y.reshape(-1)).mean())


def _winner(balance: pd.DataFrame) -> str:
    """One word where all layers agree, else one a layer."""
    if balance["winner"].nunique() == 1:
        return str(balance["winner"].iloc[0])
    pairs = zip(balance["variable"], balance["winner"], strict=True)
    return ", ".join(f"{layer_name(variable)}: {winner}" for variable, winner in pairs)


def layer_name(variable: str) -> str:
    """The layer in a variable's path: "network/hidden_1/kernel" gives "hidden_1"."""
    return variable.split("/")[-2]


def _dropped(model: keras.Model, rows: Split) -> tuple[str, ...]:
    dead = (np.asarray(model.layers[0].get_weights()[0]) == 0.0).all(axis=1)
    alive = pd.Series(dead).groupby(list(rows.owners), sort=False).all()
    return tuple(str(column) for column in alive.index[alive])
